"""A perceptron without biases, on features that lie channel by channel in memory."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers without biases, with ReLU between them and nothing behind the last.

    Args:
        n_inputs: features in.
        n_hidden: width of the hidden layers.
        n_outputs: features out.
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
            shared: [S] the last inputs where they are the same for all points. They act as a bias of the
                first layer, and cost nothing.

        Returns:
            [M, n_outputs]; the memory is channel-major, like that of the grid encodings.
        """
        h = x.t()
        for i, layer in enumerate(self.layers):
            weight = layer.weight
            if i:
                h = F.relu(h, inplace=True)
            if i == 0 and shared is not None:
                n = weight.shape[1] - len(shared)
                h = torch.addmm((weight[:, n:] @ shared)[:, None], weight[:, :n], h)
            else:
                h = weight @ h
        return h.t()


def concatenate(parts: list[Tensor]) -> Tensor:
    """[M, C_i] -> [M, sum C_i], channel-major in memory: a copy of whole blocks where the parts are so too."""
    return torch.cat([part.t() for part in parts]).t()
