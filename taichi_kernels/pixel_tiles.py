"""Which blocks of cells each tile of a picture shows, as two depths a tile.

A ray meets no cell before the nearest block of its pixel's tile, and none behind the farthest one. Most tiles show no
block, and their rays need not be marched at all.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi

BLOCK = 2
"""Cells along each side of a block."""
TILE = 8
"""Pixels along each side of a tile."""
NOTHING = 1e30
"""Nearest depth of a tile that shows no block."""

_MARGIN = 1e-3  # of a block's half side: more than the rounding of a place in the grid


def occupied_blocks(occupied: Tensor) -> Tensor:
    """Blocks that hold an occupied cell.

    Args:
        occupied: [R, R, R] bool, by x, y, z.

    Returns:
        [n, 3] int32 numbers of the blocks along x, y, z.
    """
    blocks = F.max_pool3d(occupied.float()[None], BLOCK, BLOCK, ceil_mode=True)[0]
    return blocks.nonzero().int().contiguous()


def depths_of_tiles(
    pose: Tensor,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    blocks: Tensor,
    block_side: float,
    bound: float,
) -> Tensor:
    """Project blocks to the tiles of a picture.

    Args:
        pose: [4, 4] world from camera (OpenCV axes), a rotation and a position.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
        blocks: [n, 3] int32.
        block_side: world units.
        bound: minus the corner of block 0, world units.

    Returns:
        [tiles, 2] of the tiles of TILE x TILE pixels, row by row: the nearest depth, and minus the farthest one, at
        which a ray of the tile can meet a block. A depth is a distance along the camera's axis. NOTHING where there is
        no block.
    """
    n_columns, n_rows = (-(-n // TILE) for n in size)
    depths = pose.new_full((n_columns * n_rows, 2), NOTHING)
    launch(
        _kernel(pose.dtype, is_cuda()),
        *(pose, *intrinsics, n_columns, n_rows),
        *(blocks, len(blocks), block_side, bound, depths),
    )
    return depths


@kernel_factory
def _kernel(dtype: torch.dtype, on_cuda: bool) -> Any:
    ti = taichi()
    real, Reals, Ints = scalar(dtype), array(dtype), array(torch.int32)

    @ti.func
    def tiles_between(low, high, near, far, focal, center, n_tiles):
        """First and last tile along an axis that shows [low, high] at the depths [near, far]."""
        a = ti.min(focal * low / near, focal * low / far, focal * high / near, focal * high / far)
        b = ti.max(focal * low / near, focal * low / far, focal * high / near, focal * high / far)
        # Pixel i looks through i + 0.5.
        a, b = (a + center - real(0.51)) * real(1 / TILE), (b + center - real(0.49)) * real(1 / TILE)
        first = ti.cast(ti.floor(ti.min(ti.max(a, real(0.0)), ti.cast(n_tiles, real))), ti.i32)
        last = ti.cast(ti.floor(ti.max(ti.min(b, ti.cast(n_tiles - 1, real)), real(-1.0))), ti.i32)
        return first, last

    @parallel_kernel(on_cuda)
    def project(
        # camera
        pose: Reals,  # [4, 4]
        fx: real,
        fy: real,
        cx: real,
        cy: real,
        n_columns: ti.i32,
        n_rows: ti.i32,
        # blocks
        blocks: Ints,  # [n, 3]
        n_blocks: ti.i32,
        block_side: real,
        bound: real,
        # results
        depths: Reals,  # [tiles, 2]
    ):
        for i in range(n_blocks):
            half = block_side * real(0.5)
            offset, center, reach = ti.Vector.zero(real, 3), ti.Vector.zero(real, 3), ti.Vector.zero(real, 3)
            for d in ti.static(range(3)):
                offset[d] = ti.cast(blocks[3 * i + d], real) * block_side + half - bound - pose[4 * d + 3]
            for axis in ti.static(range(3)):
                for d in ti.static(range(3)):
                    center[axis] += pose[4 * d + axis] * offset[d]
                    reach[axis] += ti.abs(pose[4 * d + axis])
                reach[axis] *= half * real(1.0 + _MARGIN)
            low, high = center - reach, center + reach
            left, right, top, bottom = 0, n_columns - 1, 0, n_rows - 1
            if low[2] > real(_MARGIN) * half:
                left, right = tiles_between(low[0], high[0], low[2], high[2], fx, cx, n_columns)
                top, bottom = tiles_between(low[1], high[1], low[2], high[2], fy, cy, n_rows)
            else:
                low[2] = real(0.0)  # beside the camera: it may show anywhere
                if high[2] <= real(0.0):
                    bottom = -1  # behind it
            for row in range(top, bottom + 1):
                for column in range(left, right + 1):
                    tile = 2 * (row * n_columns + column)
                    # Values that are not the newest cost an operation, and change nothing.
                    if low[2] < depths[tile]:
                        ti.atomic_min(depths[tile], low[2])
                    if -high[2] < depths[tile + 1]:
                        ti.atomic_min(depths[tile + 1], -high[2])

    return project
