"""Rays in passes: take a few samples of each ray, blend them, go on with the rays that are still transparent.

Between taking and blending the caller evaluates a field at the samples. Rays that have become opaque take no further
samples, so that nothing behind a surface is looked up or evaluated:

    march, sums = RayMarch(rays_o, rays_d, ...), RaySums.begin(rays_o)
    rays = torch.arange(len(rays_o), dtype=torch.int32)
    while len(rays):
        samples = march.take(rays, 2)
        rays = rays[blend_samples_(sums, field(samples.positions, samples.directions), samples)]

The samples are those of :func:`taichi_kernels.march_rays`, and the sums are those of :func:`taichi_kernels.composite`.
Without gradients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, expect_integer
from taichi_kernels.lattice import Lattice, lattice_functions, make_lattice
from taichi_kernels.operators import Operator, was_written
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ray_aabb import PARALLEL, box_numbers, slab_function
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi

_N_COLORS = 3
_DEPTH, _OPACITY, _TRANSMITTANCE, _N_SUMS = 3, 4, 5, 6  # columns of the sums; plain sums follow
_MARGIN = 1e-5  # of the bound


class PassSamples(NamedTuple):
    """The next samples of n rays, M in all, ray after ray."""

    positions: Tensor
    """[M, 3] world units; the memory is channel-major."""
    directions: Tensor
    """[M, 3] of the sample's ray."""
    rays: Tensor
    """[n] int32 numbers of the rays."""
    begins: Tensor
    """[n] int32, first sample of each ray."""
    counts: Tensor
    """[n] int32, samples of each ray."""
    ts: Tensor
    """[n, most] distances to the samples; 0 from a ray's count on."""
    step: tuple[float, float, float]
    """dt_gamma, dt_min, dt_max of the lattice."""


class RaySums(NamedTuple):
    """Sums over the samples of N rays so far."""

    rows: Tensor
    """[N, 6 + K] weighted color and distance, opacity, transmittance, K plain sums."""

    @staticmethod
    def begin(rays_o: Tensor, n_plain: int = 0) -> "RaySums":
        """The sums of N rays before their first samples, for K = n_plain plain channels."""
        rows = rays_o.new_zeros(len(rays_o), _N_SUMS + n_plain)
        rows[:, _TRANSMITTANCE] = 1
        return RaySums(rows)

    @property
    def rgb(self) -> Tensor:
        """[N, 3] weighted sum of the colors."""
        return self.rows[:, :_N_COLORS]

    @property
    def depth(self) -> Tensor:
        """[N] weighted sum of the distances to the ends of the steps."""
        return self.rows[:, _DEPTH]

    @property
    def opacity(self) -> Tensor:
        """[N] sum of the weights."""
        return self.rows[:, _OPACITY]

    @property
    def summed(self) -> Tensor:
        """[N, K] plain sums over the samples that a ray visits."""
        return self.rows[:, _N_SUMS:]


class RayMarch:
    """Rays on their way through the occupied cells of a grid.

    They have the samples of :func:`march_rays` from where :func:`intersect_aabb` says that a ray enters `aabb` to where
    it leaves both `aabb` and `occupied_box`.

    Args:
        rays_o, rays_d: [N, 3] float32 or float64, origins and unit directions, world units.
        aabb: xmin, ymin, zmin, xmax, ymax, zmax of the scene.
        occupied_box: [6] a box around all occupied cells, of the same dtype.
        blocks: [C R^3] uint8 as of :func:`taichi_kernels.empty_blocks`.
        bound, dt_gamma: as of :func:`march_rays`.
        max_steps: as of :func:`march_rays`; a ray also stops after this many samples.
        min_near: nothing closer to the origin is a sample.

    Raises ValueError if an argument is not as above, or requires a gradient.
    """

    def __init__(
        self,
        # rays
        rays_o: Tensor,
        rays_d: Tensor,
        # grid
        aabb: Sequence[float],
        occupied_box: Tensor,
        blocks: Tensor,
        bound: float = 1.0,
        # steps
        max_steps: int = 1024,
        dt_gamma: float = 0.0,
        min_near: float = 0.05,
    ):
        check = ArgumentCheck()
        check.tensor("rays_o", rays_o, ("N", 3), FLOATS, differentiable=False)
        check.tensor("rays_d", rays_d, ("N", 3), rays_o.dtype, differentiable=False)
        check.tensor("occupied_box", occupied_box, (6,), rays_o.dtype, differentiable=False)
        check.tensor("blocks", blocks, ("C R^3",), torch.uint8)
        self._lattice = make_lattice(blocks.shape[0], bound, max_steps, None, dt_gamma, "blocks")
        self._rays, self._blocks, self._min_near = (rays_o, rays_d), blocks, float(min_near)
        self._boxes = torch.cat((occupied_box.new_tensor(box_numbers(aabb)), occupied_box))
        self._reached = rays_o.new_empty(len(rays_o), 2)  # next lattice point and end, from the first pass on
        self._n_taken = 0

    @torch.no_grad()
    def take(self, rays: Tensor, most: int) -> PassSamples:
        """The next samples of some rays.

        Args:
            rays: [n] int32, numbers of rays from 0 to N - 1 in any order, each at most once: in the first call all that
                will ever be taken, later some of those that had `most` samples in the call before. Other numbers have
                no samples.
            most: largest number of samples of a ray, at least 1.

        Deterministic. Raises ValueError if an argument is not as above.
        """
        check = ArgumentCheck()
        check.tensor("rays", rays, ("n",), torch.int32)
        most = expect_integer("most", most, 1, None, "pass the samples of a ray in this pass")
        most = min(most, self._lattice.max_samples - self._n_taken)
        ts, counts = _FIND(
            *(self._reached, *self._rays, self._boxes, self._blocks, rays, most, self._n_taken == 0, self._min_near),
            *self._lattice,
        )
        self._n_taken += most
        ends = counts.cumsum(0, dtype=torch.int32)
        n_samples = int(ends[-1]) if len(ends) else 0
        begins = ends - counts
        positions, directions = _LOCATE(*self._rays, ts, rays, begins, counts, n_samples, self._lattice.bound)
        return PassSamples(positions, directions, rays, begins, counts, ts, self._lattice.step)


