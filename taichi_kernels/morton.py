"""Morton codes: the bits of three cell coordinates interleaved, x lowest.

Cells that are near in space are near in memory, which is why the occupancy grid is stored this way.
"""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import ArgumentCheck
from taichi_kernels.operators import Operator
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, taichi

MAX_RESOLUTION = 1024  # 3 x 10 bits fit an int32


def morton_encode(cells: Tensor) -> Tensor:
    """Morton codes of cells.

    Args:
        cells: [N, 3] int32, x, y, z in [0, 1023]; higher bits are ignored.

    Returns:
        [N] int32; bit 3k of a code is bit k of x, 3k + 1 of y, 3k + 2 of z.
    """
    check = ArgumentCheck()
    check.tensor("cells", cells, ("N", 3), torch.int32)
    codes: Tensor = _MORTON_ENCODE(cells)
    return codes


def morton_decode(codes: Tensor) -> Tensor:
    """Cells of Morton codes.

    Args:
        codes: [N] int32 in [0, 2^30).

    Returns:
        [N, 3] int32, x, y, z.
    """
    check = ArgumentCheck()
    check.tensor("codes", codes, ("N",), torch.int32)
    cells: Tensor = _MORTON_DECODE(codes)
    return cells


def _encode(cells: Tensor) -> Tensor:
    codes = cells.new_empty(len(cells))
    launch(_kernels(is_cuda()).encode, cells, len(cells), codes)
    return codes


def _decode(codes: Tensor) -> Tensor:
    cells = codes.new_empty(len(codes), 3)
    launch(_kernels(is_cuda()).decode, codes, len(codes), cells)
    return cells


class MortonFunctions(NamedTuple):
    """For use inside kernels."""

    encode: Any
    """(x, y, z) i32 -> code i32."""
    decode: Any
    """code i32 -> vector of x, y, z."""


@functools.cache
def morton_functions() -> MortonFunctions:
    ti = taichi()

    @ti.func
    def spread(v):
        """Bit k of the ten lowest goes to bit 3k."""
        v &= 0x3FF
        v = (v | v << 16) & 0x030000FF
        v = (v | v << 8) & 0x0300F00F
        v = (v | v << 4) & 0x030C30C3
        return (v | v << 2) & 0x09249249

    @ti.func
    def gather(v):
        """Bit 3k goes to bit k."""
        v &= 0x09249249
        v = (v | v >> 2) & 0x030C30C3
        v = (v | v >> 4) & 0x0300F00F
        v = (v | v >> 8) & 0x030000FF
        return (v | v >> 16) & 0x3FF

    @ti.func
    def encode(x, y, z):
        return spread(x) | spread(y) << 1 | spread(z) << 2

    @ti.func
    def decode(code):
        return ti.Vector([gather(code), gather(code >> 1), gather(code >> 2)])

    return MortonFunctions(encode, decode)


class _Kernels(NamedTuple):
    encode: Any
    decode: Any


@kernel_factory
def _kernels(on_cuda: bool) -> _Kernels:
    ti = taichi()
    Ints = array(torch.int32)
    morton = morton_functions()

    @parallel_kernel(on_cuda)
    def encode(cells: Ints, n: ti.i32, codes: Ints):
        for i in range(n):
            codes[i] = morton.encode(cells[3 * i], cells[3 * i + 1], cells[3 * i + 2])

    @parallel_kernel(on_cuda)
    def decode(codes: Ints, n: ti.i32, cells: Ints):
        for i in range(n):
            cell = morton.decode(codes[i])
            for d in ti.static(range(3)):
                cells[3 * i + d] = cell[d]

    return _Kernels(encode, decode)


_MORTON_ENCODE = Operator(
    "morton_encode(Tensor cells) -> Tensor", _encode, lambda cells: cells.new_empty(cells.shape[0])
)
_MORTON_DECODE = Operator(
    "morton_decode(Tensor codes) -> Tensor", _decode, lambda codes: codes.new_empty(codes.shape[0], 3)
)
