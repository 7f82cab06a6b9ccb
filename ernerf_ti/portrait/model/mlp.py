"""A multi-layer perceptron without biases, on channel-major features."""

import itertools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers without biases, with a ReLU between them.

    It computes in the dtype of its inputs; the weights are cast to it.

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

    @property
    def first_weight(self) -> Tensor:
        """[n_hidden, n_inputs] weight of the first layer."""
        return self.weights[0]

    @property
    def last_weight(self) -> Tensor:
        """[n_outputs, n_hidden] weight of the last layer."""
        return self.weights[-1]

    @property
    def weights(self) -> list[Tensor]:
        """Of the layers, [outputs, inputs] each."""
        return [cast(nn.Linear, layer).weight for layer in self.layers]

    def forward(
        self,
        *inputs: Tensor,
        shared: Tensor | None = None,
        first_weight: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Evaluate M points.

        Args:
            inputs: [M, C_i] parts of the input, in the order of the weight's columns.
            shared: [S] the last inputs, if they are the same for all points. They act as a bias of the first layer.
            first_weight: [n_hidden, sum C_i + S] replaces the weight of the first layer.
            out: [n_outputs, M] contiguous, for the result; without gradients only.

        Returns:
            [M, n_outputs]; the memory is channel-major, like that of the grid encodings.
        """
        weights = self.weights
        weight = weights[0] if first_weight is None else first_weight
        sizes = [x.shape[1] for x in inputs] + ([] if shared is None else [len(shared)])
        columns, dtype = weight.split(sizes, 1), inputs[0].dtype
        result = out if len(weights) == 1 else None
        if shared is None:
            h = torch.mm(columns[0].to(dtype), inputs[0].t(), out=result)
        else:
            bias = (columns[-1] @ shared).to(dtype)
            h = torch.addmm(bias[:, None], columns[0].to(dtype), inputs[0].t(), out=result)
        for part, x in zip(columns[1:], inputs[1:], strict=False):
            # To add up products moves less memory than to concatenate inputs. Under autocast h has a dtype of its own.
            h.addmm_(part.to(h.dtype), x.t().to(h.dtype))
        for i, weight in enumerate(weights[1:], 2):
            h = torch.mm(weight.to(h.dtype), F.relu(h, inplace=True), out=out if i == len(weights) else None)
        return h.t()


def in_precision(x: Tensor, precision: torch.dtype) -> Tensor:
    """Inputs of networks in their precision; float32 leaves them as they are, also in float64."""
    return x if precision == torch.float32 else x.to(precision)


def concatenate(tensors: list[Tensor]) -> Tensor:
    """[M, C_i] -> [M, sum C_i], channel-major in memory, which makes it a copy of whole blocks for such inputs."""
    return torch.cat([tensor.t() for tensor in tensors]).t()
