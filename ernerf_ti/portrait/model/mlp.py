"""A multi-layer perceptron without biases, on channel-major features."""

import itertools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers without biases, with a ReLU between them.

    Args:
        n_inputs: input features.
        n_hidden: units per hidden layer.
        n_outputs: output features.
        n_layers: linear layers, at least 1.
    """

    def __init__(self, n_inputs: int, n_hidden: int, n_outputs: int, n_layers: int):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers: expected at least 1, got {n_layers}; pass the number of linear layers")
        sizes = [n_inputs] + [n_hidden] * (n_layers - 1) + [n_outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(sizes))

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """Evaluate M points.

        Args:
            x: [M, n_inputs], or [M, n_inputs - S] with S shared inputs.
            shared: [S] the last inputs, if they are the same for all points. They act as a bias of the first layer.

        Returns:
            [M, n_outputs]; the memory is channel-major, like that of the grid encodings.
        """
        h = x.t()
        for i, layer in enumerate(self.layers):
            weight = cast(nn.Linear, layer).weight
            if i:
                h = F.relu(h, inplace=True)
            if i == 0 and shared is not None:
                n = weight.shape[1] - len(shared)
                h = torch.addmm((weight[:, n:] @ shared)[:, None], weight[:, :n], h)
            else:
                h = weight @ h
        return h.t()


def concatenate(tensors: list[Tensor]) -> Tensor:
    """[M, C_i] -> [M, sum C_i], channel-major in memory, which makes it a copy of whole blocks for such inputs."""
    return torch.cat([tensor.t() for tensor in tensors]).t()
