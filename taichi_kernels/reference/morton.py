"""Morton codes in plain torch, bit by bit."""

import torch
from torch import Tensor


def morton_encode(cells: Tensor) -> Tensor:
    """Twin of :func:`taichi_kernels.morton_encode`: [..., 3] -> [...], of any integer dtype."""
    codes = torch.zeros_like(cells[..., 0])
    for bit in range(10):
        for d in range(3):
            codes |= (cells[..., d] >> bit & 1) << (3 * bit + d)
    return codes


def morton_decode(codes: Tensor) -> Tensor:
    """Twin of :func:`taichi_kernels.morton_decode`: [...] -> [..., 3], of any integer dtype."""
    cells = torch.zeros(*codes.shape, 3, dtype=codes.dtype, device=codes.device)
    for bit in range(10):
        for d in range(3):
            cells[..., d] |= (codes >> (3 * bit + d) & 1) << bit
    return cells
