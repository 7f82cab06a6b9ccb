"""The kernels of grid encoding: features of points, and their first and second derivatives.

With a point x, tangent v, corner weights w_e(x) and entries t_e, each kernel comes in two versions:

    kernel          plain                            along tangents
    encode          sum_e w_e t_e                    sum_e (v . grad w_e) t_e
    grad_table      t_e gets w_e g                   t_e gets (v . grad w_e) g
    grad_positions  g sum_e (grad w_e) t_e           g sum_e (hess w_e v) t_e

The plain versions are the encoding and its backward pass. The others are the derivatives of `grad_positions`, which
is linear in entries and upstream gradients g.
"""

from typing import Any, NamedTuple

import torch

from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, scalar, taichi

MAX_DIMS = 4
# Per level and grid, in a row of integers: first entry, number of entries, bit mask if that is a power of two, whether
# to hash, MAX_DIMS axes of the positions, MAX_DIMS strides or primes.
INTS_PER_LEVEL = 4 + 2 * MAX_DIMS
NO_MASK = 0x7FFFFFFF

# Points a CPU thread takes through all levels before it goes on: their coordinates stay in its cache.
_CHUNK = 2048
# Taichi gives a CPU thread at least 512 consecutive iterations of a parallel loop. Loops over a few
# large tasks therefore count 512 iterations a task, and work in the first of each.
_ITERATIONS_PER_TASK = 512


class GridKernels(NamedTuple):
    """See the table above."""

    encode: Any
    grad_table: Any
    grad_positions: Any


@kernel_factory
def grid_kernels(
    n_dims: int,
    n_features: int,
    interpolation: str,
    align_corners: bool,
    dtype: torch.dtype,
    table_dtype: torch.dtype,
    along: bool,
    on_cuda: bool,
    fixed_point: bool = False,
) -> GridKernels:
    """Kernels for positions of `dtype` and tables of `table_dtype`.

    Args:
        n_dims, n_features, interpolation, align_corners: as in :class:`taichi_kernels.GridConfig`.
        dtype, table_dtype: of positions and of tables.
        along: take derivatives along tangents; a row of positions then holds the tangent after the point.
        on_cuda: parallelize for CUDA.
        fixed_point: sum the gradient of tables in integers, so that it does not depend on the order of the points.
            Upstream gradients then come in units of the last digit, and `grad_table` gives the sums in these units.
    """
    ti = taichi()
    real, stored = scalar(dtype), scalar(table_dtype)
    Reals, Stored, Ints = array(dtype), array(table_dtype), array(torch.int32)
    Sums = array(torch.int64 if fixed_point else dtype)
    D, F = n_dims, n_features
    smooth = interpolation == "smoothstep"
    LOWER_FACE = 0.0 if align_corners else 0.5  # of the box, in cells from the first corner
    STEP, CHUNK, ROW, ALL_BITS = _ITERATIONS_PER_TASK, _CHUNK, INTS_PER_LEVEL, NO_MASK
    AXES, FACTORS = 4, 4 + MAX_DIMS  # where they are in a row
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
        terms: u32_d  # lower corner times factors
        # of the upper corner along each axis; those of the lower one are 1 - weight, -slope, -curvature
        weights: reals_d
        slopes: reals_d
        curvatures: reals_d
        tangents: reals_d  # in cells

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
        cell = Cell()
        cell.is_inside = 1
        for d in ti.static(range(D)):
            j = i * n_axes + level.axes[d]
            if ti.static(along):
                j += i * n_axes
                cell.tangents[d] = positions[j + n_axes] * inverse_extent * level.scale
            u = (positions[j] + bound) * inverse_extent
            if not (u >= real(0.0) and u <= real(1.0)):
                cell.is_inside = 0
                u = real(0.0)  # NaN and infinities must not become an index
            p = u * level.scale + real(LOWER_FACE)
            lower = ti.cast(p, ti.i32)  # p >= 0, so this is the floor
            fraction = p - ti.cast(lower, real)
            cell.weights[d] = fraction
            if ti.static(smooth):
                cell.weights[d] = fraction * fraction * (real(3.0) - real(2.0) * fraction)
                cell.slopes[d] = real(6.0) * fraction * (real(1.0) - fraction)
                cell.curvatures[d] = real(6.0) - real(12.0) * fraction
            cell.terms[d] = ti.cast(lower, ti.u32) * level.factors[d]
        return cell

    @ti.func
    def derivative(corner: ti.template(), cell, first: ti.template(), second: ti.template()):
        """Derivative of a corner's weight with respect to the axes `first` and `second` (-1: none), in cells."""
        product = real(1.0)
        for d in ti.static(range(D)):
            is_upper, is_differentiated = ti.static(bool(corner >> d & 1), d in (first, second))
            if ti.static(not is_differentiated):
                product *= cell.weights[d] if ti.static(is_upper) else real(1.0) - cell.weights[d]
            elif ti.static(smooth):
                product *= cell.curvatures[d] if ti.static(first == second) else cell.slopes[d]
            if ti.static(is_differentiated and not is_upper):
                product *= real(-1.0)
        return product

    @ti.func
    def corner_weight(corner: ti.template(), cell, axis: ti.template()):
        """A corner's weight, or its derivative with respect to `axis` (-1: none), in cells; along the tangent."""
        weight = real(0.0)
        if ti.static(along):
            for d in ti.static(range(D)):
                if ti.static(smooth or d != axis):  # a linear weight has no curvature
                    weight += cell.tangents[d] * derivative(corner, cell, d, axis)
        else:
            weight = derivative(corner, cell, axis, -1)
        return weight

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
                weight = corner_weight(corner, cell, -1)
                entry = corner_entry(corner, cell, level)
                for c in ti.static(range(F)):
                    sums[c] += weight * ti.cast(table[entry + c], real)
        for c in ti.static(range(F)):
            features[(row * F + c) * n + i] = ti.cast(sums[c], stored)

    @parallel_kernel(on_cuda)
    def encode(
        positions: Reals,  # [N, n_axes], with tangents [N, 2 n_axes]
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
            has_gradient = True
            if ti.static(on_cuda):
                # Points without a gradient, such as those that fill up a batch, must not queue for an entry.
                has_gradient = False
                for c in ti.static(range(F)):
                    if not (upstream[c] == real(0.0)):  # noqa: SIM201  Taichi's != is false for NaN
                        has_gradient = True
            if has_gradient:
                for corner in ti.static(range(2**D)):
                    weight = corner_weight(corner, cell, -1)
                    entry = corner_entry(corner, cell, level)
                    for c in ti.static(range(F)):
                        if ti.static(fixed_point):
                            ti.atomic_add(grads[entry + c], ti.cast(ti.round(weight * upstream[c]), ti.i64))
                        elif ti.static(on_cuda):
                            ti.atomic_add(grads[entry + c], weight * upstream[c])
                        else:
                            grads[entry + c] = grads[entry + c] + weight * upstream[c]

    @parallel_kernel(on_cuda)
    def grad_table(
        positions: Reals,  # [N, n_axes], with tangents [N, 2 n_axes]
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
        grads: Sums,  # [grids, n_entries, F], zeros
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

    @parallel_kernel(on_cuda)
    def grad_positions(
        positions: Reals,  # [N, n_axes], with tangents [N, 2 n_axes]
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
                            slopes[d] += value * corner_weight(corner, cell, d)
                    for d in ti.static(range(D)):
                        j = i * n_axes + level.axes[d]
                        grads[j] = grads[j] + slopes[d] * level.scale * inverse_extent

    return GridKernels(encode, grad_table, grad_positions)
