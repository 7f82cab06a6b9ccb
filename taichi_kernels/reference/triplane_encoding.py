"""Tri-plane encoding in plain torch: a grid for each pair of axes."""

import torch
from torch import Tensor

from taichi_kernels.grid_config import GridConfig
from taichi_kernels.reference.grid_encoding import grid_encode


def triplane_encode(positions: Tensor, tables: Tensor, config: GridConfig, bound: float = 1.0) -> Tensor:
    """Twin of :func:`taichi_kernels.triplane_encode`: [N, 3], [3, n_entries, F] -> [N, 3 L F]."""
    x, y, z = positions.unbind(-1)
    planes = [torch.stack(plane, -1) for plane in ((x, y), (y, z), (x, z))]
    return torch.cat([grid_encode(p, t, config, bound) for p, t in zip(planes, tables, strict=True)], -1)
