"""Grid encoding in plain torch: every corner gathered by index."""

import math

import torch
from torch import Tensor

from taichi_kernels.grid_config import GridConfig

PRIMES = (1, 2654435761, 805459861)


def level_geometry(config: GridConfig) -> list[tuple[float, int, int, int]]:
    """Per level: cells from the position -bound to bound, corners along an axis, first entry, number of entries."""
    growth = 1.0
    if config.n_levels > 1:
        growth = 2 ** (math.log2(config.finest_resolution / config.base_resolution) / (config.n_levels - 1))
    levels, first = [], 0
    for level in range(config.n_levels):
        exponent = torch.tensor(float(level)) * torch.tensor(math.log2(growth))  # float32, as the kernels do
        scale = float(torch.exp2(exponent.double()).float() * config.base_resolution - 1)
        n_corners = math.ceil(scale) + (1 if config.align_corners else 2)
        if config.kind == "dense":
            entries = n_corners**config.n_dims
        else:
            by_resolution = math.ceil(config.base_resolution * growth**level) + (0 if config.align_corners else 1)
            entries = min(by_resolution**config.n_dims, 2**config.log2_table_size)
        entries = math.ceil(entries / 8) * 8
        levels.append((scale, n_corners, first, entries))
        first += entries
    return levels


def corner_slots(corners: Tensor, n_corners: int, entries: int, kind: str) -> Tensor:
    """[..., D] int64 grid corners -> [...] index of their entries within the level."""
    index = torch.zeros_like(corners[..., 0])
    stride = 1
    for d in range(corners.shape[-1]):
        if stride > entries:
            break
        index = (index + corners[..., d] * stride) % 2**32
        stride = stride * n_corners % 2**32
    if kind == "hash" and stride > entries:
        index = torch.zeros_like(index)
        for d in range(corners.shape[-1]):
            index = index ^ (corners[..., d] * PRIMES[d] % 2**32)
    return index % entries


def grid_encode(positions: Tensor, table: Tensor, config: GridConfig, bound: float = 1.0) -> Tensor:
    """Twin of :func:`taichi_kernels.grid_encode`: [N, D], [n_entries, F] -> [N, L F]."""
    unit = (positions + bound) / (2 * bound)
    inside = ((unit >= 0) & (unit <= 1)).all(-1, keepdim=True)
    unit = torch.where(inside, unit, torch.zeros_like(unit))
    outputs = []
    for scale, n_corners, first, entries in level_geometry(config):
        p = unit * scale + (0.0 if config.align_corners else 0.5)
        lower = p.detach().floor()
        upper_weights = p - lower
        if config.interpolation == "smoothstep":
            upper_weights = upper_weights**2 * (3 - 2 * upper_weights)
        features = table.new_zeros(())
        for corner in range(2**config.n_dims):
            bits = torch.tensor([corner >> d & 1 for d in range(config.n_dims)], device=positions.device)
            slots = corner_slots(lower.long() + bits, n_corners, entries, config.kind)
            weights = torch.where(bits.bool(), upper_weights, 1 - upper_weights).prod(-1, keepdim=True)
            features = features + weights * table[first + slots]
        outputs.append(torch.where(inside, features, torch.zeros_like(features)))
    return torch.cat(outputs, -1)
