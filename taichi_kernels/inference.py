"""Render rays in passes, so that the field is evaluated only where a ray is still transparent."""

from collections.abc import Callable

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast
from taichi_kernels.compositing import CompositedRays, accumulate_
from taichi_kernels.ray_marching import RaySamples, march_rays

Field = Callable[[RaySamples], tuple[Tensor, Tensor, Tensor | None]]

MAX_SAMPLES_PER_PASS = 8


def render_rays(
    field: Field,
    # rays
    rays_o: Tensor,
    rays_d: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    # grid
    bitfield: Tensor,
    bound: float = 1.0,
    # steps
    max_steps: int = 1024,
    dt_gamma: float = 0.0,
    T_threshold: float = 1e-4,
) -> CompositedRays:
    """March, evaluate and composite rays without gradients.

    Each pass takes min(8, max(1, N // n)) samples on each of the n rays that are still alive, packed
    without padding; a ray dies when it runs out of samples or becomes opaque. Passes end when a ray may
    have taken max_steps samples. This is torch-ngp's scheme and gives its image: because the number of
    live rays sets the samples of a pass, an image rendered in chunks can differ slightly from one
    rendered at once.

    Args:
        field: samples -> sigmas [M], weighted [M, Cw], summed [M, Cs] or None, as for
            :func:`taichi_kernels.composite`. Called at least once, also with M = 0.
        rays_o, rays_d, t_near, t_far, bitfield, bound, dt_gamma: as for :func:`taichi_kernels.march_rays`.
        max_steps: sets the shortest step as in march_rays, and the samples that rays may take.
        T_threshold: as for :func:`taichi_kernels.accumulate_`.

    Returns:
        CompositedRays of the N rays.

    Deterministic. Raises ValueError if an argument is not as above, or requires a gradient. Those of the field's
    weights are not looked at.
    """
    rays_o, rays_d, t_near, t_far = (cast_under_autocast(x) for x in (rays_o, rays_d, t_near, t_far))
    check = ArgumentCheck()
    check.tensor("rays_o", rays_o, ("N", 3), FLOATS, differentiable=False)
    check.tensor("rays_d", rays_d, ("N", 3), rays_o.dtype, differentiable=False)
    check.tensor("t_near", t_near, ("N",), rays_o.dtype, differentiable=False)
    check.tensor("t_far", t_far, ("N",), rays_o.dtype, differentiable=False)
    with torch.no_grad():
        n_rays = len(rays_o)
        alive = torch.arange(n_rays, device=rays_o.device)
        rays, n_steps = None, 0
        while rays is None or (n_steps < max_steps and len(alive)):
            n_pass = min(MAX_SAMPLES_PER_PASS, max(1, n_rays // max(1, len(alive))))
            samples = march_rays(
                *(rays_o, rays_d, t_near, t_far, bitfield, bound),
                max_steps=max_steps,
                max_samples=n_pass,
                dt_gamma=dt_gamma,
            )
            sigmas, weighted, summed = field(samples)
            sigmas, weighted = cast_under_autocast(sigmas), cast_under_autocast(weighted)
            summed = None if summed is None else cast_under_autocast(summed)
            if rays is None:
                rays = CompositedRays(
                    weighted.new_zeros(n_rays, weighted.shape[1]),
                    sigmas.new_zeros(n_rays, 0 if summed is None else summed.shape[1]),
                    sigmas.new_zeros(n_rays),
                )
            has_ended = accumulate_(
                *(rays, alive.int(), sigmas, samples.deltas, weighted, summed, samples.packed_info, T_threshold)
            )
            begin, count = samples.packed_info.unbind(1)
            goes_on = ((count == n_pass) & ~has_ended).nonzero()[:, 0]  # waits for the GPU
            last = (begin + count - 1)[goes_on]
            t_near = samples.ts[last] + samples.deltas[last]
            alive, rays_o, rays_d, t_far = alive[goes_on], rays_o[goes_on], rays_d[goes_on], t_far[goes_on]
            n_steps += n_pass
        return rays
