"""Rays in passes, in plain torch: all samples are marched once, and handed out a few at a time."""

import math

import torch
from torch import Tensor

from taichi_kernels.reference.morton import morton_encode
from taichi_kernels.reference.occupancy_grid import unpack_bits
from taichi_kernels.reference.ray_aabb import intersect_aabb
from taichi_kernels.reference.ray_marching import march_rays


class RayMarch:
    """Twin of :class:`taichi_kernels.RayMarch`, on the bits of the grid."""

    def __init__(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        aabb: tuple[float, ...],
        occupied_box: Tensor,
        bitfield: Tensor,
        bound: float = 1.0,
        max_steps: int = 1024,
        dt_gamma: float = 0.0,
        min_near: float = 0.05,
    ):
        t_near, t_far = intersect_aabb(rays_o, rays_d, aabb, min_near)
        first, last = intersect_aabb(rays_o, rays_d, occupied_box, min_near)
        t_far = torch.minimum(t_far, last) * (first < last)
        self._samples = march_rays(
            *(rays_o, rays_d, t_near, t_far, bitfield, bound), max_steps=max_steps, dt_gamma=dt_gamma
        )
        self._n_taken = 0

    def take(self, rays: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """positions, directions [M, 3], ts, deltas [M], begins, counts [n] of the next samples of some rays."""
        *samples, packed_info, _ = self._samples
        begin, count = packed_info[rays.long()].long().unbind(1)
        counts = (count - self._n_taken).clamp(0, most)
        index = torch.cat(
            [torch.arange(b, b + n) for b, n in zip((begin + self._n_taken).tolist(), counts.tolist(), strict=True)]
            or [counts.cpu()]
        ).to(rays.device)
        self._n_taken += most
        positions, directions, ts, deltas = (values[index] for values in samples)
        return positions, directions, ts, deltas, (counts.cumsum(0) - counts).int(), counts.int()


def empty_blocks(bitfield: Tensor, bound: float = 1.0) -> Tensor:
    """Twin of :func:`taichi_kernels.empty_blocks`."""
    occupied = unpack_bits(bitfield)
    n_cascades = max(1, 1 + math.ceil(math.log2(bound)))
    n = round((len(occupied) / n_cascades) ** (1 / 3))
    cells = torch.cartesian_prod(*3 * [torch.arange(n, device=bitfield.device)])
    grid = occupied.view(n_cascades, -1)[:, morton_encode(cells)].view(n_cascades, n, n, n)
    levels = (~grid).to(torch.uint8)
    for k in range(1, min(4, n.bit_length() - 1) + 1) if n_cascades == 1 else ():
        side = 2**k
        blocks = torch.nn.functional.max_pool3d(grid.float(), side) == 0
        for axis in (1, 2, 3):
            blocks = blocks.repeat_interleave(side, axis)
        levels += blocks
    return levels.flatten()


def blend_samples_(
    rows: Tensor,
    values: Tensor,
    ts: Tensor,
    deltas: Tensor,
    rays: Tensor,
    begins: Tensor,
    counts: Tensor,
    T_threshold: float = 1e-4,
) -> Tensor:
    """Twin of :func:`taichi_kernels.blend_samples_`: rows [N, 6 + K] modified, values [4 + K, M], ts and deltas [M];
    returns whether each ray is still transparent [n]."""
    is_open = torch.ones(len(rays), dtype=torch.bool, device=rays.device)
    for k in range(int(counts.max()) if len(counts) else 0):
        a = (is_open & (counts > k)).nonzero()[:, 0]
        j, i = begins[a].long() + k, rays[a].long()
        transparency = torch.exp(-values[0, j] * deltas[j])
        weight = rows[i, 5] * (1 - transparency)
        rows[i, :3] += weight[:, None] * values[1:4, j].t()
        rows[i, 3] += weight * (ts[j] + deltas[j])
        rows[i, 4] += weight
        rows[i, 5] *= transparency
        rows[i, 6:] += values[4:, j].t()
        is_open[a] = rows[i, 5] >= T_threshold
    return is_open
