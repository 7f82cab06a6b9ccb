"""The lattice of points at which rays are sampled, and the cells of the occupancy grid around these points.

A ray is stepped t_0, t_1 = t_0 + dt(t_0), ... with a step that grows with distance:

    dt(t) = clip(t dt_gamma, dt_min, dt_max)
    dt_max = 2 sqrt(3) 2^(C-1) / R,   dt_min = min(dt_max, 2 sqrt(3) / max_steps)
                                                     [Instant-NGP, Mueller et al. 2022, appendix E]
"""

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import ArgumentCheck, expect, expect_integer
from taichi_kernels.morton import MAX_RESOLUTION, morton_encode, morton_functions
from taichi_kernels.ray_aabb import PARALLEL
from taichi_kernels.runtime import scalar, taichi

SHORTEST_DIRECTION = 1e-3
"""Rays along shorter ones have no samples: they would take nearly endless steps to anywhere."""
_LARGEST_BLOCK = 4  # 16 cells along each side
_CUBE_DIAGONAL = 1.7320508  # sqrt(3), rounded down


class Lattice(NamedTuple):
    """The numbers of a march: the grid and the steps."""

    bound: float
    resolution: int
    n_cascades: int
    dt_gamma: float
    dt_min: float
    dt_max: float
    max_samples: int

    @property
    def n_words(self) -> int:
        """32-bit words that hold a bit for each lattice point of a ray through the whole cube."""
        return math.ceil((2 * math.sqrt(3) * self.bound / self.dt_min + 4) / 32)

    @property
    def step(self) -> tuple[float, float, float]:
        return self.dt_gamma, self.dt_min, self.dt_max


def make_lattice(
    n_cells: int, bound: float, max_steps: int, max_samples: int | None, dt_gamma: float, grid: str = "bitfield"
) -> Lattice:
    """The lattice of a grid of so many cells; raises ValueError if the numbers do not fit together.

    Args:
        grid: the caller's name of it.
        bound, max_steps, max_samples, dt_gamma: as of :func:`taichi_kernels.march_rays`.
    """
    remedy = "pass the half side of the scene's cube"
    expect(bound > 0 and math.isfinite(bound), "bound", "a positive number", bound, remedy)
    expect(0 <= dt_gamma < math.inf, "dt_gamma", "at least 0", dt_gamma, "pass 0 for constant steps")
    max_steps = expect_integer("max_steps", max_steps, 1, None, "pass the number of steps through the cube")
    if max_samples is None:
        max_samples = max_steps
    max_samples = expect_integer("max_samples", max_samples, 1, None, "pass None for max_steps")
    n_cascades = 1 + max(0, math.ceil(math.log2(bound)))
    resolution = round((n_cells / n_cascades) ** (1 / 3))
    expect(
        n_cascades * resolution**3 == n_cells
        and resolution & (resolution - 1) == 0
        and 2 <= resolution <= MAX_RESOLUTION
        and n_cells < 2**31,
        grid,
        f"C R^3 cells with C = {n_cascades} (from bound = {bound}) and R a power of two up to 1024",
        f"{n_cells} cells",
        "pack one grid per cascade, or pass the bound that the grid was made for",
    )
    dt_max = 2 * math.sqrt(3) * 2 ** (n_cascades - 1) / resolution
    dt_min = min(dt_max, 2 * math.sqrt(3) / max_steps)
    return Lattice(float(bound), resolution, n_cascades, float(dt_gamma), dt_min, dt_max, min(max_samples, 2**31 - 1))


@torch.no_grad()
def empty_blocks(bitfield: Tensor, bound: float = 1.0) -> Tensor:
    """How large a block of empty cells each cell lies in, for :class:`RayMarch`.

    Args:
        bitfield, bound: as of :func:`march_rays`.

    Returns:
        [C R^3] uint8 in the order of x, y, z: 0 for an occupied cell, else k + 1 if the block of 2^k x 2^k x 2^k cells
        around it is empty, for the largest such k. With several cascades k is 0 throughout: a larger block may reach
        into cells that belong to another cascade.

    Raises ValueError if an argument is not as above.
    """
    check = ArgumentCheck()
    check.tensor("bitfield", bitfield, ("C R^3 / 8",), torch.uint8)
    lattice = make_lattice(8 * bitfield.shape[0], bound, 1, None, 0.0)
    n, device = lattice.resolution, bitfield.device
    is_empty = (bitfield[:, None] >> torch.arange(8, dtype=torch.uint8, device=device) & 1).flatten() == 0
    levels = is_empty.to(torch.uint8)
    largest = min(_LARGEST_BLOCK, n.bit_length() - 1) if lattice.n_cascades == 1 else 0
    for k in range(1, largest + 1):
        # Blocks are contiguous in Morton order.
        levels += is_empty.view(-1, 8**k).all(1).repeat_interleave(8**k)
    cells = torch.cartesian_prod(*3 * [torch.arange(n, dtype=torch.int32, device=device)])
    return levels.view(lattice.n_cascades, -1)[:, morton_encode(cells.contiguous()).long()].flatten()


