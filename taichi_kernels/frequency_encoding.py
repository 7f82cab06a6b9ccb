"""Frequency encoding: a coordinate and its sines and cosines at octaves of frequency.

    x  ->  x, sin(x), cos(x), sin(2 x), cos(2 x), ..., sin(2^(K-1) x), cos(2^(K-1) x)

This is NeRF's positional encoding (Mildenhall et al. 2020, eq. 4) without the factor pi and with the
input kept, the form used by the torch-ngp family.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from taichi_kernels.checks import FLOATS, ArgumentCheck, dense, expect_integer
from taichi_kernels.runtime import array, launch, scalar, start, taichi


def frequency_encode(x: Tensor, n_octaves: int) -> Tensor:
    """Encode each coordinate by sines and cosines.

    Args:
        x: [N, D] float32 or float64, radians.
        n_octaves: K >= 0, number of frequencies 1, 2, 4, ...

    Returns:
        [N, D (1 + 2 K)]: the D inputs, then for each frequency the D sines and the D cosines.

    Differentiable once in x. Deterministic. Raises ValueError if an argument is not as above.
    """
    n_octaves = expect_integer("n_octaves", n_octaves, 0, None, "pass the number of frequencies")
    check = ArgumentCheck()
    check.tensor("x", x, ("N", "D"), FLOATS)
    start(x.device, "x")
    return _FrequencyEncode.apply(x, n_octaves)


class _FrequencyEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, n_octaves):
        n, n_dims = x.shape
        features = x.new_empty(n, n_dims * (1 + 2 * n_octaves))
        launch(_kernels(x.dtype).encode, x, n, n_dims, n_octaves, features)
        ctx.save_for_backward(features)
        ctx.n_dims = n_dims
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_features):
        (features,) = ctx.saved_tensors
        n, n_dims = len(features), ctx.n_dims
        n_octaves = (features.shape[1] // n_dims - 1) // 2 if n_dims else 0
        grad_x = features.new_empty(n, n_dims)
        launch(_kernels(features.dtype).gradient, features, dense(grad_features), n, n_dims, n_octaves, grad_x)
        return grad_x, None


class _Kernels(NamedTuple):
    encode: object
    gradient: object


@functools.cache
def _kernels(dtype: torch.dtype) -> _Kernels:
    ti = taichi()
    real, Reals = scalar(dtype), array(dtype)
    # float32 features come from one sine and cosine in float64, doubled from octave to octave: the
    # error doubles too, and stays far below float32. float64 features have no such room.
    doubling = dtype == torch.float32

    @ti.kernel
    def encode(
        x: Reals,  # [N, D]
        n: ti.i32,
        n_dims: ti.i32,
        n_octaves: ti.i32,
        features: Reals,  # [N, D (1 + 2 K)]
    ):
        for k in range(n * n_dims):
            i = k // n_dims
            j = i * n_dims * (1 + 2 * n_octaves) + k - i * n_dims
            features[j] = x[k]
            angle = ti.cast(x[k], ti.f64)
            sine, cosine = ti.sin(angle), ti.cos(angle)
            for _ in range(n_octaves):
                features[j + n_dims] = ti.cast(sine, real)
                features[j + 2 * n_dims] = ti.cast(cosine, real)
                j += 2 * n_dims
                if ti.static(doubling):
                    sine, cosine = ti.f64(2.0) * sine * cosine, (cosine - sine) * (cosine + sine)
                else:
                    angle *= ti.f64(2.0)
                    sine, cosine = ti.sin(angle), ti.cos(angle)

    @ti.kernel
    def gradient(
        features: Reals,  # [N, D (1 + 2 K)]
        grad_features: Reals,  # [N, D (1 + 2 K)]
        n: ti.i32,
        n_dims: ti.i32,
        n_octaves: ti.i32,
        grad_x: Reals,  # [N, D]
    ):
        for k in range(n * n_dims):
            i = k // n_dims
            j = i * n_dims * (1 + 2 * n_octaves) + k - i * n_dims
            total = grad_features[j]
            frequency = real(1.0)
            for _ in range(n_octaves):
                sine, cosine = features[j + n_dims], features[j + 2 * n_dims]
                total += frequency * (grad_features[j + n_dims] * cosine - grad_features[j + 2 * n_dims] * sine)
                j += 2 * n_dims
                frequency *= real(2.0)
            grad_x[k] = total

    return _Kernels(encode, gradient)
