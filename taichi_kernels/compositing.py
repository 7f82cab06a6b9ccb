"""Volume rendering: blend the samples of each ray front to back.

    alpha_k = 1 - exp(-sigma_k delta_k),   T_k = prod_{j<k} (1 - alpha_j),   w_k = T_k alpha_k
                                                                  [Max 1995; NeRF, eq. 3]

Channels are of two kinds: weighted sums over a ray, sum_k w_k v_k (color, depth, uncertainty), and
plain sums, sum_k v_k, over the samples that the ray visits (ER-NeRF's ambient terms).
"""

import functools
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, dense
from taichi_kernels.operators import Operator, not_differentiable, was_written
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi

# Channels that a kernel keeps in registers; wider inputs take several launches.
_CHANNELS_PER_LAUNCH = 16


class CompositedRays(NamedTuple):
    """Sums over the samples of N rays."""

    weighted: Tensor
    """[N, Cw] sums with the weights w_k."""
    summed: Tensor
    """[N, Cs] plain sums over the visited samples."""
    opacity: Tensor
    """[N] sum of the weights, in [0, 1]."""


def composite(
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    summed: Tensor | None,
    packed_info: Tensor,
    T_threshold: float = 1e-4,
) -> CompositedRays:
    """Blend the samples of each ray.

    Args:
        sigmas: [M] float32 or float64, density per world unit, already activated, >= 0.
        deltas: [M] step length in world units.
        weighted: [M, Cw] channels to sum with the weights; any Cw from 0 up.
        summed: [M, Cs] channels to sum plainly; None for no such channels.
        packed_info: [N, 2] int32, first sample and number of samples of each ray; rays share none.
        T_threshold: a ray ends after the first sample that takes its transmittance below this.

    Returns:
        CompositedRays. A ray without samples has zeros.

    Differentiable once in sigmas, weighted and summed, not in deltas; a sample past the end of its ray
    has zero gradients. Deterministic. Raises ValueError if an argument is not as above, and RuntimeError
    for a second derivative.
    """
    samples = _in_float32(sigmas, deltas, weighted, summed)
    _check_samples(*samples, packed_info)
    return CompositedRays(*_COMPOSITE(*samples, packed_info, float(T_threshold)))


def accumulate_(
    rays: CompositedRays,
    ray_ids: Tensor,
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    summed: Tensor | None,
    packed_info: Tensor,
    T_threshold: float = 1e-4,
) -> Tensor:
    """Add further samples to rays that are rendered in several passes, in place, without gradients.

    Unlike :func:`composite` a ray ends with the sample *before* which its transmittance, 1 - opacity,
    is below the threshold, as in the inference kernels of the torch-ngp family.

    Args:
        rays: sums so far, modified.
        ray_ids: [n] int32, the row of `rays` for each row of packed_info, each at most once.
        sigmas, deltas, weighted, summed, packed_info: as for :func:`composite`, packed_info [n, 2].
        T_threshold: see above.

    Returns:
        [n] bool, true for a ray that has ended.

    Raises ValueError if an argument is not as above, or requires a gradient.
    """
    samples = _in_float32(sigmas, deltas, weighted, summed)
    check = _check_samples(*samples, packed_info, differentiable=False)
    dtype = samples[0].dtype
    check.tensor("ray_ids", ray_ids, ("N",), torch.int32)
    check.tensor("rays.opacity", rays.opacity, ("R",), dtype, differentiable=False)
    check.tensor("rays.weighted", rays.weighted, ("R", "Cw"), dtype, differentiable=False)
    check.tensor("rays.summed", rays.summed, ("R", "Cs"), dtype, differentiable=False)
    has_ended: Tensor = _ACCUMULATE(*rays, ray_ids, *samples, packed_info, float(T_threshold))
    return has_ended


