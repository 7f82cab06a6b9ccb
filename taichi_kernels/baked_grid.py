"""Rays of a camera through a grid in which most cells hold stored densities and colors, and the others none.

Rays, march and look-up are one kernel. It composites the samples in static cells, whose values are interpolated
between stored corners, and emits those in dynamic cells, which somebody else evaluates. Static samples between two
dynamic ones are one run: compositing is associative [Porter and Duff 1984], so that a second kernel blends dynamic
samples and runs in order, as if each sample had been blended by itself:

    C = C_0 + T_0 (a_1 c_1 + (1 - a_1) (C_1 + T_1 (a_2 c_2 + ...))),   a_j = 1 - exp(-sigma_j delta_j)

with premultiplied color C_j and transmittance T_j of the run after dynamic sample j. The samples are those of
:func:`taichi_kernels.march_rays` in a grid of one cascade. Forward only.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import get_ctx

from taichi_kernels.checks import FLOATS, ArgumentCheck, expect, expect_integer
from taichi_kernels.operators import Operator
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.pixel_tiles import BLOCK, NOTHING, TILE, depths_of_tiles
from taichi_kernels.ray_aabb import slab_function
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi
from taichi_kernels.step_alphas import FIRST, N_INTERVALS, PER_UNIT, table_of_alphas

EMPTY, TRANSPARENT, UNKNOWN, FIRST_ROW = 0, 1, 2, 3
"""Codes of cells: without samples; with samples that are invisible; dynamic without stored densities. A static cell
with the values of row k has FIRST_ROW + 2 k, a dynamic one with the densities of row k has FIRST_ROW + 2 k + 1. A cell
without samples, in a cube of 2 n + 1 such cells around it, may have -n: rays then leave these cells at once."""

_RAYS_PER_LAUNCH = 2**16  # whose runs take 27 MB for 16 samples a ray
_INVISIBLE = 1 / 1024  # alpha times transmittance, of static samples that are left out
_RUN = 5  # numbers of a run: color times opacity, transmittance, depth


class BakedSamples(NamedTuple):
    """Static runs of N rays, and M dynamic samples between them, ray after ray."""

    positions: Tensor
    """[M, 3] world units."""
    directions: Tensor
    """[M, 3] of the sample's ray."""
    ts: Tensor
    """[M] distance from the ray's origin to the sample, which is the start of its step."""
    deltas: Tensor
    """[M] length of the step."""
    packed_info: Tensor
    """[N, 2] int32, first dynamic sample and number of them; row i is ray i."""
    before: Tensor
    """[N, 5] run before the first dynamic sample of a ray: color times opacity (3), transmittance, depth."""
    after: Tensor
    """[M, 5] run after a dynamic sample."""


