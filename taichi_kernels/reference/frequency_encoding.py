"""Frequency encoding in plain torch."""

import torch
from torch import Tensor


def frequency_encode(x: Tensor, n_octaves: int) -> Tensor:
    """Twin of :func:`taichi_kernels.frequency_encode`: [N, D] -> [N, D (1 + 2 K)]."""
    parts = [x]
    for k in range(n_octaves):
        parts += [torch.sin(2.0**k * x), torch.cos(2.0**k * x)]
    return torch.cat(parts, -1)
