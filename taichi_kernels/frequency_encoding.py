"""Frequency encoding: a coordinate and its sines and cosines at octaves of frequency.

    x  ->  x, sin(x), cos(x), sin(2 x), cos(2 x), ..., sin(2^(K-1) x), cos(2^(K-1) x)

This is NeRF's positional encoding (Mildenhall et al. 2020, eq. 4) without the factor pi and with the
input kept, the variant used by the torch-ngp family.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, dense, expect_integer
from taichi_kernels.operators import Operator
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi


def frequency_encode(x: Tensor, n_octaves: int) -> Tensor:
    """Encode each coordinate by sines and cosines.

    Args:
        x: [N, D] float32 or float64, radians.
        n_octaves: K >= 0, number of frequencies 1, 2, 4, ...

    Returns:
        [N, D (1 + 2 K)]: the D inputs, then for each frequency the D sines and the D cosines.

    Differentiable in x, to any order. Deterministic. Raises ValueError if an argument is not as above.
    """
    n_octaves = expect_integer("n_octaves", n_octaves, 0, None, "pass the number of frequencies")
    x = cast_under_autocast(x)
    check = ArgumentCheck()
    check.tensor("x", x, ("N", "D"), FLOATS)
    features: Tensor = _FREQUENCY_ENCODE(x, n_octaves)
    return features


def _encode(x: Tensor, n_octaves: int) -> Tensor:
    features = _empty_features(x, n_octaves)
    launch(_kernels(x.dtype, is_cuda()).encode, x, *x.shape, n_octaves, features)
    return features


def _empty_features(x: Tensor, n_octaves: int) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] * (1 + 2 * n_octaves))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.n_octaves = inputs
    ctx.n_dims = x.shape[1]
    ctx.save_for_backward(output)


def _backward(ctx: Any, grad_features: Tensor) -> tuple[Tensor, None]:
    (features,) = ctx.saved_tensors
    return _FREQUENCY_ENCODE_BACKWARD(features, grad_features, ctx.n_dims, ctx.n_octaves), None


def _gradient(features: Tensor, grad_features: Tensor, n_dims: int, n_octaves: int) -> Tensor:
    n = features.shape[0]
    grad_x = features.new_empty(n, n_dims)
    launch(_kernels(features.dtype, is_cuda()).gradient, features, dense(grad_features), n, n_dims, n_octaves, grad_x)
    return grad_x


def _empty_gradient(features: Tensor, grad_features: Tensor, n_dims: int, n_octaves: int) -> Tensor:
    return features.new_empty(features.shape[0], n_dims)


def _setup_second_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, grad_features, ctx.n_dims, ctx.n_octaves = inputs
    ctx.save_for_backward(features, grad_features)


def _second_backward(ctx: Any, grad_grad_x: Tensor) -> tuple[Tensor, Tensor, None, None]:
    # The gradient is grad_0 + sum_k 2^k (grad_sin_k cos_k - grad_cos_k sin_k), a function of features alone: what
    # they depend on is differentiated through the first backward.
    features, grad_features = ctx.saved_tensors
    n, D, K = features.shape[0], ctx.n_dims, ctx.n_octaves
    frequencies = 2.0 ** torch.arange(K, dtype=features.dtype, device=features.device)
    upstream = grad_grad_x[:, None] * frequencies[:, None]  # [N, K, D]
    sine, cosine = features[:, D:].reshape(n, K, 2, D).unbind(2)
    grad_sine, grad_cosine = grad_features[:, D:].reshape(n, K, 2, D).unbind(2)
    to_features = torch.stack((-grad_cosine * upstream, grad_sine * upstream), 2).reshape(n, 2 * K * D)
    to_grad_features = torch.stack((cosine * upstream, -sine * upstream), 2).reshape(n, 2 * K * D)
    return (
        torch.cat((torch.zeros_like(grad_grad_x), to_features), 1),
        torch.cat((grad_grad_x, to_grad_features), 1),
        None,
        None,
    )


class _Kernels(NamedTuple):
    encode: Any
    gradient: Any


@kernel_factory
def _kernels(dtype: torch.dtype, on_cuda: bool) -> _Kernels:
    ti = taichi()
    real, Reals = scalar(dtype), array(dtype)
    # On the CPU float32 features come from a sine and cosine in float64, doubled from octave to octave. The error
    # doubles too, and stays far below float32 for as many octaves as are made of one sine. float64 features have no
    # such room. On CUDA, where float64 is up to 64 times slower, each octave has a sine and cosine of its own: doubling
    # an angle is exact, and CUDA's functions reduce angles of any size.
    doubling = dtype == torch.float32 and not on_cuda
    working, DOUBLINGS = ti.f64 if doubling else real, 16

    @parallel_kernel(on_cuda)
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
            angle = ti.cast(x[k], working)
            sine, cosine = ti.sin(angle), ti.cos(angle)
            for octave in range(n_octaves):
                features[j + n_dims] = ti.cast(sine, real)
                features[j + 2 * n_dims] = ti.cast(cosine, real)
                j += 2 * n_dims
                if ti.static(doubling):
                    sine, cosine = working(2.0) * sine * cosine, (cosine - sine) * (cosine + sine)
                    if octave % DOUBLINGS == DOUBLINGS - 1:
                        angle *= working(float(2**DOUBLINGS))
                        sine, cosine = ti.sin(angle), ti.cos(angle)
                else:
                    angle *= working(2.0)
                    sine, cosine = ti.sin(angle), ti.cos(angle)

    @parallel_kernel(on_cuda)
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


_FREQUENCY_ENCODE = Operator(
    "frequency_encode(Tensor x, int n_octaves) -> Tensor", _encode, _empty_features, _setup_context, _backward
)
_FREQUENCY_ENCODE_BACKWARD = Operator(
    "frequency_encode_backward(Tensor features, Tensor grad_features, int n_dims, int n_octaves) -> Tensor",
    _gradient,
    _empty_gradient,
    _setup_second_context,
    _second_backward,
)
