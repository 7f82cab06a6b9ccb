"""Render rays through the head's field: march, evaluate, composite."""

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.portrait.config import MarchConfig
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.portrait.render.head_passes import render_head_in_parts, renders_in_parts
from ernerf_ti.portrait.render.sample_evaluation import (
    EvaluatedSamples,
    Field,
    evaluate_all_samples,
    evaluate_samples,
)

_CPU_SAMPLES_PER_CHUNK = 2**14  # 4 MB for 64 channels
_CPU_RAYS_PER_CHUNK = 2**13
_SAMPLES_PER_CHUNK_WITH_CAPACITY = 2**20  # where no gradients are needed: 1 GB


def render_head(
    field: Field,
    grid: OccupancyGrid,
    rays_o: Tensor,
    rays_d: Tensor,
    config: MarchConfig,
    background_rgb: Tensor | None = None,
    noise: Tensor | None = None,
    capacity: int | None = None,
) -> RenderOutput:
    """Render rays for training.

    Args:
        field: positions and directions [M, 3] -> FieldOutput.
        grid: the occupied cells.
        rays_o, rays_d: [N, 3] origins and unit directions, scene.
        config: sampling.
        background_rgb: [N, 3] in [0, 1]; None for color times opacity.
        noise: [N] in [0, 1), moves the start of each ray by this fraction of a step; None for 0.
        capacity: number of samples to make room for, see :class:`SampleCapacity`. All shapes are then fixed, and
            nothing waits for the device: the field is evaluated at all samples and at the padding behind them, and
            rays for whose samples there is no room have none. None for exactly the samples that are found, whose
            field is evaluated in passes, so that samples behind an opaque surface are skipped.

    Returns:
        RenderOutput of N rays; with a capacity its `n_found` tells whether there was room for all samples.

    Differentiable in what the field is differentiable in, and once in the rays (through the positions and
    directions of the samples, whose distances are held fixed). Deterministic on the CPU.
    """
    samples = _march(grid, rays_o, rays_d, config, noise, capacity)
    chunk = config.samples_per_chunk
    if capacity is None:
        chunk = chunk or (_CPU_SAMPLES_PER_CHUNK if rays_o.device.type == "cpu" else 2**62)
        evaluated = evaluate_samples(
            field, samples, config.T_threshold, config.samples_per_pass, chunk, config.recompute
        )
    else:
        chunk = chunk or (capacity if torch.is_grad_enabled() else _SAMPLES_PER_CHUNK_WITH_CAPACITY)
        evaluated = evaluate_all_samples(field, samples, chunk, config.recompute)
    rays = tk.composite(
        *(evaluated.output.sigmas, evaluated.deltas, *_channels(evaluated), evaluated.packed_info, config.T_threshold)
    )
    n_found = None if capacity is None else samples.n_found
    return _output(rays, background_rgb, evaluated.packed_info[:, 1], n_found)


@torch.no_grad()
def render_head_in_chunks(
    field: Field,
    grid: OccupancyGrid,
    rays_o: Tensor,
    rays_d: Tensor,
    config: MarchConfig,
    background_rgb: Tensor | None = None,
    capacity: int | None = None,
) -> RenderOutput:
    """Render rays without gradients; the result is that of :func:`render_head`, up to rounding.

    With a capacity all rays are rendered at once. Without one, a frame of the head's own field is rendered on the CPU
    by :func:`ernerf_ti.portrait.render.head_passes.render_head_in_parts`, and all else in chunks of rays.
    """
    if capacity is None and renders_in_parts(field, rays_o):
        return render_head_in_parts(field, grid, rays_o, rays_d, config, background_rgb)
    if capacity is not None:
        return render_head(field, grid, rays_o, rays_d, config, background_rgb, capacity=capacity)
    chunk = config.rays_per_chunk or (_CPU_RAYS_PER_CHUNK if rays_o.device.type == "cpu" else 2**62)
    outputs = []
    for begin in range(0, max(1, len(rays_o)), chunk):
        rows = slice(begin, begin + chunk)
        background = None if background_rgb is None else background_rgb[rows]
        outputs.append(render_head(field, grid, rays_o[rows], rays_d[rows], config, background))
    return RenderOutput.concatenate(outputs)


