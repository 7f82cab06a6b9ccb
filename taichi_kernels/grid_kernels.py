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
# Of each level, in a row of integers: first entry, number of entries, bit mask if that is a power of two, whether to
# hash, MAX_DIMS strides or primes, of which the first is 1. Behind them the axes of the positions that each grid sees.
INTS_PER_LEVEL = 4 + MAX_DIMS
NO_MASK = -1

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
    n_planes: int,
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
        n_planes: of the grids, here called planes, those that a thread takes at once. On the CPU 1: more would be more
            code to compile.
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
    D, F, Q = n_dims, n_features, n_planes
    smooth = interpolation == "smoothstep"
    LOWER_FACE = 0.0 if align_corners else 0.5  # of the box, in cells from the first corner
    STEP, CHUNK, ROW = _ITERATIONS_PER_TASK, _CHUNK, INTS_PER_LEVEL
    FACTORS = 4  # where they are in a row
    reals_d, u32_d = ti.types.vector(D, real), ti.types.vector(D, ti.u32)
    reals_qd, ints_qd = ti.types.vector(Q * D, real), ti.types.vector(Q * D, ti.i32)

    @ti.dataclass
    class Point:
        places: reals_qd  # from 0 to 1 inside of the box
        tangents: reals_qd  # in the same unit

    @ti.dataclass
    class Level:
        scale: real
        first: ti.i32
        n_slots: ti.u32
        mask: ti.u32
        is_hashed: ti.i32
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
    def read_axes(levels: ti.template(), n_levels, first_plane):
        axes = ints_qd(0)
        for k in ti.static(range(Q * D)):
            axes[k] = levels[n_levels * ROW + first_plane * D + k]
        return axes

    @ti.func
    def read_point(positions: ti.template(), i, axes, n_axes, bound, inverse_extent):
        """What Q planes see of a point."""
        point = Point()
        for k in ti.static(range(Q * D)):
            j = i * n_axes + axes[k]
            if ti.static(along):
                j += i * n_axes
                point.tangents[k] = positions[j + n_axes] * inverse_extent
            point.places[k] = (positions[j] + bound) * inverse_extent
        return point

    @ti.func
    def read_level(levels: ti.template(), scales: ti.template(), l):
        level = Level()
        j = l * ROW
        level.scale = scales[l]
        level.first = levels[j]
        level.n_slots = ti.cast(levels[j + 1], ti.u32)
        level.mask = ti.cast(levels[j + 2], ti.u32)
        level.is_hashed = levels[j + 3]
        level.factors[0] = ti.u32(1)
        for d in ti.static(range(1, D)):
            level.factors[d] = ti.cast(levels[j + FACTORS + d], ti.u32)
        return level

    @ti.func
    def find_cell(point, q: ti.template(), level):
        cell = Cell()
        cell.is_inside = 1
        for d in ti.static(range(D)):
            cell.tangents[d] = point.tangents[q * D + d] * level.scale
            u = point.places[q * D + d]
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
    def corner_entry(corner: ti.template(), cell, level, first):
        """Index of a corner's first feature; bit d of `corner` chooses the upper side along axis d; `first` is the
        plane's first entry."""
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
        index &= level.mask
        if index >= level.n_slots:
            index %= level.n_slots
        return (first + level.first + ti.cast(index, ti.i32)) * F

    @ti.func
    def encode_point(point, q: ti.template(), i, n, plane, l, level, n_levels, n_entries, table: ti.template(),
                     features: ti.template()):  # fmt: skip
        cell = find_cell(point, q, level)
        sums = ti.Vector.zero(real, F)
        if cell.is_inside:
            for corner in ti.static(range(2**D)):
                weight = corner_weight(corner, cell, -1)
                entry = corner_entry(corner, cell, level, plane * n_entries)
                for c in ti.static(range(F)):
                    sums[c] += weight * ti.cast(table[entry + c], real)
        for c in ti.static(range(F)):
            features[((plane * n_levels + l) * F + c) * n + i] = ti.cast(sums[c], stored)

    @parallel_kernel(on_cuda)
    def encode(
        positions: Reals,  # [N, n_axes], with tangents [N, 2 n_axes]
        table: Stored,  # [P, n_entries, F]
        levels: Ints,  # [L INTS_PER_LEVEL + P D]
        scales: Reals,  # [L]
        n: ti.i32,
        n_planes_in_all: ti.i32,
        n_levels: ti.i32,
        n_entries: ti.i32,
        n_axes: ti.i32,
        bound: real,
        inverse_extent: real,
        features: Stored,  # [P, L, F, N]
    ):
        if ti.static(on_cuda):
            # A thread reads a point once, and a level once for all planes. Neighbouring threads take neighbouring
            # points: writes coalesce, reads share lines.
            for i in range(n):
                point = read_point(positions, i, read_axes(levels, n_levels, 0), n_axes, bound, inverse_extent)
                for l in range(n_levels):
                    level = read_level(levels, scales, l)
                    for q in ti.static(range(Q)):
                        encode_point(point, q, i, n, q, l, level, n_levels, n_entries, table, features)
        else:
            for k in range((n + CHUNK - 1) // CHUNK * STEP):
                if k % STEP == 0:
                    begin = k // STEP * CHUNK
                    for plane in range(n_planes_in_all):
                        axes = read_axes(levels, n_levels, plane)
                        for l in range(n_levels):
                            level = read_level(levels, scales, l)
                            for i in range(begin, ti.min(begin + CHUNK, n)):
                                point = read_point(positions, i, axes, n_axes, bound, inverse_extent)
                                encode_point(point, 0, i, n, plane, l, level, n_levels, n_entries, table, features)

    @ti.func
    def scatter_point(point, q: ti.template(), i, plane, l, level, n_levels, n_entries,
                      grad_features: ti.template(), point_stride, channel_stride, grads: ti.template()):  # fmt: skip
        cell = find_cell(point, q, level)
        if cell.is_inside:
            upstream = ti.Vector.zero(real, F)
            for c in ti.static(range(F)):
                channel = (plane * n_levels + l) * F + c
                upstream[c] = ti.cast(grad_features[i * point_stride + channel * channel_stride], real)
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
                    entry = corner_entry(corner, cell, level, plane * n_entries)
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
        n_planes_in_all: ti.i32,
        n_levels: ti.i32,
        n_entries: ti.i32,
        n_axes: ti.i32,
        bound: real,
        inverse_extent: real,
        point_stride: ti.i32,
        channel_stride: ti.i32,
        n_groups: ti.i32,
        grads: Sums,  # [P, n_entries, F], zeros
    ):
        if ti.static(on_cuda):
            for i in range(n):
                point = read_point(positions, i, read_axes(levels, n_levels, 0), n_axes, bound, inverse_extent)
                for l in range(n_levels):
                    level = read_level(levels, scales, l)
                    for q in ti.static(range(Q)):
                        scatter_point(point, q, i, q, l, level, n_levels, n_entries,
                                      grad_features, point_stride, channel_stride, grads)  # fmt: skip
        else:
            # Each task owns some levels of some planes, and so their entries: no atomics, and always the same order.
            for k in range(n_groups * STEP):
                if k % STEP == 0:
                    begin = k // STEP * n_planes_in_all * n_levels // n_groups
                    end = (k // STEP + 1) * n_planes_in_all * n_levels // n_groups
                    for chunk in range((n + CHUNK - 1) // CHUNK):
                        for plane in range(n_planes_in_all):
                            axes = read_axes(levels, n_levels, plane)
                            first = plane * n_levels
                            for l in range(ti.max(begin - first, 0), ti.min(end - first, n_levels)):
                                level = read_level(levels, scales, l)
                                for i in range(chunk * CHUNK, ti.min((chunk + 1) * CHUNK, n)):
                                    point = read_point(positions, i, axes, n_axes, bound, inverse_extent)
                                    scatter_point(point, 0, i, plane, l, level, n_levels, n_entries,
                                                  grad_features, point_stride, channel_stride, grads)  # fmt: skip

    @parallel_kernel(on_cuda)
    def grad_positions(
        positions: Reals,  # [N, n_axes], with tangents [N, 2 n_axes]
        table: Stored,  # [P, n_entries, F]
        grad_features: Stored,  # point_stride, channel_stride
        levels: Ints,
        scales: Reals,
        n: ti.i32,
        n_planes_in_all: ti.i32,
        n_levels: ti.i32,
        n_entries: ti.i32,
        n_axes: ti.i32,
        bound: real,
        inverse_extent: real,
        point_stride: ti.i32,
        channel_stride: ti.i32,
        grads: Reals,  # [N, n_axes], zeros
    ):
        for i in range(n):
            for group in range(n_planes_in_all // Q):
                axes = read_axes(levels, n_levels, group * Q)
                point = read_point(positions, i, axes, n_axes, bound, inverse_extent)
                sums = reals_qd(0)
                for l in range(n_levels):
                    level = read_level(levels, scales, l)
                    for q in ti.static(range(Q)):
                        plane = group * Q + q
                        cell = find_cell(point, q, level)
                        if cell.is_inside:
                            slopes = ti.Vector.zero(real, D)
                            for corner in ti.static(range(2**D)):
                                entry = corner_entry(corner, cell, level, plane * n_entries)
                                value = real(0.0)
                                for c in ti.static(range(F)):
                                    j = i * point_stride + ((plane * n_levels + l) * F + c) * channel_stride
                                    value += ti.cast(grad_features[j], real) * ti.cast(table[entry + c], real)
                                for d in ti.static(range(D)):
                                    slopes[d] += value * corner_weight(corner, cell, d)
                            for d in ti.static(range(D)):
                                sums[q * D + d] += slopes[d] * level.scale * inverse_extent
                for k in ti.static(range(Q * D)):
                    j = i * n_axes + axes[k]
                    grads[j] = grads[j] + sums[k]

    return GridKernels(encode, grad_table, grad_positions)
