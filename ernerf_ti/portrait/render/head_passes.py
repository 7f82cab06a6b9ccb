"""Render rays through the head's field on a CPU, without gradients, as fast as it goes.

The picture is that of :func:`ernerf_ti.portrait.render.head.render_head`, up to rounding. What differs is the work:
rays take a few samples in each pass and leave out what lies behind a surface (:mod:`taichi_kernels.ray_passes`), tables
are interpolated as images, and the networks are folded for the frame.
"""

from typing import TypeGuard

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.portrait.config import MarchConfig
from ernerf_ti.portrait.model.head_field import BoundHeadField
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid

SAMPLES_PER_PART = 2**13  # the units of all networks stay in the cache


def renders_in_parts(field: object, rays_o: Tensor) -> TypeGuard[BoundHeadField]:
    """Whether :func:`render_head_in_parts` renders these rays of this field."""
    return (
        isinstance(field, BoundHeadField)
        and not field.with_uncertainty
        and rays_o.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def ray_march(grid: OccupancyGrid, rays_o: Tensor, rays_d: Tensor, config: MarchConfig) -> tk.RayMarch:
    """Rays [N, 3] on their way through the occupied cells."""
    return tk.RayMarch(
        *(rays_o, rays_d, grid.aabb, grid.occupied_box_with_margin.to(rays_o.dtype)),
        *(grid.empty_blocks, grid.config.bound),
        max_steps=config.max_steps,
        dt_gamma=config.dt_gamma,
        min_near=config.min_near,
    )


@torch.no_grad()
def render_head_in_parts(
    field: BoundHeadField,
    grid: OccupancyGrid,
    rays_o: Tensor,
    rays_d: Tensor,
    config: MarchConfig,
    background_rgb: Tensor | None = None,
) -> RenderOutput:
    """Render rays; arguments and result as of :func:`ernerf_ti.portrait.render.head.render_head_in_chunks`.

    Audio and eye attention are None if the field is bound without them.
    """
    networks = field.folded(field.with_attention)
    encoder, degree = field.field.position_encoder, field.field.config.direction_degree
    encode = encoder.for_images()
    n_part, n_pass = config.samples_per_chunk or SAMPLES_PER_PART, config.samples_per_pass

    memory = rays_o.new_empty(encoder.n_outputs * n_part)

    def evaluate(samples: tk.PassSamples) -> Tensor:
        values = samples.directions.new_empty(networks.n_values, len(samples.directions))
        for begin in range(0, len(samples.directions), n_part):
            part = slice(begin, begin + n_part)
            features = encode(samples.positions[part], memory)
            harmonics = tk.spherical_harmonics(samples.directions[part], degree)
            networks(features, harmonics, values[:, part], field.reach(samples.positions[part]))
        return values

    march = ray_march(grid, rays_o, rays_d, config)
    sums = tk.RaySums.begin(rays_o, networks.n_values - 4)
    rays = torch.arange(len(rays_o), dtype=torch.int32)
    n_samples, n_passed = torch.zeros_like(rays), 0
    while len(rays) and n_passed < config.max_steps:
        samples = march.take(rays, n_pass)
        n_samples[rays] += samples.counts
        rays = rays[tk.blend_samples_(sums, evaluate(samples), samples, config.T_threshold)]
        n_passed += n_pass
    return _output(sums, background_rgb, n_samples)


def _output(sums: tk.RaySums, background_rgb: Tensor | None, n_samples: Tensor) -> RenderOutput:
    opacity = sums.opacity.contiguous()
    rgb = over(sums.rgb, opacity, background_rgb)
    audio, eye = sums.summed.unbind(1) if sums.summed.shape[1] else (None, None)
    return RenderOutput(
        rgb=rgb.contiguous() if background_rgb is None else rgb.clamp_(0, 1),
        opacity=opacity,
        depth=sums.depth.contiguous(),
        audio_attention=audio,
        eye_attention=eye,
        uncertainty=None,
        n_samples=n_samples,
    )
