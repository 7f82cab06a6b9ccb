"""Functions that turn outputs of a network into densities and colors."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LARGEST_EXPONENT = 15.0  # as in RAD-NeRF; a density of e^15 is opaque within 1e-5 of the box


def density(x: Tensor) -> Tensor:
    """exp(x), whose gradient stops growing at x = 15, so that one opaque sample can't blow up a step."""
    return _TruncatedExp.apply(x)


def unit_interval(x: Tensor) -> Tensor:
    """A sigmoid that reaches 0 and 1, going from -0.001 to 1.001 [Mip-NeRF, Barron et al. 2021, supplement]."""
    return torch.sigmoid(x) * 1.002 - 0.001


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        limit = torch.exp(y.new_tensor(_LARGEST_EXPONENT))
        return grad * torch.minimum(y, limit)