class LatticeFunctions(NamedTuple):
    """Functions to call inside kernels."""

    step_length: Any
    """t, dt_gamma, dt_min, dt_max -> dt."""
    row: Any
    """Rows of three numbers, i -> vector i."""
    clip: Any
    """Point, bound -> the point inside the cube."""
    has_length: Any
    """Direction -> whether a ray goes on along it."""
    cell_at: Any
    """See its description."""
    empty_distance: Any
    """See its description."""


@functools.cache
def lattice_functions(dtype: torch.dtype) -> LatticeFunctions:
    """The functions for distances of `dtype`."""
    ti, real, morton = taichi(), scalar(dtype), morton_functions()
    LARGEST = torch.finfo(dtype).max

    @ti.func
    def step_length(t, dt_gamma, dt_min, dt_max):
        return ti.max(dt_min, ti.min(dt_max, t * dt_gamma))

    @ti.func
    def exponent(x):
        """The e of x = m 2^e with m in [0.5, 1), for x >= 0."""
        return ((ti.bit_cast(ti.cast(x, ti.f32), ti.i32) >> 23) & 0xFF) - 126

    @ti.func
    def row(vectors: ti.template(), i):
        return ti.Vector([vectors[3 * i], vectors[3 * i + 1], vectors[3 * i + 2]])

    @ti.func
    def clip(point, bound):
        return ti.max(-bound, ti.min(bound, point))

    @ti.func
    def has_length(direction):
        return direction.dot(direction) >= real(SHORTEST_DIRECTION**2)

    @ti.func
    def cell_at(point, dt, resolution, n_cascades, bound):
        """Cell of a point, its cascade, and half the side of that cascade's cube."""
        cascade = ti.max(
            exponent(ti.max(ti.abs(point[0]), ti.abs(point[1]), ti.abs(point[2]))),
            exponent(dt * ti.cast(resolution, real) * real(0.5)),
        )
        cascade = ti.max(0, ti.min(n_cascades - 1, cascade))
        half_side = ti.min(ti.cast(1 << cascade, real), bound)
        cells = ti.cast(resolution, real)
        places = (point * (real(1.0) / half_side) + real(1.0)) * (real(0.5) * cells)
        return ti.cast(ti.max(real(0.0), ti.min(cells - real(1.0), places)), ti.i32), cascade, half_side

    @ti.func
    def empty_distance(bitfield: ti.template(), point, direction, inverse, dt, resolution, n_cascades, bound):
        """-1 in an occupied cell, else how far along the ray the cell is known to be empty (0: not known)."""
        cell, cascade, half_side = cell_at(point, dt, resolution, n_cascades, bound)
        cells = ti.cast(resolution, real)
        index = cascade * resolution * resolution * resolution + morton.encode(cell[0], cell[1], cell[2])
        distance = real(-1.0)
        if ((ti.cast(bitfield[index >> 3], ti.i32) >> (index & 7)) & 1) == 0:
            distance = real(0.0)
            # A step as long as the cell's diagonal leaves it anyway.
            cell_side = real(2.0) * half_side / cells
            if dt < real(_CUBE_DIAGONAL) * cell_side:
                distance = real(LARGEST)
                for d in ti.static(range(3)):
                    face = ti.cast(cell[d] + (1 if direction[d] > 0 else 0), real) * cell_side - half_side
                    if ti.abs(direction[d]) > real(PARALLEL):
                        distance = ti.min(distance, (face - point[d]) * inverse[d])
                distance = ti.max(distance, real(0.0))
        return distance

    return LatticeFunctions(step_length, row, clip, has_length, cell_at, empty_distance)
