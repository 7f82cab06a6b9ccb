"""Multiresolution grid encoding: features of a point, interpolated from tables at several resolutions.

Each level lays a grid over the box and blends the 2^D entries at the corners of the cell that holds
the point; the features of all levels are concatenated [Instant-NGP, Mueller et al. 2022]. Coarse
levels have an entry for every corner. A level with more corners than its table has entries shares
them: by a spatial hash ("hash"), or by wrapping the row-major index around ("tiled"). Grids of the
kind "dense" have no limit.

Memory layout: a table is [n_entries, F], the levels one after the other; an output is [N, L F],
level-major, and in memory the transpose of that (channel-major), which is what the kernels write
fastest and matrix products take as well.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from taichi_kernels.checks import FLOATS, ArgumentCheck, dense, expect
from taichi_kernels.grid_config import GridConfig
from taichi_kernels.runtime import array, is_cuda, launch, scalar, start, taichi

HASH_PRIMES = (1, 2654435761, 805459861, 3674653429)  # Instant-NGP, section 3; the fourth is torch-ngp's
TABLE_DTYPES = (torch.float32, torch.float64, torch.float16)

# Points a CPU thread takes through all levels before it goes on: their coordinates stay in its cache.
_CHUNK = 2048
# Taichi gives a CPU thread at least 512 consecutive iterations of a parallel loop. Loops over a few
# large tasks therefore count 512 iterations a task, and work in the first of each.
_ITERATIONS_PER_TASK = 512
_NO_MASK = 0x7FFFFFFF
_MAX_DIMS = len(HASH_PRIMES)
_INTS_PER_LEVEL = 4 + 2 * _MAX_DIMS


class GridEncoding(nn.Module):
    """A multiresolution grid with its table; see :func:`grid_encode`.

    Args:
        config: shape of the grid.
        bound: the grid covers [-bound, bound] along each axis, in world units.
    """

    def __init__(self, config: GridConfig, bound: float = 1.0):
        super().__init__()
        self.config = config
        self.bound = bound
        self.table = nn.Parameter(torch.empty(config.n_entries, config.n_features).uniform_(-1e-4, 1e-4))

    def forward(self, positions: Tensor) -> Tensor:
        """[N, D] positions -> [N, L F] features."""
        return grid_encode(positions, self.table, self.config, self.bound)

    def extra_repr(self) -> str:
        return f"{self.config}, bound={self.bound}"


def grid_encode(positions: Tensor, table: Tensor, config: GridConfig, bound: float = 1.0) -> Tensor:
    """Interpolated features of points in a multiresolution grid.

    A point outside [-bound, bound] along any axis has zero features and zero gradients.

    Args:
        positions: [N, D] float32 or float64, world units.
        table: [n_entries, F] of the same dtype, or float16 with float32 positions.
        config: shape of the grid.
        bound: half side of the box that the grid covers, in world units.

    Returns:
        [N, L F] in the dtype of the table, level-major; the memory is channel-major.

    Differentiable once in the table and in the positions. On the CPU the table's gradient is bitwise
    reproducible; on CUDA it is summed by atomics in any order. It is summed in float32 for a
    float16 table.

    Raises ValueError if an argument is not as above.
    """
    check = ArgumentCheck()
    check.tensor("positions", positions, ("N", config.n_dims), FLOATS)
    check.tensor("table", table, (config.n_entries, config.n_features), TABLE_DTYPES)
    return encode_planes(positions, table, config, (tuple(range(config.n_dims)),), bound)


def encode_planes(
    positions: Tensor, tables: Tensor, config: GridConfig, planes: tuple[tuple[int, ...], ...], bound: float
) -> Tensor:
    """Features of points in one grid per entry of `planes`, all of the shape `config`, in one launch.

    `planes` names the coordinates that each grid sees; `tables` holds the grids' tables one after the
    other. The caller has checked shapes.
    """
    expect(bound > 0, "bound", "a positive number", bound, "pass the half side of the box")
    expect(
        positions.dtype == tables.dtype or (positions.dtype, tables.dtype) == (torch.float32, torch.float16),
        "positions",
        f"the dtype of the table, {tables.dtype}, or float32 for a float16 table",
        positions.dtype,
        "convert one of them",
    )
    start(positions.device, "positions")
    return _EncodePlanes.apply(positions, tables, config, planes, float(bound))


class _EncodePlanes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, tables, config, planes, bound):
        levels, scales = _level_rows(config, planes, positions.dtype, positions.device)
        features = tables.new_empty(len(scales) * config.n_features, len(positions))
        kernels = _kernels_for(config, positions, tables)
        launch(
            kernels.encode,
            *(positions, tables, levels, scales),
            *(len(positions), len(scales), positions.shape[1], bound, 0.5 / bound),
            features,
        )
        ctx.save_for_backward(positions, tables)
        ctx.grid = config, planes, bound
        return features.t()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_features):
        positions, tables = ctx.saved_tensors
        config, planes, bound = ctx.grid
        levels, scales = _level_rows(config, planes, positions.dtype, positions.device)
        kernels = _kernels_for(config, positions, tables)
        # On the CPU a transposition costs as much as the scatter itself, so row-major gradients are read
        # where they lie; on CUDA neighbouring threads would then read far apart.
        if is_cuda() or grad_features.t().is_contiguous():
            grad_features, point_stride, channel_stride = dense(grad_features.t()), 1, len(positions)
        else:
            grad_features, point_stride, channel_stride = dense(grad_features), grad_features.shape[1], 1
        shared = (grad_features, levels, scales, len(positions), len(scales), positions.shape[1], bound, 0.5 / bound)
        strides = (point_stride, channel_stride)
        grad_positions = grad_tables = None
        if ctx.needs_input_grad[0]:
            grad_positions = torch.zeros_like(positions)
            launch(kernels.grad_positions, positions, tables, *shared, *strides, grad_positions)
        if ctx.needs_input_grad[1]:
            grad_tables = torch.zeros_like(tables, dtype=positions.dtype)
            # On the CPU a group of levels to each task: more groups than threads, to even out the load.
            n_groups = min(len(scales), 2 * torch.get_num_threads())
            launch(kernels.grad_table, positions, *shared, *strides, n_groups, grad_tables)
            grad_tables = grad_tables.to(tables.dtype)
        return grad_positions, grad_tables, None, None, None


@functools.lru_cache(maxsize=64)
def _level_rows(config, planes, dtype, device) -> tuple[Tensor, Tensor]:
    """What the kernels need to know of each level of each grid: ints [rows, 12], scales [rows]."""
    rows = []
    for plane, axes in enumerate(planes):
        for level in range(config.n_levels):
            first, end = config.level_offsets[level : level + 2]
            n_slots = end - first
            strides, is_hashed = level_strides(config, level, n_slots)
            factors = HASH_PRIMES[: config.n_dims] if is_hashed else strides
            power_of_two = n_slots & (n_slots - 1) == 0
            row = [plane * config.n_entries + first, n_slots, n_slots - 1 if power_of_two else _NO_MASK, is_hashed]
            unused = [0] * (_MAX_DIMS - len(axes))
            row += [*axes, *unused, *(_int32(f) for f in factors), *unused]
            rows.append(row)
    scales = config.level_scales * len(planes)
    return torch.tensor(rows, dtype=torch.int32, device=device), torch.tensor(scales, dtype=dtype, device=device)


def level_strides(config: GridConfig, level: int, n_slots: int) -> tuple[list[int], bool]:
    """Row-major strides of a level, 0 for coordinates that its index leaves out, and if it hashes.

    As in torch-ngp a coordinate is left out once the stride exceeds the table, and the strides wrap
    in 32 bits.
    """
    strides, stride = [0] * config.n_dims, 1
    for d in range(config.n_dims):
        if stride > n_slots:
            break
        strides[d] = stride
        stride = stride * config.n_corners(config.level_resolutions[level]) % 2**32
    return strides, config.kind == "hash" and stride > n_slots


def _int32(x: int) -> int:
    """The signed 32-bit integer with the bits of the unsigned `x`."""
    return x - 2**32 if x >= 2**31 else x


class _Kernels(NamedTuple):
    encode: object
    grad_table: object
    grad_positions: object


def _kernels_for(config: GridConfig, positions: Tensor, tables: Tensor) -> _Kernels:
    return _kernels(
        *(config.n_dims, config.n_features, config.interpolation, config.align_corners),
        *(positions.dtype, tables.dtype, is_cuda()),
    )


@functools.cache
def _kernels(
    n_dims: int,
    n_features: int,
    interpolation: str,
    align_corners: bool,
    dtype: torch.dtype,
    table_dtype: torch.dtype,
    on_cuda: bool,
) -> _Kernels:
    ti = taichi()
    real, stored = scalar(dtype), scalar(table_dtype)
    Reals, Stored, Ints = array(dtype), array(table_dtype), array(torch.int32)
    D, F = n_dims, n_features
    smooth = interpolation == "smoothstep"
    FIRST_PLACE = 0.0 if align_corners else 0.5  # of the box's lower face, in cells from the first corner
    STEP, CHUNK, ROW, ALL_BITS = _ITERATIONS_PER_TASK, _CHUNK, _INTS_PER_LEVEL, _NO_MASK
    AXES, FACTORS = 4, 4 + _MAX_DIMS  # where they are in a row
    reals_d, u32_d = ti.types.vector(D, real), ti.types.vector(D, ti.u32)

    @ti.dataclass
    class Level:
        scale: real
        first: ti.i32
        n_slots: ti.u32
        mask: ti.u32
        is_hashed: ti.i32
        axes: ti.types.vector(D, ti.i32)
        factors: u32_d  # strides, or the primes of the hash

    @ti.dataclass
    class Cell:
        is_inside: ti.i32
        fractions: reals_d  # of the way from the lower to the upper corner, before smoothing
        terms: u32_d  # lower corner times factors

    @ti.func
    def read_level(levels: ti.template(), scales: ti.template(), row):
        level = Level()
        j = row * ROW
        level.scale = scales[row]
        level.first = levels[j]
        level.n_slots = ti.cast(levels[j + 1], ti.u32)
        level.mask = ti.cast(levels[j + 2], ti.u32)
        level.is_hashed = levels[j + 3]
        for d in ti.static(range(D)):
            level.axes[d] = levels[j + AXES + d]
            level.factors[d] = ti.cast(levels[j + FACTORS + d], ti.u32)
        return level

    @ti.func
    def find_cell(positions: ti.template(), i, n_axes, bound, inverse_extent, level):
        cell = Cell(is_inside=1)
        for d in ti.static(range(D)):
            u = (positions[i * n_axes + level.axes[d]] + bound) * inverse_extent
            if not (u >= real(0.0) and u <= real(1.0)):
                cell.is_inside = 0
                u = real(0.0)  # NaN and infinities must not become an index
            p = u * level.scale + real(FIRST_PLACE)
            lower = ti.cast(p, ti.i32)  # p >= 0, so this is the floor
            cell.fractions[d] = p - ti.cast(lower, real)
            cell.terms[d] = ti.cast(lower, ti.u32) * level.factors[d]
        return cell

    @ti.func
    def weight_of(fraction):
        weight = fraction
        if ti.static(smooth):
            weight = fraction * fraction * (real(3.0) - real(2.0) * fraction)
        return weight

    @ti.func
    def slope_of(fraction):
        slope = real(1.0)
        if ti.static(smooth):
            slope = real(6.0) * fraction * (real(1.0) - fraction)
        return slope

    @ti.func
    def corner_entry(corner: ti.template(), cell, level):
        """Index of a corner's first feature; bit d of `corner` chooses the upper side along axis d."""
        index = ti.u32(0)
        hashed = ti.u32(0)
        for d in ti.static(range(D)):
            term = cell.terms[d]
            if ti.static(corner >> d & 1):
                term += level.factors[d]
            index += term
            hashed ^= term
        if level.is_hashed != 0:
            index = hashed
        if level.mask != ti.cast(ALL_BITS, ti.u32):
            index &= level.mask
        elif index >= level.n_slots:
            index %= level.n_slots
        return (level.first + ti.cast(index, ti.i32)) * F

    @ti.func
    def encode_point(positions: ti.template(), table: ti.template(), i, n, n_axes, bound, inverse_extent, row, level,
                     features: ti.template()):  # fmt: skip
        cell = find_cell(positions, i, n_axes, bound, inverse_extent, level)
        sums = ti.Vector.zero(real, F)
        if cell.is_inside:
            for corner in ti.static(range(2**D)):
                weight = real(1.0)
                for d in ti.static(range(D)):
                    upper = weight_of(cell.fractions[d])
                    weight *= upper if ti.static(corner >> d & 1) else real(1.0) - upper
                entry = corner_entry(corner, cell, level)
                for c in ti.static(range(F)):
                    sums[c] += weight * ti.cast(table[entry + c], real)
        for c in ti.static(range(F)):
            features[(row * F + c) * n + i] = ti.cast(sums[c], stored)

    @ti.kernel
    def encode(
        positions: Reals,  # [N, n_axes]
        table: Stored,  # [grids, n_entries, F]
        levels: Ints,  # [rows, 12]
        scales: Reals,  # [rows]
        n: ti.i32,
        n_rows: ti.i32,
        n_axes: ti.i32,
        bound: real,
        inverse_extent: real,
        features: Stored,  # [rows, F, N]
    ):
        if ti.static(on_cuda):
            # Neighbouring threads take neighbouring points of one level: writes coalesce, reads share lines.
            for k in range(n * n_rows):
                row = k // n
                level = read_level(levels, scales, row)
                encode_point(positions, table, k - row * n, n, n_axes, bound, inverse_extent, row, level, features)
        else:
            for k in range((n + CHUNK - 1) // CHUNK * STEP):
                if k % STEP == 0:
                    begin = k // STEP * CHUNK
                    for row in range(n_rows):
                        level = read_level(levels, scales, row)
                        for i in range(begin, ti.min(begin + CHUNK, n)):
                            encode_point(positions, table, i, n, n_axes, bound, inverse_extent, row, level, features)

    @ti.func
    def scatter_point(positions: ti.template(), grad_features: ti.template(), i, n_axes, bound, inverse_extent,
                      point_stride, channel_stride, row, level, grads: ti.template()):  # fmt: skip
        cell = find_cell(positions, i, n_axes, bound, inverse_extent, level)
        if cell.is_inside:
            upstream = ti.Vector.zero(real, F)
            for c in ti.static(range(F)):
                upstream[c] = ti.cast(grad_features[i * point_stride + (row * F + c) * channel_stride], real)
            for corner in ti.static(range(2**D)):
                weight = real(1.0)
                for d in ti.static(range(D)):
                    upper = weight_of(cell.fractions[d])
                    weight *= upper if ti.static(corner >> d & 1) else real(1.0) - upper
                entry = corner_entry(corner, cell, level)
                for c in ti.static(range(F)):
                    if ti.static(on_cuda):
                        ti.atomic_add(grads[entry + c], weight * upstream[c])
                    else:
                        grads[entry + c] = grads[entry + c] + weight * upstream[c]

    @ti.kernel
    def grad_table(
        positions: Reals,  # [N, n_axes]
        grad_features: Stored,  # point_stride, channel_stride
        levels: Ints,
        scales: Reals,
        n: ti.i32,
        n_rows: ti.i32,
        n_axes: ti.i32,
        bound: real,
        inverse_extent: real,
        point_stride: ti.i32,
        channel_stride: ti.i32,
        n_groups: ti.i32,
        grads: Reals,  # [grids, n_entries, F], zeros
    ):
        if ti.static(on_cuda):
            for k in range(n * n_rows):
                row = k // n
                level = read_level(levels, scales, row)
                scatter_point(positions, grad_features, k - row * n, n_axes, bound, inverse_extent,
                              point_stride, channel_stride, row, level, grads)  # fmt: skip
        else:
            # Each task owns a group of levels, and so their entries: no atomics, and always the same order.
            for k in range(n_groups * STEP):
                if k % STEP == 0:
                    group = k // STEP
                    for chunk in range((n + CHUNK - 1) // CHUNK):
                        for row in range(group * n_rows // n_groups, (group + 1) * n_rows // n_groups):
                            level = read_level(levels, scales, row)
                            for i in range(chunk * CHUNK, ti.min((chunk + 1) * CHUNK, n)):
                                scatter_point(positions, grad_features, i, n_axes, bound, inverse_extent,
                                              point_stride, channel_stride, row, level, grads)  # fmt: skip

    @ti.kernel
    def grad_positions(
        positions: Reals,  # [N, n_axes]
        table: Stored,  # [grids, n_entries, F]
        grad_features: Stored,  # point_stride, channel_stride
        levels: Ints,
        scales: Reals,
        n: ti.i32,
        n_rows: ti.i32,
        n_axes: ti.i32,
        bound: real,
        inverse_extent: real,
        point_stride: ti.i32,
        channel_stride: ti.i32,
        grads: Reals,  # [N, n_axes], zeros
    ):
        for i in range(n):
            for row in range(n_rows):
                level = read_level(levels, scales, row)
                cell = find_cell(positions, i, n_axes, bound, inverse_extent, level)
                if cell.is_inside:
                    slopes = ti.Vector.zero(real, D)
                    for corner in ti.static(range(2**D)):
                        entry = corner_entry(corner, cell, level)
                        value = real(0.0)
                        for c in ti.static(range(F)):
                            g = ti.cast(grad_features[i * point_stride + (row * F + c) * channel_stride], real)
                            value += g * ti.cast(table[entry + c], real)
                        for d in ti.static(range(D)):
                            weight = real(1.0)
                            for e in ti.static(range(D)):
                                if ti.static(e != d):
                                    upper = weight_of(cell.fractions[e])
                                    weight *= upper if ti.static(corner >> e & 1) else real(1.0) - upper
                            slopes[d] += weight * value * (real(1.0) if ti.static(corner >> d & 1) else real(-1.0))
                    for d in ti.static(range(D)):
                        j = i * n_axes + level.axes[d]
                        slope = slopes[d] * slope_of(cell.fractions[d]) * level.scale * inverse_extent
                        grads[j] = grads[j] + slope

    return _Kernels(encode, grad_table, grad_positions)
