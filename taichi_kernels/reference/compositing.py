"""Compositing in plain torch: transmittance from a cumulative sum over all samples."""

import torch
from torch import Tensor


def composite(
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    summed: Tensor | None,
    packed_info: Tensor,
    T_threshold: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor]:
    """Twin of :func:`taichi_kernels.composite`: weighted sums [N, Cw], plain sums [N, Cs], opacity [N].

    The rays of packed_info must be in the order of their samples, without gaps; rows after the last ray's are unused.
    """
    if summed is None:
        summed = sigmas.new_empty(len(sigmas), 0)
    start, count = packed_info.long().unbind(-1)
    n_rays = len(packed_info)
    ray = torch.repeat_interleave(torch.arange(n_rays, device=sigmas.device), count)
    n_samples = len(ray)
    start = start.clamp(max=n_samples)
    sigmas, deltas, weighted, summed = (x[:n_samples] for x in (sigmas, deltas, weighted, summed))
    thickness = sigmas * deltas
    before = torch.cumsum(thickness.double(), 0) - thickness  # float64: the sum runs over all rays
    in_ray = torch.cat((before, before.new_zeros(1)))[start]
    T = torch.exp(-(before - in_ray[ray])).to(sigmas.dtype)
    weights = T * (1 - torch.exp(-thickness)) * (T >= T_threshold)
    visited = (T >= T_threshold).to(sigmas.dtype)

    def sum_rays(values: Tensor) -> Tensor:
        return values.new_zeros(n_rays, values.shape[1]).index_add(0, ray, values)

    return (
        sum_rays(weights[:, None] * weighted),
        sum_rays(visited[:, None] * summed),
        sum_rays(weights[:, None])[:, 0],
    )


def accumulate_(
    rays: tuple[Tensor, Tensor, Tensor],
    ray_ids: Tensor,
    sigmas: Tensor,
    deltas: Tensor,
    weighted: Tensor,
    summed: Tensor | None,
    packed_info: Tensor,
    T_threshold: float = 1e-4,
) -> Tensor:
    """Twin of :func:`taichi_kernels.accumulate_`, sample by sample: changes `rays` in place, returns [n] bool."""
    sums_w, sums_s, opacity = rays
    has_ended = torch.zeros(len(ray_ids), dtype=torch.bool, device=sigmas.device)
    for i, (ray, (begin, count)) in enumerate(zip(ray_ids.tolist(), packed_info.tolist(), strict=True)):
        for k in range(begin, begin + count):
            T = 1 - opacity[ray]
            weight = T * (1 - torch.exp(-sigmas[k] * deltas[k]))
            opacity[ray] += weight
            sums_w[ray] += weight * weighted[k]
            if summed is not None:
                sums_s[ray] += summed[k]
            if T < T_threshold:
                has_ended[i] = True
                break
    return has_ended
