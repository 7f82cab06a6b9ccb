"""Which cells of a head's occupancy grid the cameras of its capture see."""

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.bake.conditions import Conditions
from ernerf_ti.portrait.camera import all_pixels, pixel_rays
from ernerf_ti.portrait.portrait import Portrait

_SAMPLES_PER_CHUNK = 2**12
_LONGEST_SIDE = 128  # pixels, of the pictures that are looked at
_OPAQUE = 3e-3  # what the light that is left may be at a cell that is seen, at least


@torch.no_grad()
def seen_cells(
    portrait: Portrait,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    poses: Tensor,
    conditions: Conditions,
    appearance: Tensor,
) -> Tensor:
    """[R, R, R] bool by x, y, z: whether a ray of some frame reaches the cell.

    Args:
        portrait: whose head it is, with one cascade.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
        poses: [n, 4, 4] pose_world_from_camera of the frames, scene.
        conditions: n, those of the same frames.
        appearance: [appearance_size] embedding.
    """
    grid, config, field = portrait.head_grid, portrait.config.march, portrait.head
    scale = min(1.0, _LONGEST_SIDE / max(size))
    width, height = (max(2, round(n * scale)) for n in size)
    fx, fy, cx, cy = (value * scale for value in intrinsics)
    pixels = all_pixels(height, width, poses.device)
    resolution, bound = grid.config.resolution, grid.config.bound
    seen = torch.zeros(resolution**3, dtype=torch.bool, device=poses.device)
    for pose, code, closure in zip(poses, *conditions, strict=True):
        rays = pixel_rays(pose, (fx, fy, cx, cy), pixels)
        distances = tk.intersect_aabb(*rays, grid.aabb, config.min_near)
        samples = tk.march_rays(
            *rays, *distances, grid.bitfield, bound, max_steps=config.max_steps, dt_gamma=config.dt_gamma
        )
        columns = (rows.split(_SAMPLES_PER_CHUNK) for rows in (samples.positions, samples.directions))
        parts = zip(*columns, strict=True)
        outputs = [field(*part, code, closure, appearance, with_uncertainty=False) for part in parts]
        thickness = torch.cat([output.sigmas for output in outputs]).double() * samples.deltas
        before = thickness.cumsum(0) - thickness
        begin, count = samples.packed_info.long().unbind(1)
        before = before - torch.repeat_interleave(before[begin.clamp(max=len(before) - 1)], count)
        reached = samples.positions[torch.exp(-before) > _OPAQUE]
        cell = ((reached / bound + 1) * (0.5 * resolution)).long().clamp(0, resolution - 1)
        seen[(cell[:, 0] * resolution + cell[:, 1]) * resolution + cell[:, 2]] = True
    return seen.view(resolution, resolution, resolution)
