"""The number of a training frame, on the host or on the device."""

from torch import Tensor

FrameIndex = int | Tensor
"""A number, or [1] int64 on the device, which a CUDA graph can read anew in each replay."""


def row(table: Tensor, index: FrameIndex) -> Tensor:
    """The row of a frame in a table [n, ...]; a view for a number."""
    return table.index_select(0, index)[0] if isinstance(index, Tensor) else table[index]