def blend_samples_(sums: RaySums, values: Tensor, samples: PassSamples, T_threshold: float = 1e-4) -> Tensor:
    """Add samples to the sums of their rays, in place.

    Args:
        sums: of all N rays, modified.
        values: [4 + K, M] density per world unit, color, and K plain channels of the samples.
        samples: as of :meth:`RayMarch.take`.
        T_threshold: a ray ends after the first sample that takes its transmittance below this.

    Returns:
        [n] bool, true for rays that have not ended, and may have further samples.

    Deterministic. Raises ValueError if an argument is not as above, or requires a gradient.
    """
    check = ArgumentCheck()
    check.tensor("values", values, ("4 + K", "M"), FLOATS, differentiable=False)
    n_sums = values.shape[0] - 1 - _N_COLORS + _N_SUMS
    check.tensor("sums.rows", sums.rows, ("N", n_sums), values.dtype, differentiable=False)
    check.tensor("samples.directions", samples.directions, ("M", 3), values.dtype)
    goes_on: Tensor = _BLEND(
        *(sums.rows, values, samples.ts, samples.rays, samples.begins, samples.counts, float(T_threshold)),
        *samples.step,
    )
    return goes_on.bool()


def _find(
    reached: Tensor,
    rays_o: Tensor,
    rays_d: Tensor,
    boxes: Tensor,
    blocks: Tensor,
    rays: Tensor,
    most: int,
    is_first: bool,
    min_near: float,
    *numbers: Any,
) -> tuple[Tensor, Tensor]:
    lattice, found = Lattice(*numbers), (rays_o.new_zeros(len(rays), most), torch.empty_like(rays))
    launch(
        _kernels(rays_o.dtype, 0, is_cuda()).find,
        *(rays_o, rays_d, boxes, blocks, rays, len(rays), len(rays_o), most, int(is_first), min_near),
        *(lattice.resolution, lattice.n_cascades, lattice.bound, *lattice.step),
        *(reached, *found),
    )
    was_written(reached)
    return found


def _locate(
    rays_o: Tensor,
    rays_d: Tensor,
    ts: Tensor,
    rays: Tensor,
    begins: Tensor,
    counts: Tensor,
    n_samples: int,
    bound: float,
) -> tuple[Tensor, Tensor]:
    positions, directions = rays_o.new_empty(3, n_samples), rays_o.new_empty(n_samples, 3)
    launch(
        _kernels(rays_o.dtype, 0, is_cuda()).locate,
        *(rays_o, rays_d, ts, rays, begins, counts, len(rays), n_samples, ts.shape[1], bound),
        *(positions, directions),
    )
    return positions.t(), directions


def _blend(
    rows: Tensor,
    values: Tensor,
    ts: Tensor,
    rays: Tensor,
    begins: Tensor,
    counts: Tensor,
    T_threshold: float,
    *step: float,
) -> Tensor:
    goes_on = torch.empty_like(rays)
    launch(
        _kernels(rows.dtype, rows.shape[1] - _N_SUMS, is_cuda()).blend,
        *(values, ts, rays, begins, counts, len(rays), len(rows), values.shape[1], ts.shape[1], T_threshold, *step),
        *(rows, goes_on),
    )
    was_written(rows)
    return goes_on


