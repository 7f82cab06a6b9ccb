"""Occupancy grid: which cells of space hold anything, as a bit per cell, for ray marching to skip the rest.

C cascades of R^3 cells, cascade c over the cube [-b_c, b_c]^3 with b_c = min(2^c, bound); densities are
[C, R^3] with the cells of a cascade in Morton order, bits are packed eight to a byte, lowest first.
[Instant-NGP, Mueller et al. 2022, appendix C]
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, expect
from taichi_kernels.morton import MAX_RESOLUTION, morton_decode
from taichi_kernels.operators import Operator
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, taichi


def cell_centers(resolution: int, cascade: int = 0, bound: float = 1.0, device: torch.device | str = "cpu") -> Tensor:
    """Where to sample the density of each cell of a cascade.

    Args:
        resolution: R, cells along an axis, a power of two.
        cascade: c, 0 for the innermost.
        bound: half side of the whole scene in world units.
        device: of the result.

    Returns:
        [R^3, 3] float32 world positions in Morton order; the cells next to the faces of the cube lie
        half a cell inside. Add uniform noise of half a cell, min(2^c, bound) / R, to sample all of it.
    """
    _check_resolution(resolution)
    half_side = min(2.0**cascade, bound)
    codes = torch.arange(resolution**3, dtype=torch.int32, device=device)
    return (morton_decode(codes).float() * (2 / (resolution - 1)) - 1) * (half_side - half_side / resolution)


def dilate_density(density_grid: Tensor) -> Tensor:
    """Each cell's maximum over itself and its six neighbours, within its cascade.

    Args:
        density_grid: [C, R^3] float32 or float64 in Morton order, R a power of two.

    Returns:
        a new tensor of the same shape and dtype; NaN where one of the seven is, as torch.max has it. Not
        differentiable. Deterministic.

    Raises ValueError if the argument is not as above.
    """
    density_grid = cast_under_autocast(density_grid)
    _check_density_grid(density_grid)
    dilated: Tensor = _DILATE_DENSITY(density_grid)
    return dilated


def pack_bits(density_grid: Tensor, threshold: float | Tensor) -> Tensor:
    """Occupied cells as bits.

    Args:
        density_grid: [C, R^3] float32 or float64 in Morton order, R a power of two.
        threshold: a cell is occupied if its density is above this, and not if it is equal. A number, or a tensor []
            of the dtype and on the device of the grid, for whose value the call does not wait.

    Returns:
        [C R^3 / 8] uint8; bit i (lowest first) of byte n is cell 8 n + i. Not differentiable.

    Raises ValueError if an argument is not as above.
    """
    density_grid = cast_under_autocast(density_grid)
    check = _check_density_grid(density_grid)
    if isinstance(threshold, Tensor):
        threshold = cast_under_autocast(threshold)
        check.tensor("threshold", threshold, (), density_grid.dtype, differentiable=False)
    else:
        threshold = density_grid.new_full((), float(threshold))
    bitfield: Tensor = _PACK_BITS(density_grid, threshold)
    return bitfield


def _dilate(density_grid: Tensor) -> Tensor:
    dilated = torch.empty_like(density_grid)
    launch(_kernels(density_grid.dtype, is_cuda()).dilate, density_grid, *density_grid.shape, dilated)
    return dilated


def _pack(density_grid: Tensor, threshold: Tensor) -> Tensor:
    bitfield = _empty_bitfield(density_grid, threshold)
    launch(_kernels(density_grid.dtype, is_cuda()).pack, density_grid, threshold, len(bitfield), bitfield)
    return bitfield


def _empty_bitfield(density_grid: Tensor, threshold: Tensor) -> Tensor:
    return density_grid.new_empty(density_grid.numel() // 8, dtype=torch.uint8)


def _check_density_grid(density_grid: Tensor) -> ArgumentCheck:
    check = ArgumentCheck()
    check.tensor("density_grid", density_grid, ("C", "R^3"), FLOATS, differentiable=False)
    n_cells = density_grid.shape[1]
    resolution = round(n_cells ** (1 / 3))
    expect(
        resolution**3 == n_cells and _is_resolution(resolution),
        "density_grid",
        "R^3 cells with R a power of two from 2 to 1024",
        f"{n_cells} cells",
        "store the grid as [cascades, R^3] in Morton order",
    )
    return check


def _check_resolution(resolution: int) -> None:
    expect(
        _is_resolution(resolution),
        "resolution",
        "a power of two from 2 to 1024",
        resolution,
        "Morton order needs such a resolution",
    )


def _is_resolution(resolution: int) -> bool:
    return 2 <= resolution <= MAX_RESOLUTION and resolution & (resolution - 1) == 0


class _Kernels(NamedTuple):
    dilate: Any
    pack: Any


@kernel_factory
def _kernels(dtype: torch.dtype, on_cuda: bool) -> _Kernels:
    ti = taichi()
    Reals, Bytes = array(dtype), array(torch.uint8)

    @ti.func
    def larger(a, b):
        """Unlike ti.max, which drops NaN: a sum with it is NaN. Taichi takes b != b for False."""
        return ti.select(a >= b, a, ti.select(b > a, b, a + b))

    @parallel_kernel(on_cuda)
    def dilate(
        density_grid: Reals,  # [C, R^3]
        n_cascades: ti.i32,
        n_cells: ti.i32,  # R^3
        dilated: Reals,  # [C, R^3]
    ):
        for k in range(n_cascades * n_cells):
            first = k // n_cells * n_cells
            code = k - first
            largest = density_grid[k]
            for d in ti.static(range(3)):
                # A coordinate steps by one within its own bits of the code: a borrow runs through the
                # zeros of the other two, a carry through bits set there for the purpose.
                bits = (0x09249249 << d) & (n_cells - 1)
                coordinate, others = code & bits, code & ~bits
                if coordinate != 0:
                    largest = larger(largest, density_grid[first + (others | ((coordinate - 1) & bits))])
                if coordinate != bits:
                    largest = larger(largest, density_grid[first + (others | (((code | ~bits) + 1) & bits))])
            dilated[k] = largest

    @parallel_kernel(on_cuda)
    def pack(
        density_grid: Reals,  # [C R^3]
        threshold: Reals,  # []
        n_bytes: ti.i32,
        bitfield: Bytes,  # [C R^3 / 8]
    ):
        for k in range(n_bytes):
            byte, limit = 0, threshold[0]
            for bit in ti.static(range(8)):
                if density_grid[8 * k + bit] > limit:
                    byte |= 1 << bit
            bitfield[k] = ti.cast(byte, ti.u8)

    return _Kernels(dilate, pack)


_DILATE_DENSITY = Operator("dilate_density(Tensor density_grid) -> Tensor", _dilate, torch.empty_like)
_PACK_BITS = Operator("pack_bits(Tensor density_grid, Tensor threshold) -> Tensor", _pack, _empty_bitfield)
