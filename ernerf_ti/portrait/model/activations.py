"""Activations that map network outputs to densities and colors."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LARGEST_SLOPE = math.exp(15.0)  # as in RAD-NeRF; a density of e^15 is opaque within 1e-5 of the box


def density(x: Tensor) -> Tensor:
    """exp(x) whose gradient is capped at that of x = 15, so that one opaque sample can't dominate a step."""
    return _TruncatedExp.apply(x)


def unit_interval(x: Tensor) -> Tensor:
    """A sigmoid scaled to (-0.001, 1.001), so that it reaches 0 and 1 [Mip-NeRF, Barron et al. 2021, supplement]."""
    return torch.sigmoid(x) * 1.002 - 0.001


def density_(x: Tensor) -> Tensor:
    """:func:`density` in place, without gradients."""
    return x.exp_()


def unit_interval_(x: Tensor) -> Tensor:
    """:func:`unit_interval` in place, without gradients."""
    return x.sigmoid_().mul_(1.002).sub_(0.001)


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * y.clamp(max=_LARGEST_SLOPE)
