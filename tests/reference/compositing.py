"""Compositing in plain torch: transmittance from a cumulative sum over all samples, gradients by autograd."""

import torch
from torch import Tensor


def composite(
    sigmas: Tensor, deltas: Tensor, weighted: Tensor, summed: Tensor, packed_info: Tensor, T_threshold: float = 1e-4
):
    """Same arguments as the kernel; returns weighted sums, plain sums, opacity."""
    start, count = packed_info.long().unbind(-1)
    n_rays = len(packed_info)
    ray = torch.repeat_interleave(torch.arange(n_rays, device=sigmas.device), count)
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
