"""Frequency encoding in plain torch."""

import torch
from torch import Tensor


def frequency_encode(x: Tensor, n_octaves: int) -> Tensor:
    parts = [x]
    for k in range(n_octaves):
        parts += [torch.sin(2.0**k * x), torch.cos(2.0**k * x)]
    return torch.cat(parts, -1)