class _Kernels(NamedTuple):
    find: Any
    locate: Any
    blend: Any


@kernel_factory
def _kernels(dtype: torch.dtype, n_plain: int, on_cuda: bool) -> _Kernels:
    ti = taichi()
    real, Reals, Ints, Bytes = scalar(dtype), array(dtype), array(torch.int32), array(torch.uint8)
    step_length, row, clip, has_length, cell_at, _ = lattice_functions(dtype)
    enter_and_leave = slab_function(dtype)
    COLORS, DEPTH, OPACITY, TRANSMITTANCE, PLAIN = _N_COLORS, _DEPTH, _OPACITY, _TRANSMITTANCE, _N_SUMS
    K, LARGEST, MARGIN = n_plain, torch.finfo(dtype).max, _MARGIN

    @ti.func
    def empty_distance(blocks: ti.template(), point, direction, inverse, dt, resolution, n_cascades, bound):
        """-1 in an occupied cell, else how far along the ray the cells are known to be empty."""
        cascade, half_side, cells = 0, ti.min(real(1.0), bound), ti.cast(resolution, real)
        places = (point * (real(1.0) / half_side) + real(1.0)) * (real(0.5) * cells)
        cell = ti.cast(ti.max(real(0.0), ti.min(cells - real(1.0), places)), ti.i32)
        if n_cascades > 1:
            cell, cascade, half_side = cell_at(point, dt, resolution, n_cascades, bound)
        index = ((cascade * resolution + cell[0]) * resolution + cell[1]) * resolution + cell[2]
        level = ti.cast(blocks[index], ti.i32)
        distance = real(-1.0)
        if level > 0:
            distance = real(LARGEST)
            cell_side = real(2.0) * half_side / ti.cast(resolution, real)
            for d in ti.static(range(3)):
                face = ((cell[d] >> (level - 1)) + (1 if direction[d] > 0 else 0)) << (level - 1)
                if ti.abs(direction[d]) > real(PARALLEL):
                    to_face = (ti.cast(face, real) * cell_side - half_side - point[d]) * inverse[d]
                    distance = ti.min(distance, to_face)
            # Rounding must not carry the ray past the first point of the next cell.
            distance = ti.max(distance - real(MARGIN) * bound, real(0.0))
        return distance

    @parallel_kernel(on_cuda)
    def find(
        # rays
        rays_o: Reals,  # [N, 3]
        rays_d: Reals,  # [N, 3]
        # grid
        boxes: Reals,  # [12], the scene's and that of the occupied cells
        blocks: Bytes,  # [C R^3]
        # this pass
        rays: Ints,  # [n]
        n: ti.i32,
        n_rays: ti.i32,
        most: ti.i32,
        is_first: ti.i32,
        min_near: real,
        # grid and steps
        resolution: ti.i32,
        n_cascades: ti.i32,
        bound: real,
        dt_gamma: real,
        dt_min: real,
        dt_max: real,
        # results
        reached: Reals,  # [N, 2]
        ts: Reals,  # [n, most]
        counts: Ints,  # [n]
    ):
        for a in range(n):
            i, count = rays[a], 0
            t, far, t_empty = real(0.0), real(-LARGEST), real(0.0)  # no cell is occupied before t_empty
            origin, direction = ti.Vector.zero(real, 3), ti.Vector.zero(real, 3)
            is_ray = 0 <= i and i < n_rays
            if is_ray:
                origin, direction = row(rays_o, i), row(rays_d, i)
                if is_first == 0:
                    t, far = reached[2 * i], reached[2 * i + 1]
                    t_empty = t
                elif has_length(direction):
                    occupied = enter_and_leave(origin, direction, boxes, 6)
                    t_empty = ti.max(occupied[0], min_near)
                    if t_empty < occupied[1]:
                        scene = enter_and_leave(origin, direction, boxes, 0)
                        t, far = ti.max(scene[0], min_near), ti.min(scene[1], occupied[1])
            inverse = real(1.0) / direction
            while t < far and count < most:
                dt = step_length(t, dt_gamma, dt_min, dt_max)
                if t + dt == t:  # too far away for this step
                    far = t
                elif t < t_empty:
                    t += dt
                    if dt_min == dt_max:
                        # Most points are skipped; here a step waits for nothing but the step before.
                        stop = ti.min(t_empty, far)
                        while t < stop and t + dt > t:
                            t += dt
                else:
                    point = clip(origin + t * direction, bound)
                    distance = empty_distance(blocks, point, direction, inverse, dt, resolution, n_cascades, bound)
                    if distance < 0:
                        ts[a * most + count] = t
                        count += 1
                    else:
                        t_empty = t + distance
                    t += dt
            if is_ray:
                reached[2 * i], reached[2 * i + 1] = t, far
            counts[a] = count

    @parallel_kernel(on_cuda)
    def locate(
        rays_o: Reals,  # [N, 3]
        rays_d: Reals,  # [N, 3]
        ts: Reals,  # [n, most]
        rays: Ints,  # [n]
        begins: Ints,  # [n]
        counts: Ints,  # [n]
        n: ti.i32,
        M: ti.i32,
        most: ti.i32,
        bound: real,
        # results
        positions: Reals,  # [3, M]
        directions: Reals,  # [M, 3]
    ):
        for a in range(n):
            if counts[a] > 0:
                origin, direction = row(rays_o, rays[a]), row(rays_d, rays[a])
                for k in range(counts[a]):
                    j = begins[a] + k
                    point = clip(origin + ts[a * most + k] * direction, bound)
                    for d in ti.static(range(3)):
                        positions[M * d + j] = point[d]
                        directions[3 * j + d] = direction[d]

    @parallel_kernel(on_cuda)
    def blend(
        values: Reals,  # [4 + K, M]
        ts: Reals,  # [n, most]
        rays: Ints,  # [n]
        begins: Ints,  # [n]
        counts: Ints,  # [n]
        n: ti.i32,
        n_rays: ti.i32,
        M: ti.i32,
        most: ti.i32,
        T_threshold: real,
        dt_gamma: real,
        dt_min: real,
        dt_max: real,
        # results
        rows: Reals,  # [N, 6 + K]
        goes_on: Ints,  # [n]
    ):
        for a in range(n):
            count, begin = counts[a], rays[a] * (PLAIN + K)
            is_open = 1
            if not (0 <= rays[a] and rays[a] < n_rays):
                count = 0
            if count > 0:
                sums = ti.Vector.zero(real, PLAIN + K)
                for c in ti.static(range(PLAIN + K)):
                    sums[c] = rows[begin + c]
                for k in range(count):
                    if is_open == 1:
                        t, j = ts[a * most + k], begins[a] + k
                        dt = step_length(t, dt_gamma, dt_min, dt_max)
                        transparency = ti.exp(-values[j] * dt)
                        weight = sums[TRANSMITTANCE] * (real(1.0) - transparency)
                        for c in ti.static(range(COLORS)):
                            sums[c] += weight * values[(1 + c) * M + j]
                        sums[DEPTH] += weight * (t + dt)
                        sums[OPACITY] += weight
                        for c in ti.static(range(K)):
                            sums[PLAIN + c] += values[(1 + COLORS + c) * M + j]
                        sums[TRANSMITTANCE] *= transparency
                        if sums[TRANSMITTANCE] < T_threshold:
                            is_open = 0
                for c in ti.static(range(PLAIN + K)):
                    rows[begin + c] = sums[c]
            goes_on[a] = 1 if is_open == 1 and count == most and count > 0 else 0

    return _Kernels(find, locate, blend)


