"""Grid and tri-plane encoding in plain torch: every corner gathered by index, gradients by autograd."""

import math

import torch
from torch import Tensor

PRIMES = (1, 2654435761, 805459861)


def level_geometry(config) -> list[tuple[float, int, int, int]]:
    """Of each level: cells between the first and last centre, cells along an axis, first entry, entries."""
    growth = 1.0
    if config.n_levels > 1:
        growth = 2 ** (math.log2(config.finest_resolution / config.base_resolution) / (config.n_levels - 1))
    levels, first = [], 0
    for level in range(config.n_levels):
        entries = (math.ceil(config.base_resolution * growth**level) + 1) ** config.n_dims
        if config.kind != "dense":
            entries = min(entries, 2**config.log2_table_size)
        entries = math.ceil(entries / 8) * 8
        exponent = torch.tensor(float(level)) * torch.tensor(math.log2(growth))  # float32, as the kernels do
        scale = float(torch.exp2(exponent.double()).float() * config.base_resolution - 1)
        levels.append((scale, math.ceil(scale) + 1, first, entries))
        first += entries
    return levels


def corner_slots(corners: Tensor, resolution: int, entries: int, kind: str) -> Tensor:
    """[..., D] int64 grid corners -> [...] slot within a level."""
    index = torch.zeros_like(corners[..., 0])
    stride = 1
    for d in range(corners.shape[-1]):
        if stride > entries:
            break
        index = (index + corners[..., d] * stride) % 2**32
        stride = stride * (resolution + 1) % 2**32
    if kind == "hash" and stride > entries:
        index = torch.zeros_like(index)
        for d in range(corners.shape[-1]):
            index = index ^ (corners[..., d] * PRIMES[d] % 2**32)
    return index % entries


def grid_encode(positions: Tensor, table: Tensor, config, bound: float = 1.0) -> Tensor:
    unit = (positions + bound) / (2 * bound)
    inside = ((unit >= 0) & (unit <= 1)).all(-1, keepdim=True)
    unit = torch.where(inside, unit, torch.zeros_like(unit))
    outputs = []
    for scale, resolution, first, entries in level_geometry(config):
        p = unit * scale + 0.5
        lower = p.detach().floor()
        upper_weights = p - lower
        if config.interpolation == "smoothstep":
            upper_weights = upper_weights**2 * (3 - 2 * upper_weights)
        features = 0
        for corner in range(2**config.n_dims):
            bits = torch.tensor([corner >> d & 1 for d in range(config.n_dims)], device=positions.device)
            slots = corner_slots(lower.long() + bits, resolution, entries, config.kind)
            weights = torch.where(bits.bool(), upper_weights, 1 - upper_weights).prod(-1, keepdim=True)
            features = features + weights * table[first + slots]
        outputs.append(torch.where(inside, features, torch.zeros_like(features)))
    return torch.cat(outputs, -1)


def triplane_encode(positions: Tensor, tables: Tensor, config, bound: float = 1.0) -> Tensor:
    x, y, z = positions.unbind(-1)
    planes = [torch.stack(plane, -1) for plane in ((x, y), (y, z), (x, z))]
    return torch.cat([grid_encode(p, t, config, bound) for p, t in zip(planes, tables, strict=True)], -1)