@torch.no_grad()
def render_head_in_passes(
    field: Field,
    grid: OccupancyGrid,
    rays_o: Tensor,
    rays_d: Tensor,
    config: MarchConfig,
    background_rgb: Tensor | None = None,
) -> RenderOutput:
    """Render the rays of a whole image without gradients in several passes, as ER-NeRF does.

    Once many rays have ended, the others may take up to 7 samples more than max_steps: see
    :func:`taichi_kernels.render_rays`. For comparisons with images of the public code.
    """
    t_near, t_far = tk.intersect_aabb(rays_o, rays_d, grid.aabb, config.min_near)

    def evaluate(samples: tk.RaySamples) -> tuple[Tensor, Tensor, Tensor]:
        output = field(samples.positions, samples.directions)
        weighted, summed = _channels(EvaluatedSamples(output, samples.ts, samples.deltas, samples.packed_info))
        # An unweighted channel of ones counts the samples that a ray visits.
        return output.sigmas, weighted, torch.cat((summed, torch.ones_like(summed[:, :1])), 1)

    rays = tk.render_rays(
        evaluate,
        *(rays_o, rays_d, t_near, t_far, grid.bitfield, grid.config.bound),
        max_steps=config.max_steps,
        dt_gamma=config.dt_gamma,
        T_threshold=config.T_threshold,
    )
    return _output(rays, background_rgb, rays.summed[:, 2].int())


def _march(
    grid: OccupancyGrid,
    rays_o: Tensor,
    rays_d: Tensor,
    config: MarchConfig,
    noise: Tensor | None,
    capacity: int | None,
) -> tk.RaySamples:
    fixed_o, fixed_d = rays_o.detach(), rays_d.detach()
    t_near, t_far = tk.intersect_aabb(fixed_o, fixed_d, grid.aabb, config.min_near)
    # Marching ends where a ray leaves the bounding box of the occupied cells.
    box = grid.occupied_box_with_margin.to(rays_o.dtype)
    first, last = tk.intersect_aabb(fixed_o, fixed_d, box, config.min_near)
    t_far = torch.minimum(t_far, last) * (first < last)
    return tk.march_rays(
        *(rays_o, rays_d, t_near, t_far, grid.bitfield, grid.config.bound),
        max_steps=config.max_steps,
        dt_gamma=config.dt_gamma,
        noise=noise,
        capacity=capacity,
    )


def _channels(evaluated: EvaluatedSamples) -> tuple[Tensor, Tensor]:
    """Channels [M, 4 or 5] that are weighted (color, end of the step, uncertainty), [M, 2] that are not."""
    output = evaluated.output
    weighted = [output.rgbs, (evaluated.ts + evaluated.deltas)[:, None]]
    if output.uncertainty is not None:
        weighted.append(output.uncertainty[:, None])
    return torch.cat(weighted, 1).contiguous(), torch.stack((output.audio_attention, output.eye_attention), 1)


def _output(
    rays: tk.CompositedRays, background_rgb: Tensor | None, n_samples: Tensor, n_found: Tensor | None = None
) -> RenderOutput:
    rgb = over(rays.weighted[:, :3], rays.opacity, background_rgb)
    if background_rgb is not None:
        rgb = rgb.clamp(0, 1)
    return RenderOutput(
        rgb=rgb,
        opacity=rays.opacity,
        depth=rays.weighted[:, 3],
        audio_attention=rays.summed[:, 0],
        eye_attention=rays.summed[:, 1],
        uncertainty=rays.weighted[:, 4] if rays.weighted.shape[1] > 4 else None,
        n_samples=n_samples,
        n_found=n_found,
    )