_FIND = Operator(
    "find_samples_(Tensor(a!) reached, Tensor rays_o, Tensor rays_d, Tensor boxes, Tensor blocks, Tensor rays, "
    "int most, bool is_first, float min_near, float bound, int resolution, int n_cascades, float dt_gamma, "
    "float dt_min, float dt_max, int max_samples) -> (Tensor, Tensor)",
    _find,
    lambda reached, rays_o, rays_d, boxes, blocks, rays, most, *others: (
        rays_o.new_empty(rays.shape[0], most),
        torch.empty_like(rays),
    ),
)
_LOCATE = Operator(
    "locate_samples(Tensor rays_o, Tensor rays_d, Tensor ts, Tensor rays, Tensor begins, Tensor counts, "
    "int n_samples, float bound) -> (Tensor, Tensor)",
    _locate,
    lambda rays_o, rays_d, ts, rays, begins, counts, n_samples, *others: (
        rays_o.new_empty(3, n_samples).t(),
        rays_o.new_empty(n_samples, 3),
    ),
)
_BLEND = Operator(
    "blend_samples_(Tensor(a!) rows, Tensor values, Tensor ts, Tensor rays, Tensor begins, Tensor counts, "
    "float T_threshold, float dt_gamma, float dt_min, float dt_max) -> Tensor",
    _blend,
    lambda rows, values, ts, rays, *others: torch.empty_like(rays),
)
