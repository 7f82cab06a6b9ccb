"""Gradients that the torch-ngp family adds to a grid's table by hand: total variation and weight decay."""

import functools
import operator

import torch
from torch import Tensor

from taichi_kernels.grid_config import GridConfig
from taichi_kernels.grid_encoding import HASH_PRIMES, level_strides

_WORD = 2**32 - 1


def add_total_variation(gradient: Tensor, table: Tensor, config: GridConfig, points: Tensor, weight: float) -> None:
    """Pull the entry at the lower corner of each point's cell towards its neighbours along the axes.

    With d_n = entry - neighbour_n the addition is weight / 2 D * sum_n d_n / sqrt(sum_n d_n^2 + 1e-9), per
    feature and point, as in torch-ngp.

    Args:
        gradient: [n_entries, F], changed in place.
        table: [n_entries, F].
        config: shape of the grid.
        points: [N, D] in [0, 1]; those outside are ignored.
        weight: of the gradient.
    """
    points = points[((points >= 0) & (points <= 1)).all(1)]
    lower_face = 0.0 if config.align_corners else 0.5
    for level, (scale, resolution) in enumerate(zip(config.level_scales, config.level_resolutions, strict=True)):
        cells = (points * scale + lower_face).long()
        first, end = config.level_offsets[level : level + 2]
        strides, is_hashed = level_strides(config.n_dims, config.n_corners(resolution), end - first, config.kind)
        factors = HASH_PRIMES[: config.n_dims] if is_hashed else strides
        entries = functools.partial(_entries, is_hashed=is_hashed, first=first, n_slots=end - first)
        terms = [cells[:, axis] * factor & _WORD for axis, factor in enumerate(factors)]
        slots = entries(terms)
        here = table[slots]
        sums, squares = torch.zeros_like(here), torch.zeros_like(here)
        for axis, factor in enumerate(factors):
            for step, last in ((1, resolution), (-1, 0)):
                moved = [*terms]
                moved[axis] = terms[axis] + step * factor & _WORD
                difference = (here - table[entries(moved)]) * (cells[:, axis] != last)[:, None]
                sums += difference
                squares += difference**2
        gradient.index_add_(0, slots, weight / (2 * config.n_dims) * sums * torch.rsqrt(squares + 1e-9))


def add_weight_decay(gradient: Tensor, table: Tensor, config: GridConfig, weight: float) -> None:
    """Add the gradient of weight * sum over levels of the squares' sum divided by the level's entries, in place.

    [Zip-NeRF, Barron et al. 2023, section 4]
    """
    for level in range(config.n_levels):
        first, end = config.level_offsets[level : level + 2]
        gradient[first:end] += 2 * weight / (end - first) * table[first:end]


def _entries(terms: list[Tensor], is_hashed: bool, first: int, n_slots: int) -> Tensor:
    """[N] int64 entries of corners, from the 32-bit words that their coordinates contribute."""
    index = functools.reduce(operator.xor if is_hashed else operator.add, terms)
    return first + (index & _WORD) % n_slots