def march_baked_grid(
    # camera
    pose: Tensor,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    # grid
    cells: Tensor,
    log_densities: Tensor,
    colors: Tensor,
    color_weights: Tensor,
    color_offset: Tensor,
    bound: float,
    aabb: Tensor,
    blocks: Tensor,
    # steps
    max_steps: int = 1024,
    dt_gamma: float = 0.0,
    min_near: float = 0.05,
    T_threshold: float = 1e-4,
) -> BakedSamples:
    """March the rays of all pixels, blend their static samples, and find the dynamic ones.

    Args:
        pose: [4, 4] float32 or float64, world from camera (OpenCV axes): a rotation and a position.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
        cells: [R, R, R] int32 codes of cells by x, y, z, see :data:`FIRST_ROW`.
        log_densities: [K, S, S, S] logarithm of the density at corners, by x, y, z, of the rows of cells. In a dynamic
            cell it is a lower limit, by which rays end.
        colors: [K', S, S, S, B, 3] uint8, B values q per channel at the corners of the rows of static cells, which come
            first.
        color_weights, color_offset: [B, 3], [3]: a color is offset + sum_b weights_b q_b.
        bound: half side of the grid's cube, world units, at most 1.
        aabb: [6] box of the scene, inside the cube: xmin, ymin, zmin, xmax, ymax, zmax. The lattice of samples begins
            where a ray enters it.
        blocks: [n, 3] int32, as :func:`occupied_blocks` returns them; no other block holds a cell that is not empty.
        max_steps: sets the shortest step, 2 sqrt(3) / max_steps, and the most samples of a ray.
        dt_gamma: growth of the step with distance.
        min_near: lower limit of the entry distance, at least 0.
        T_threshold: a ray ends once its transmittance must be below this.

    Returns:
        BakedSamples of the N = width x height rays, row by row.

    Static samples with less than 1 / 1024 of a ray's light are left out, and alpha has an error of up to 1e-5. Not
    differentiable. Deterministic. The call waits for the number of samples. Raises ValueError if an argument is not as
    above.
    """
    check = ArgumentCheck()
    check.tensor("pose", pose, (4, 4), FLOATS, differentiable=False)
    check.tensor("cells", cells, ("R", "R", "R"), torch.int32)
    for name, value, shape in (
        ("log_densities", log_densities, ("K", "S", "S", "S")),
        ("color_weights", color_weights, ("B", 3)),
        ("color_offset", color_offset, (3,)),
        ("aabb", aabb, (6,)),
    ):
        check.tensor(name, value, shape, pose.dtype, differentiable=False)
    check.tensor("blocks", blocks, ("n", 3), torch.int32)
    check.tensor("colors", colors, ("K'", "S", "S", "S", "B", 3), torch.uint8)
    expect(0 < bound <= 1, "bound", "a number above 0 and up to 1, for one cascade", bound, "pass the grid's half side")
    expect(log_densities.shape[1] >= 2, "log_densities", "at least 2 corners a side", log_densities.shape[1], "add one")
    expect(min_near >= 0, "min_near", "a distance of at least 0", min_near, "pass that of the nearest sample")
    max_steps = expect_integer("max_steps", max_steps, 1, None, "pass the number of steps through the cube")
    width, height = (expect_integer("size", n, 1, None, "pass width and height in pixels") for n in size)
    dt_max = 2 * math.sqrt(3) / cells.shape[0]
    steps = (float(dt_gamma), min(dt_max, 2 * math.sqrt(3) / max_steps), dt_max, float(min_near), float(T_threshold))
    values = (pose, cells, log_densities, colors, color_weights, color_offset, aabb, blocks)
    numbers = (*(float(value) for value in intrinsics), width, height, float(bound), *steps, max_steps)
    return BakedSamples(*_MARCH(*values, *numbers))


