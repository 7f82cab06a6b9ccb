"""Occupancy grid in plain torch, on [C, R, R, R] volumes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels.reference.morton import morton_decode


def cell_centers(resolution: int, cascade: int = 0, bound: float = 1.0, device: torch.device | str = "cpu") -> Tensor:
    """Twin of :func:`taichi_kernels.cell_centers`: [R^3, 3] float32 in Morton order."""
    half_side = min(2.0**cascade, bound)
    cells = morton_decode(torch.arange(resolution**3, device=device))
    return (cells.float() * (2 / (resolution - 1)) - 1) * (half_side - half_side / resolution)


def to_volume(grid: Tensor) -> Tensor:
    """[C, R^3] in Morton order -> [C, R, R, R] indexed x, y, z."""
    resolution = round(grid.shape[1] ** (1 / 3))
    x, y, z = morton_decode(torch.arange(grid.shape[1], device=grid.device)).unbind(-1)
    volume = torch.empty(len(grid), resolution, resolution, resolution, dtype=grid.dtype, device=grid.device)
    volume[:, x, y, z] = grid
    return volume


def dilate_density(density_grid: Tensor) -> Tensor:
    """Twin of :func:`taichi_kernels.dilate_density`: [C, R^3] -> [C, R^3]."""
    volume = to_volume(density_grid)
    padded = F.pad(volume, (1,) * 6, value=-torch.inf)
    n = volume.shape[1]
    inner = slice(1, n + 1)
    shifted = [padded[:, inner, inner, inner]]
    for side in (slice(0, n), slice(2, n + 2)):
        shifted += [padded[:, side, inner, inner], padded[:, inner, side, inner], padded[:, inner, inner, side]]
    x, y, z = morton_decode(torch.arange(density_grid.shape[1], device=density_grid.device)).unbind(-1)
    return torch.stack(shifted).amax(0)[:, x, y, z]


def pack_bits(density_grid: Tensor, threshold: float | Tensor) -> Tensor:
    """Twin of :func:`taichi_kernels.pack_bits`: [C, R^3] -> [C R^3 / 8] uint8."""
    bits = (density_grid > threshold).reshape(-1, 8).to(torch.int32)
    return (bits << torch.arange(8, device=bits.device)).sum(-1).to(torch.uint8)


def unpack_bits(bitfield: Tensor) -> Tensor:
    """The inverse of :func:`pack_bits`: [n] uint8 -> [8 n] bool."""
    return ((bitfield[:, None].int() >> torch.arange(8, device=bitfield.device)) & 1).bool().flatten()
