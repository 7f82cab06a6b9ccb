"""Alpha of a step by the logarithm of its optical depth, from a table.

Computed, it takes two exponentials, one after the other, and the end of a ray waits for them.
"""

import functools

import torch
from torch import Tensor

FIRST = -12.0
"""Logarithm of the optical depth at the start of the first interval; below it the table's first alpha is 6e-6."""
PER_UNIT = 64
"""Intervals per unit, which is an error of 7e-6."""
N_INTERVALS = 1024
"""At the end of the last one alpha is 1."""


@functools.cache
def table_of_alphas(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[N_INTERVALS, 2] a, b: alpha = 1 - exp(-exp(y)) is a_k + b_k x in interval k, where x = PER_UNIT (y - FIRST)."""
    knots = torch.arange(N_INTERVALS + 1, dtype=torch.float64)
    alphas = -torch.expm1(-torch.exp(knots / PER_UNIT + FIRST))
    slopes = alphas.diff()
    return torch.stack((alphas[:-1] - knots[:-1] * slopes, slopes), 1).to(device, dtype)