def composite_baked(
    values: Tensor,
    deltas: Tensor,
    packed_info: Tensor,
    before: Tensor,
    after: Tensor,
    ts: Tensor | None = None,
    T_threshold: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Blend dynamic samples and static runs front to back.

    Args:
        values: [4, M] density per world unit, >= 0, and color of the dynamic samples.
        deltas: [M] lengths of their steps, in the dtype of the values or float16.
        packed_info: [N, 2] int32, first sample of a ray and number of them.
        before: [N, 4] run before the first sample of a ray, in the dtype of deltas: color times opacity,
            transmittance; [N, 5] with depth behind them, if ts are given.
        after: [M, 4] or [M, 5] run after a sample.
        ts: [M] distances of the samples, in the dtype of the values; None to compute no depth.
        T_threshold: a ray ends once its transmittance is below this.

    Returns:
        color times opacity [N, 3], opacity [N], and [N] depth: the weighted sum of the distances to the ends of the
        steps, not normalized; None without ts. In the dtype of the values.

    Not differentiable. Deterministic. Raises ValueError if an argument is not as above.
    """
    n_numbers = _RUN - (ts is None)
    check = ArgumentCheck()
    check.tensor("values", values, (4, "M"), FLOATS, differentiable=False)
    check.tensor("deltas", deltas, ("M",), (values.dtype, torch.float16), differentiable=False)
    check.tensor("packed_info", packed_info, ("N", 2), torch.int32)
    check.tensor("before", before, ("N", n_numbers), deltas.dtype, differentiable=False)
    check.tensor("after", after, ("M", n_numbers), deltas.dtype, differentiable=False)
    if ts is not None:
        check.tensor("ts", ts, ("M",), values.dtype, differentiable=False)
    with_depth, ts = ts is not None, values if ts is None else ts
    rgb, opacity, depth = _COMPOSITE(values, ts, deltas, packed_info, before, after, with_depth, float(T_threshold))
    return rgb, opacity, depth if with_depth else None


def _march(
    pose: Tensor,
    cells: Tensor,
    log_densities: Tensor,
    colors: Tensor,
    color_weights: Tensor,
    color_offset: Tensor,
    aabb: Tensor,
    blocks: Tensor,
    *numbers: Any,
) -> tuple[Tensor, ...]:
    *intrinsics, width, height, bound, dt_gamma, dt_min, dt_max, min_near, T_threshold, max_samples = numbers
    growing = dt_gamma > 0 and dt_min < dt_max
    march = _march_kernel(pose.dtype, len(color_weights), log_densities.shape[1], growing, is_cuda())
    write = _write_kernel(pose.dtype, growing, is_cuda())
    camera = (*intrinsics, width)
    n_rays, steps = width * height, (dt_gamma, dt_min, dt_max)
    block_side = 2 * bound * BLOCK / len(cells)
    tiles = depths_of_tiles(pose, tuple(intrinsics), (width, height), blocks, block_side, bound)
    before = pose.new_empty(n_rays, _RUN)
    counts = torch.empty(n_rays, dtype=torch.int32, device=pose.device)
    parts = []
    n_found = 0
    begins = []
    for first in range(0, n_rays, _RAYS_PER_LAUNCH):
        n = min(_RAYS_PER_LAUNCH, n_rays - first)
        rows = slice(first, first + n)
        runs = pose.new_empty(n * (_RUN + max_samples * (1 + _RUN)))
        launch(
            march,
            *(pose, *camera, first, n),
            *(
                cells,
                log_densities,
                colors,
                color_weights,
                color_offset,
                aabb,
                table_of_alphas(pose.dtype, pose.device),
                tiles,
            ),
            *(len(cells), bound, *steps, min_near, T_threshold, max_samples),
            *(counts[rows], runs),
        )
        before[rows] = runs[: n * _RUN].view(n, _RUN)
        ends = counts[rows].cumsum(0, dtype=torch.int32)
        samples = _empty_samples(pose, int(ends[-1]))
        begin = ends - counts[rows]
        launch(
            write,
            *(pose, *camera, first, n, bound, *steps, max_samples, counts[rows], begin, runs, *samples),
        )
        begins.append(begin + n_found)
        n_found += len(samples[0])
        parts.append(samples)
    packed_info = torch.stack((torch.cat(begins), counts), 1)
    positions, directions, ts, deltas, after = (torch.cat(values) for values in zip(*parts, strict=True))
    return positions, directions, ts, deltas, packed_info, before, after


def _empty_samples(like: Tensor, n: int | torch.SymInt) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        *(like.new_empty(n, 3), like.new_empty(n, 3), like.new_empty(n), like.new_empty(n)),
        like.new_empty(n, _RUN),
    )


def _fake_march(pose: Tensor, *others: Any) -> tuple[Tensor, ...]:
    width, height = others[11:13]
    *samples, after = _empty_samples(pose, get_ctx().new_dynamic_size())
    info = pose.new_empty(width * height, 2, dtype=torch.int32)
    return *samples, info, pose.new_empty(width * height, _RUN), after


def _composite(
    values: Tensor,
    ts: Tensor,
    deltas: Tensor,
    packed_info: Tensor,
    before: Tensor,
    after: Tensor,
    with_depth: bool,
    T_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    results = _empty_rays(values, ts, deltas, packed_info, before, after, with_depth)
    kernel = _composite_kernel(values.dtype, deltas.dtype, with_depth, is_cuda())
    sizes = values.shape[1], len(packed_info)
    launch(kernel, values, ts, deltas, packed_info, before, after, *sizes, T_threshold, *results)
    return results


def _empty_rays(
    values: Tensor,
    ts: Tensor,
    deltas: Tensor,
    packed_info: Tensor,
    before: Tensor,
    after: Tensor,
    with_depth: bool,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    n = packed_info.shape[0]
    return values.new_empty(n, 3), values.new_empty(n), values.new_empty(n if with_depth else 0)


def _ray_functions(dtype: torch.dtype, growing: bool) -> tuple[Any, ...]:
    """Functions of both factories: step_length, origin_of, direction_of.

    Args:
        dtype: of the numbers.
        growing: whether the step grows with distance.
    """
    ti, real = taichi(), scalar(dtype)

    @ti.func
    def step_length(t, dt_gamma, dt_min, dt_max):
        # Where steps do not grow, the next point of the lattice does not wait for this.
        step = dt_min
        if ti.static(growing):
            step = ti.max(dt_min, ti.min(dt_max, t * dt_gamma))
        return step

    @ti.func
    def origin_of(pose: ti.template()):
        return ti.Vector([pose[3], pose[7], pose[11]])

    @ti.func
    def direction_of(pose: ti.template(), i, fx, fy, cx, cy, width):
        """Unit direction through the center of pixel i, as :func:`ernerf_ti.portrait.camera.pixel_rays`, and the
        distance along it per depth."""
        x = (ti.cast(i % width, real) + real(0.5) - cx) / fx
        y = (ti.cast(i // width, real) + real(0.5) - cy) / fy
        norm = ti.sqrt(x * x + y * y + real(1.0))
        x, y, z = x / norm, y / norm, real(1.0) / norm
        direction = ti.Vector(
            [
                pose[0] * x + pose[1] * y + pose[2] * z,
                pose[4] * x + pose[5] * y + pose[6] * z,
                pose[8] * x + pose[9] * y + pose[10] * z,
            ]
        )
        return direction, norm

    return step_length, origin_of, direction_of


@kernel_factory
def _march_kernel(dtype: torch.dtype, n_bases: int, n_corners: int, growing: bool, on_cuda: bool) -> Any:
    ti = taichi()
    real, Reals, Ints, Bytes = scalar(dtype), array(dtype), array(torch.int32), array(torch.uint8)
    step_length, origin_of, direction_of = _ray_functions(dtype, growing)
    enter_and_leave = slab_function(dtype)

    @ti.func
    def leave(t, target, dt_gamma, dt_min, dt_max):
        """The first point of the lattice from t on that is not before the target."""
        if t < target:
            if ti.static(growing):
                while t < target:
                    t += step_length(t, dt_gamma, dt_min, dt_max)
            else:
                t += ti.ceil((target - t) / dt_min) * dt_min
        return t

    @ti.func
    def write_run(runs: ti.template(), i, n_rays, max_samples, n, color, T, depth):
        """Write the run before dynamic sample n of ray i."""
        place = i * _RUN if n == 0 else n_rays * _RUN + (i * max_samples + n - 1) * (1 + _RUN) + 1
        for d in ti.static(range(3)):
            runs[place + d] = color[d]
        runs[place + 3] = T
        runs[place + 4] = depth

    @parallel_kernel(on_cuda)
    def march(
        # camera
        pose: Reals,  # [4, 4]
        fx: real,
        fy: real,
        cx: real,
        cy: real,
        width: ti.i32,
        first: ti.i32,  # pixel of the first ray
        n_rays: ti.i32,
        # grid
        cells: Ints,  # [R, R, R]
        log_densities: Reals,  # [K, S, S, S]
        colors: Bytes,  # [K', S, S, S, B, 3]
        color_weights: Reals,  # [B, 3]
        color_offset: Reals,  # [3]
        aabb: Reals,  # [6]
        alphas: Reals,  # see table_of_alphas
        tiles: Reals,  # [tiles, 2], see depths_of_tiles
        resolution: ti.i32,
        bound: real,
        # steps
        dt_gamma: real,
        dt_min: real,
        dt_max: real,
        min_near: real,
        T_threshold: real,
        max_samples: ti.i32,
        # results
        counts: Ints,  # [N] dynamic samples
        # One array, as the driver launches no code that selects one: [N, 5] runs before all, then [N, max_samples, 6]
        # distances of dynamic samples and runs after them.
        runs: Reals,
    ):
        for i in range(n_rays):
            pixel = first + i
            tile = 2 * (pixel // width // TILE * ((width + TILE - 1) // TILE) + pixel % width // TILE)
            color, T, depth = ti.Vector([real(0.0), real(0.0), real(0.0)]), real(1.0), real(0.0)
            n_dynamic = 0
            if tiles[tile] < real(NOTHING):
                direction, distance_per_depth = direction_of(pose, pixel, fx, fy, cx, cy, width)
                origin = origin_of(pose)
                scene = enter_and_leave(origin, direction, aabb, 0)
                far = ti.min(scene[1], -tiles[tile + 1] * distance_per_depth)
                # The lattice begins at the scene's box, and holds no sample before the tile's nearest block.
                t = ti.max(scene[0], min_near)
                t = leave(t, ti.min(tiles[tile] * distance_per_depth, far), dt_gamma, dt_min, dt_max)
                log_step = ti.log(dt_min)
                bound_T = real(1.0)  # at least the transmittance so far
                count = 0
                places_per_unit = real(0.5) * ti.cast(resolution, real) / bound
                first_place, places_per_t = (origin + bound) * places_per_unit, direction * places_per_unit
                cell_side = real(1.0) / places_per_unit
                while t < far and count < max_samples and bound_T >= T_threshold:
                    dt = step_length(t, dt_gamma, dt_min, dt_max)
                    if t + dt == t:  # too far away for this step
                        break
                    places = ti.max(real(0.0), first_place + t * places_per_t)
                    cell = ti.min(ti.cast(places, ti.i32), resolution - 1)
                    code = cells[(cell[0] * resolution + cell[1]) * resolution + cell[2]]
                    if code > EMPTY:
                        count += 1
                    if code < EMPTY:
                        # The step below is the last one of these.
                        t = leave(t, ti.min(t - ti.cast(code, real) * cell_side, far) - dt, dt_gamma, dt_min, dt_max)
                        dt = step_length(t, dt_gamma, dt_min, dt_max)
                    if code >= UNKNOWN:
                        alpha = real(0.0)
                        place = 0
                        w = ti.Vector.zero(real, 8)
                        if code >= FIRST_ROW:
                            inner = (places - ti.cast(cell, real)) * ti.cast(n_corners - 1, real)
                            corner = ti.min(ti.cast(inner, ti.i32), n_corners - 2)
                            b, row = inner - ti.cast(corner, real), (code - FIRST_ROW) >> 1
                            a = real(1.0) - b
                            place = ((row * n_corners + corner[0]) * n_corners + corner[1]) * n_corners + corner[2]
                            yz = ti.Vector([a[1] * a[2], a[1] * b[2], b[1] * a[2], b[1] * b[2]])
                            value = real(0.0)
                            for k in ti.static(range(8)):
                                w[k] = yz[k & 3] * (b[0] if k >> 2 else a[0])
                                at = place + ((k >> 2) * n_corners + (k >> 1 & 1)) * n_corners + (k & 1)
                                value += w[k] * log_densities[at]
                            if ti.static(growing):
                                log_step = ti.log(dt)
                            x = (value + log_step - real(FIRST)) * real(float(PER_UNIT))
                            x = ti.max(real(0.0), ti.min(real(N_INTERVALS - 0.5), x))
                            interval = 2 * ti.cast(x, ti.i32)
                            alpha = alphas[interval] + x * alphas[interval + 1]
                        if (code - FIRST_ROW) & 1 == 0:
                            if alpha * bound_T > real(_INVISIBLE):
                                q = ti.Matrix.zero(real, n_bases, 3)
                                for k in ti.static(range(8)):
                                    at = place + ((k >> 2) * n_corners + (k >> 1 & 1)) * n_corners + (k & 1)
                                    for j in ti.static(range(n_bases)):
                                        for d in ti.static(range(3)):
                                            q[j, d] += w[k] * ti.cast(colors[at * (3 * n_bases) + 3 * j + d], real)
                                for d in ti.static(range(3)):
                                    value = color_offset[d]
                                    for j in ti.static(range(n_bases)):
                                        value += color_weights[3 * j + d] * q[j, d]
                                    color[d] += T * alpha * value
                                depth += T * alpha * (t + dt)
                                T *= real(1.0) - alpha
                                bound_T *= real(1.0) - alpha
                        else:
                            write_run(runs, i, n_rays, max_samples, n_dynamic, color, T, depth)
                            runs[n_rays * _RUN + (i * max_samples + n_dynamic) * (1 + _RUN)] = t
                            n_dynamic += 1
                            color, T, depth = ti.Vector([real(0.0), real(0.0), real(0.0)]), real(1.0), real(0.0)
                            bound_T *= real(1.0) - alpha
                    t += dt
            write_run(runs, i, n_rays, max_samples, n_dynamic, color, T, depth)
            counts[i] = n_dynamic

    return march


@kernel_factory
def _write_kernel(dtype: torch.dtype, growing: bool, on_cuda: bool) -> Any:
    # Not made by the factory above: Taichi would compile the same code once for all numbers of bases, and the launcher
    # would find none of the others.
    ti = taichi()
    real, Reals, Ints = scalar(dtype), array(dtype), array(torch.int32)
    step_length, origin_of, direction_of = _ray_functions(dtype, growing)

    @parallel_kernel(on_cuda)
    def write(
        # camera
        pose: Reals,  # [4, 4]
        fx: real,
        fy: real,
        cx: real,
        cy: real,
        width: ti.i32,
        first: ti.i32,
        n_rays: ti.i32,
        # steps
        bound: real,
        dt_gamma: real,
        dt_min: real,
        dt_max: real,
        max_samples: ti.i32,
        counts: Ints,  # [N]
        begins: Ints,  # [N]
        runs: Reals,  # of the march
        # results
        positions: Reals,  # [M, 3]
        directions: Reals,  # [M, 3]
        ts: Reals,  # [M]
        deltas: Reals,  # [M]
        after: Reals,  # [M, 5]
    ):
        for i in range(n_rays):
            if counts[i] > 0:
                direction, _ = direction_of(pose, first + i, fx, fy, cx, cy, width)
                origin = origin_of(pose)
                for k in range(counts[i]):
                    j, place = begins[i] + k, n_rays * _RUN + (i * max_samples + k) * (1 + _RUN)
                    t = runs[place]
                    point = ti.max(-bound, ti.min(bound, origin + t * direction))
                    for d in ti.static(range(3)):
                        positions[3 * j + d] = point[d]
                        directions[3 * j + d] = direction[d]
                    ts[j] = t
                    deltas[j] = step_length(t, dt_gamma, dt_min, dt_max)
                    for d in ti.static(range(_RUN)):
                        after[_RUN * j + d] = runs[place + 1 + d]

    return write


@kernel_factory
def _composite_kernel(dtype: torch.dtype, runs_dtype: torch.dtype, with_depth: bool, on_cuda: bool) -> Any:
    ti = taichi()
    real, Reals, Runs, Ints = scalar(dtype), array(dtype), array(runs_dtype), array(torch.int32)
    W = _RUN if with_depth else _RUN - 1

    @parallel_kernel(on_cuda)
    def composite(
        values: Reals,  # [4, M]
        ts: Reals,  # [M], read with depth alone
        deltas: Runs,  # [M]
        packed_info: Ints,  # [N, 2]
        before: Runs,  # [N, W]
        after: Runs,  # [M, W]
        n_samples: ti.i32,
        n_rays: ti.i32,
        T_threshold: real,
        # results
        rgb: Reals,  # [N, 3]
        opacity: Reals,  # [N]
        depth: Reals,  # [N], written with depth alone
    ):
        for i in range(n_rays):
            color, T, distance = (
                ti.Vector([real(0.0), real(0.0), real(0.0)]),
                ti.cast(before[W * i + 3], real),
                real(0.0),
            )
            for d in ti.static(range(3)):
                color[d] = ti.cast(before[W * i + d], real)
            if ti.static(with_depth):
                distance = ti.cast(before[W * i + 4], real)
            j, end = packed_info[2 * i], packed_info[2 * i] + packed_info[2 * i + 1]
            while j < end and T >= T_threshold:
                delta = ti.cast(deltas[j], real)
                alpha = real(1.0) - ti.exp(-values[j] * delta)
                rest = T * (real(1.0) - alpha)
                for d in ti.static(range(3)):
                    color[d] += T * alpha * values[(1 + d) * n_samples + j] + rest * ti.cast(after[W * j + d], real)
                if ti.static(with_depth):
                    distance += T * alpha * (ts[j] + delta) + rest * ti.cast(after[W * j + 4], real)
                T = rest * ti.cast(after[W * j + 3], real)
                j += 1
            for d in ti.static(range(3)):
                rgb[3 * i + d] = color[d]
            opacity[i] = real(1.0) - T
            if ti.static(with_depth):
                depth[i] = distance

    return composite


_MARCH = Operator(
    "march_baked_grid(Tensor pose, Tensor cells, Tensor log_densities, Tensor colors, Tensor color_weights, "
    "Tensor color_offset, Tensor aabb, Tensor blocks, float fx, float fy, float cx, float cy, int width, int height, "
    "float bound, float dt_gamma, float dt_min, float dt_max, float min_near, float T_threshold, int max_samples)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _march,
    _fake_march,
)
_COMPOSITE = Operator(
    "composite_baked(Tensor values, Tensor ts, Tensor deltas, Tensor packed_info, Tensor before, Tensor after, "
    "bool with_depth, float T_threshold) -> (Tensor, Tensor, Tensor)",
    _composite,
    _empty_rays,
    half_allowed=("deltas", "before", "after"),
)