def _in_float32(
    sigmas: Tensor, deltas: Tensor, weighted: Tensor, summed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The samples, in float32 under autocast, with a tensor for the plain channels."""
    sigmas = cast_under_autocast(sigmas)
    if summed is None and isinstance(sigmas, Tensor):
        summed = sigmas.new_empty(sigmas.shape[0], 0)
    return sigmas, cast_under_autocast(deltas), cast_under_autocast(weighted), cast_under_autocast(summed)


def _check_samples(
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    summed: Tensor,
    packed_info: Tensor,
    differentiable: bool = True,
) -> ArgumentCheck:
    check = ArgumentCheck()
    check.tensor("sigmas", sigmas, ("M",), FLOATS, differentiable)
    check.tensor("deltas", deltas, ("M",), sigmas.dtype, differentiable=False)
    check.tensor("weighted", weighted, ("M", "Cw"), sigmas.dtype, differentiable)
    check.tensor("summed", summed, ("M", "Cs"), sigmas.dtype, differentiable)
    check.tensor("packed_info", packed_info, ("N", 2), torch.int32)
    return check


@functools.cache
def _channel_blocks(n_weighted: int, n_summed: int) -> tuple[tuple[int, int, int, int], ...]:
    """First channel and number of channels of either kind for each launch, at least one launch."""
    weighted = range(0, n_weighted, _CHANNELS_PER_LAUNCH)
    summed = range(0, n_summed, _CHANNELS_PER_LAUNCH)
    blocks = []
    for w, s in list(zip_longest(weighted, summed)) or [(None, None)]:
        n_w = 0 if w is None else min(_CHANNELS_PER_LAUNCH, n_weighted - w)
        n_s = 0 if s is None else min(_CHANNELS_PER_LAUNCH, n_summed - s)
        blocks.append((w or 0, n_w, s or 0, n_s))
    return tuple(blocks)


def _composite(
    sigmas: Tensor, deltas: Tensor, weighted: Tensor, summed: Tensor, packed_info: Tensor, T_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    sums_w, sums_s, opacity = _empty_sums(sigmas, deltas, weighted, summed, packed_info, T_threshold)
    for first_w, n_w, first_s, n_s in _channel_blocks(weighted.shape[1], summed.shape[1]):
        launch(
            _kernels(n_w, n_s, sigmas.dtype, is_cuda()).forward,
            *(sigmas, deltas, weighted, summed, packed_info, len(packed_info), len(sigmas), T_threshold),
            *(first_w, weighted.shape[1], first_s, summed.shape[1]),
            *(sums_w, sums_s, opacity),
        )
    return sums_w, sums_s, opacity


def _empty_sums(
    sigmas: Tensor, deltas: Tensor, weighted: Tensor, summed: Tensor, packed_info: Tensor, T_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    n_rays = packed_info.shape[0]
    return (
        weighted.new_empty(n_rays, weighted.shape[1]),
        summed.new_empty(n_rays, summed.shape[1]),
        sigmas.new_empty(n_rays),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    sigmas, deltas, weighted, _, packed_info, ctx.T_threshold = inputs
    sums_w, _, opacity = output
    ctx.save_for_backward(sigmas, deltas, weighted, packed_info, sums_w, opacity)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    grad_sigmas, grad_weighted, grad_summed = _COMPOSITE_BACKWARD(*ctx.saved_tensors, *grads, ctx.T_threshold)
    return grad_sigmas, None, grad_weighted, grad_summed, None, None


def _gradient(
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    packed_info: Tensor,
    sums_w: Tensor,
    opacity: Tensor,
    grad_sums_w: Tensor,
    grad_sums_s: Tensor,
    grad_opacity: Tensor,
    T_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_sums_w, grad_sums_s, grad_opacity = dense(grad_sums_w), dense(grad_sums_s), dense(grad_opacity)
    Cw, Cs = weighted.shape[1], grad_sums_s.shape[1]
    # Zeros, for samples that no ray visits.
    grads = torch.zeros_like(sigmas), torch.zeros_like(weighted), sigmas.new_zeros(len(sigmas), Cs)
    for first_w, n_w, first_s, n_s in _channel_blocks(Cw, Cs):
        launch(
            _kernels(n_w, n_s, sigmas.dtype, is_cuda()).backward,
            *(sigmas, deltas, weighted, packed_info, sums_w, opacity, grad_sums_w, grad_sums_s, grad_opacity),
            *(len(packed_info), len(sigmas), T_threshold),
            *(first_w, Cw, first_s, Cs),
            *grads,
        )
    return grads


def _empty_gradient(
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    packed_info: Tensor,
    sums_w: Tensor,
    opacity: Tensor,
    grad_sums_w: Tensor,
    grad_sums_s: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_summed = sigmas.new_empty(sigmas.shape[0], grad_sums_s.shape[1])
    return torch.empty_like(sigmas), torch.empty_like(weighted), grad_summed


def _accumulate(
    sums_w: Tensor,
    sums_s: Tensor,
    opacity: Tensor,
    ray_ids: Tensor,
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    summed: Tensor,
    packed_info: Tensor,
    T_threshold: float,
) -> Tensor:
    has_ended = torch.zeros(len(ray_ids), dtype=torch.uint8, device=sigmas.device)
    opacity_before = opacity.clone()
    for first_w, n_w, first_s, n_s in _channel_blocks(weighted.shape[1], summed.shape[1]):
        launch(
            _kernels(n_w, n_s, sigmas.dtype, is_cuda()).accumulate,
            *(sigmas, deltas, weighted, summed, packed_info, ray_ids),
            *(len(ray_ids), len(sigmas), len(opacity), T_threshold),
            *(first_w, weighted.shape[1], first_s, summed.shape[1]),
            *(opacity_before, sums_w, sums_s, opacity, has_ended),
        )
    for changed in (sums_w, sums_s, opacity):
        was_written(changed)
    return has_ended.view(torch.bool)


class _Kernels(NamedTuple):
    forward: Any
    backward: Any
    accumulate: Any


@kernel_factory
def _kernels(n_weighted: int, n_summed: int, dtype: torch.dtype, on_cuda: bool) -> _Kernels:
    ti = taichi()
    real, Reals, Ints, Bytes = scalar(dtype), array(dtype), array(torch.int32), array(torch.uint8)
    W, S = n_weighted, n_summed

    @ti.func
    def sample_range(packed_info: ti.template(), i, n_samples):
        """First sample and end of ray i, kept inside the arrays whatever packed_info says."""
        begin = ti.max(0, packed_info[2 * i])
        return begin, ti.min(n_samples, begin + packed_info[2 * i + 1])

    @parallel_kernel(on_cuda)
    def forward(
        # samples
        sigmas: Reals,  # [M]
        deltas: Reals,  # [M]
        weighted: Reals,  # [M, Cw]
        summed: Reals,  # [M, Cs]
        # rays
        packed_info: Ints,  # [N, 2]
        n_rays: ti.i32,
        n_samples: ti.i32,
        T_threshold: real,
        # channels of this launch, out of how many
        first_w: ti.i32,
        Cw: ti.i32,
        first_s: ti.i32,
        Cs: ti.i32,
        # results
        sums_w: Reals,  # [N, Cw]
        sums_s: Reals,  # [N, Cs]
        opacity: Reals,  # [N]
    ):
        for i in range(n_rays):
            begin, end = sample_range(packed_info, i, n_samples)
            acc_w, acc_s = ti.Vector.zero(real, ti.max(W, 1)), ti.Vector.zero(real, ti.max(S, 1))
            T, total = real(1.0), real(0.0)
            for k in range(begin, end):
                transparency = ti.exp(-sigmas[k] * deltas[k])
                weight = T * (real(1.0) - transparency)
                total += weight
                for c in ti.static(range(W)):
                    acc_w[c] += weight * weighted[k * Cw + first_w + c]
                for c in ti.static(range(S)):
                    acc_s[c] += summed[k * Cs + first_s + c]
                T *= transparency
                if T < T_threshold:
                    break
            for c in ti.static(range(W)):
                sums_w[i * Cw + first_w + c] = acc_w[c]
            for c in ti.static(range(S)):
                sums_s[i * Cs + first_s + c] = acc_s[c]
            opacity[i] = total

    @parallel_kernel(on_cuda)
    def backward(
        # samples
        sigmas: Reals,  # [M]
        deltas: Reals,  # [M]
        weighted: Reals,  # [M, Cw]
        # rays
        packed_info: Ints,  # [N, 2]
        sums_w: Reals,  # [N, Cw]
        opacity: Reals,  # [N]
        grad_sums_w: Reals,  # [N, Cw]
        grad_sums_s: Reals,  # [N, Cs]
        grad_opacity: Reals,  # [N]
        n_rays: ti.i32,
        n_samples: ti.i32,
        T_threshold: real,
        # channels of this launch, out of how many
        first_w: ti.i32,
        Cw: ti.i32,
        first_s: ti.i32,
        Cs: ti.i32,
        # results, zeros before the first launch
        grad_sigmas: Reals,  # [M]
        grad_weighted: Reals,  # [M, Cw]
        grad_summed: Reals,  # [M, Cs]
    ):
        # With G_k = dL/dw_k:  dL/dsigma_k = delta_k (T_{k+1} G_k - sum_{j>k} w_j G_j).
        # The gradient of the opacity is the same for all w, so that its part is T_end delta_k.
        for i in range(n_rays):
            begin, end = sample_range(packed_info, i, n_samples)
            grads_w, grads_s = ti.Vector.zero(real, ti.max(W, 1)), ti.Vector.zero(real, ti.max(S, 1))
            remaining = real(0.0)  # sum of w_j G_j over the samples to come
            for c in ti.static(range(W)):
                grads_w[c] = grad_sums_w[i * Cw + first_w + c]
                remaining += grads_w[c] * sums_w[i * Cw + first_w + c]
            for c in ti.static(range(S)):
                grads_s[c] = grad_sums_s[i * Cs + first_s + c]
            from_opacity = real(0.0)
            if first_w == 0 and first_s == 0:
                from_opacity = grad_opacity[i] * (real(1.0) - opacity[i])
            T = real(1.0)
            for k in range(begin, end):
                transparency = ti.exp(-sigmas[k] * deltas[k])
                weight = T * (real(1.0) - transparency)
                T *= transparency
                grad_weight = real(0.0)
                for c in ti.static(range(W)):
                    j = k * Cw + first_w + c
                    grad_weight += grads_w[c] * weighted[j]
                    grad_weighted[j] = weight * grads_w[c]
                for c in ti.static(range(S)):
                    grad_summed[k * Cs + first_s + c] = grads_s[c]
                remaining -= weight * grad_weight
                grad = deltas[k] * (T * grad_weight - remaining + from_opacity)
                grad_sigmas[k] = grad_sigmas[k] + grad
                if T < T_threshold:
                    break

    @parallel_kernel(on_cuda)
    def accumulate(
        # samples
        sigmas: Reals,  # [M]
        deltas: Reals,  # [M]
        weighted: Reals,  # [M, Cw]
        summed: Reals,  # [M, Cs]
        # rays
        packed_info: Ints,  # [n, 2]
        ray_ids: Ints,  # [n]
        n: ti.i32,
        n_samples: ti.i32,
        n_rays: ti.i32,
        T_threshold: real,
        # channels of this launch, out of how many
        first_w: ti.i32,
        Cw: ti.i32,
        first_s: ti.i32,
        Cs: ti.i32,
        opacity_before: Reals,  # [N]
        # results
        sums_w: Reals,  # [N, Cw]
        sums_s: Reals,  # [N, Cs]
        opacity: Reals,  # [N]
        has_ended: Bytes,  # [n], zeros
    ):
        for i in range(n):
            ray = ray_ids[i]
            if 0 <= ray and ray < n_rays:
                begin, end = sample_range(packed_info, i, n_samples)
                acc_w, acc_s = ti.Vector.zero(real, ti.max(W, 1)), ti.Vector.zero(real, ti.max(S, 1))
                for c in ti.static(range(W)):
                    acc_w[c] = sums_w[ray * Cw + first_w + c]
                for c in ti.static(range(S)):
                    acc_s[c] = sums_s[ray * Cs + first_s + c]
                total = opacity_before[ray]
                for k in range(begin, end):
                    T = real(1.0) - total
                    weight = T * (real(1.0) - ti.exp(-sigmas[k] * deltas[k]))
                    total += weight
                    for c in ti.static(range(W)):
                        acc_w[c] += weight * weighted[k * Cw + first_w + c]
                    for c in ti.static(range(S)):
                        acc_s[c] += summed[k * Cs + first_s + c]
                    if T < T_threshold:
                        has_ended[i] = ti.cast(1, ti.u8)
                        break
                for c in ti.static(range(W)):
                    sums_w[ray * Cw + first_w + c] = acc_w[c]
                for c in ti.static(range(S)):
                    sums_s[ray * Cs + first_s + c] = acc_s[c]
                opacity[ray] = total

    return _Kernels(forward, backward, accumulate)


_COMPOSITE = Operator(
    "composite(Tensor sigmas, Tensor deltas, Tensor weighted, Tensor summed, Tensor packed_info, float T_threshold)"
    " -> (Tensor, Tensor, Tensor)",
    _composite,
    _empty_sums,
    _setup_context,
    _backward,
)
_COMPOSITE_BACKWARD = Operator(
    "composite_backward(Tensor sigmas, Tensor deltas, Tensor weighted, Tensor packed_info, Tensor sums_w, "
    "Tensor opacity, Tensor grad_sums_w, Tensor grad_sums_s, Tensor grad_opacity, float T_threshold)"
    " -> (Tensor, Tensor, Tensor)",
    _gradient,
    _empty_gradient,
    backward=not_differentiable("composite"),
)
_ACCUMULATE = Operator(
    "accumulate_(Tensor(a!) sums_w, Tensor(b!) sums_s, Tensor(c!) opacity, Tensor ray_ids, Tensor sigmas, "
    "Tensor deltas, Tensor weighted, Tensor summed, Tensor packed_info, float T_threshold) -> Tensor",
    _accumulate,
    lambda sums_w, sums_s, opacity, ray_ids, *others: ray_ids.new_empty(ray_ids.shape[0], dtype=torch.bool),
)
