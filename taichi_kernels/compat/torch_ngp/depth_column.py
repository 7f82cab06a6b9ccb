"""The second column of the family's `deltas`, from which depths are made: what it holds differs.

The depth of a sample is the distance at which its step ends. ER-NeRF and RAD-NeRF store it; torch-ngp stores
how far it lies behind the end of the step before, and sums up. In training it starts to sum at zero, so that
its depths are distances from where the marching began.
"""

from typing import Protocol

import torch
from torch import Tensor


class DepthColumn(Protocol):
    """How one member of the family stores the ends of steps."""

    @staticmethod
    def encode(ends: Tensor, t_start: Tensor, packed_info: Tensor) -> Tensor:
        """Ends of steps [M], starts of rays [N] and packed_info [N, 2] -> the column [M]."""

    @staticmethod
    def decode_rays(column: Tensor, packed_info: Tensor) -> Tensor:
        """The column of a training pass [M] and its packed_info [N, 2] -> depths [M]."""

    @staticmethod
    def decode_round(column: Tensor, rays_t: Tensor) -> Tensor:
        """The column of a round [n, n_step] and where its rays began [n] -> ends of steps [n, n_step]."""


class EndDistances:
    """Of ER-NeRF and RAD-NeRF."""

    @staticmethod
    def encode(ends: Tensor, t_start: Tensor, packed_info: Tensor) -> Tensor:
        return ends

    @staticmethod
    def decode_rays(column: Tensor, packed_info: Tensor) -> Tensor:
        return column

    @staticmethod
    def decode_round(column: Tensor, rays_t: Tensor) -> Tensor:
        return column


class EndSteps:
    """Of torch-ngp."""

    @staticmethod
    def encode(ends: Tensor, t_start: Tensor, packed_info: Tensor) -> Tensor:
        begin, count = packed_info.long().unbind(1)
        before = torch.cat((ends.new_zeros(1), ends))[: len(ends)]
        before[begin[count > 0]] = t_start[count > 0]
        return ends - before

    @staticmethod
    def decode_rays(column: Tensor, packed_info: Tensor) -> Tensor:
        begin, count = packed_info.long().unbind(1)
        # The sums run over all rays, hence in float64; what came before a ray is taken off again. It does not
        # decrease along the samples, so that the largest so far is that of the sample's own ray.
        sums = column.double().cumsum(0)
        begin = begin[count > 0]
        before = torch.zeros_like(sums)
        before[begin] = sums[begin] - column[begin]
        return (sums - before.cummax(0).values).to(column.dtype)

    @staticmethod
    def decode_round(column: Tensor, rays_t: Tensor) -> Tensor:
        return rays_t[:, None] + column.cumsum(1)
