"""Rendering rays in passes, in plain torch, on samples that are marched once."""

from collections.abc import Callable

import torch
from torch import Tensor

from taichi_kernels.reference.compositing import accumulate_
from taichi_kernels.reference.ray_marching import RaySamples, march_rays


@torch.no_grad()
def render_rays(
    field: Callable[[RaySamples], tuple[Tensor, Tensor, Tensor | None]],
    rays_o: Tensor,
    rays_d: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    bitfield: Tensor,
    bound: float = 1.0,
    max_steps: int = 1024,
    dt_gamma: float = 0.0,
    T_threshold: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor]:
    """Twin of :func:`taichi_kernels.render_rays`: weighted sums [N, Cw], plain sums [N, Cs], opacity [N].

    `field` gets all samples in one call.
    """
    n_rays = len(rays_o)
    samples = march_rays(
        *(rays_o, rays_d, t_near, t_far, bitfield, bound),
        max_steps=max_steps,
        max_samples=10**6,
        dt_gamma=dt_gamma,
    )
    deltas, packed_info = samples[3:5]
    sigmas, weighted, summed = field(samples)
    if summed is None:
        summed = sigmas.new_empty(len(sigmas), 0)
    rays = (
        sigmas.new_zeros(n_rays, weighted.shape[1]),
        sigmas.new_zeros(n_rays, summed.shape[1]),
        sigmas.new_zeros(n_rays),
    )
    alive = torch.arange(n_rays, device=rays_o.device)
    n_taken, n_steps = 0, 0  # rays that are alive have taken the same number of samples
    while n_steps < max_steps and len(alive):
        n_pass = min(8, max(1, n_rays // len(alive)))
        begin, count = packed_info[alive].unbind(1)
        taken = (count - n_taken).clamp(0, n_pass)
        info = torch.stack((begin + n_taken, taken), 1)
        has_ended = accumulate_(rays, alive, sigmas, deltas, weighted, summed, info, T_threshold)
        alive = alive[(taken == n_pass) & ~has_ended]
        n_taken, n_steps = n_taken + n_pass, n_steps + n_pass
    return rays
