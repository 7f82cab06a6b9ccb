"""Ray marching: samples along rays, inside the occupied cells of an occupancy grid.

A ray is stepped on a lattice (:mod:`taichi_kernels.lattice`). A lattice point in an occupied cell is a sample; in an
empty cell all points up to the cell's far face are skipped without a look-up.
                                                     [Instant-NGP, Mueller et al. 2022, appendix E]

Two passes make the allocation exact and the order that of the rays: the first walks the grid and notes
each hit as a bit, the second only replays the lattice and expands the bits.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, dense, expect_integer
from taichi_kernels.lattice import Lattice, lattice_functions, make_lattice
from taichi_kernels.operators import Operator, not_differentiable
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ray_aabb import PARALLEL
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi


class RaySamples(NamedTuple):
    """M samples on N rays, ray after ray. With a capacity the last rows may be zeros, which belong to no ray."""

    positions: Tensor
    """[M, 3] world units, in [-bound, bound]."""
    directions: Tensor
    """[M, 3] of the sample's ray."""
    ts: Tensor
    """[M] distance from the ray's origin to the sample, which is the start of its step."""
    deltas: Tensor
    """[M] length of the step."""
    packed_info: Tensor
    """[N, 2] int32, first sample and number of samples; row i is ray i."""
    n_found: Tensor
    """[] int64, samples of all rays, had there been room for them: M without a capacity."""


def march_rays(
    # rays
    rays_o: Tensor,
    rays_d: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    # grid
    bitfield: Tensor,
    bound: float = 1.0,
    # steps
    max_steps: int = 1024,
    max_samples: int | None = None,
    dt_gamma: float = 0.0,
    noise: Tensor | None = None,
    capacity: int | None = None,
) -> RaySamples:
    """Samples of rays in the occupied cells of a grid.

    Args:
        rays_o: [N, 3] float32 or float64, origins in world units.
        rays_d: [N, 3] of the same dtype, unit directions. Along those shorter than .001 there are no samples.
        t_near, t_far: [N] where the lattice starts and stops, as :func:`taichi_kernels.intersect_aabb`
            returns them. t_near >= t_far gives no samples, nor does what lies outside [-bound, bound]^3.
        bitfield: [C R^3 / 8] uint8, see :func:`taichi_kernels.pack_bits`; C = 1 + ceil(log2(bound))
            cascades for a bound over 1, else 1.
        bound: half side of the cube, world units.
        max_steps: sets the shortest step, 2 sqrt(3) / max_steps.
        max_samples: a ray stops after this many samples; max_steps if None.
        dt_gamma: growth of the step with distance, 0 for constant steps.
        noise: [N] in [0, 1), moves the start of a ray by that part of its first step.
        capacity: M, the rows of the results; None for exactly the samples found.

    Returns:
        RaySamples. With a capacity, rays get their samples in order while there is room for all of them: a ray whose
        samples would end past the capacity has none, and neither has any ray after it. Rows beyond the last sample are
        zeros. n_found > capacity if samples were left out.

    Positions and directions are differentiable once in rays_o and rays_d, with the distances ts held
    fixed; t_near, t_far and noise are not differentiable. Deterministic. Without a capacity the call waits for
    the number of samples on CUDA; with one it waits for nothing. Raises ValueError if an argument is not as above, and
    RuntimeError for a second derivative.

    Without a capacity the number of samples is a symbolic size under `torch.compile`, which Dynamo traces without a
    graph break if `torch._dynamo.config.capture_dynamic_output_shape_ops` is set, and meta tensors can't say how many
    samples there are: use FakeTensor.
    """
    rays_o, rays_d = cast_under_autocast(rays_o), cast_under_autocast(rays_d)
    t_near, t_far = cast_under_autocast(t_near), cast_under_autocast(t_far)
    check = ArgumentCheck()
    check.tensor("rays_o", rays_o, ("N", 3), FLOATS)
    check.tensor("rays_d", rays_d, ("N", 3), rays_o.dtype)
    check.tensor("t_near", t_near, ("N",), rays_o.dtype, differentiable=False)
    check.tensor("t_far", t_far, ("N",), rays_o.dtype, differentiable=False)
    check.tensor("bitfield", bitfield, ("C R^3 / 8",), torch.uint8)
    if noise is None:
        noise = torch.zeros_like(t_near)
    noise = cast_under_autocast(noise)
    check.tensor("noise", noise, ("N",), rays_o.dtype, differentiable=False)
    if capacity is not None:
        capacity = expect_integer("capacity", capacity, 0, None, "pass None for exactly the samples found")
    lattice = make_lattice(8 * bitfield.shape[0], bound, max_steps, max_samples, dt_gamma)
    return RaySamples(*_MARCH_RAYS(rays_o, rays_d, t_near, t_far, noise, bitfield, capacity, *lattice))


def _march(
    rays_o: Tensor,
    rays_d: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    noise: Tensor,
    bitfield: Tensor,
    capacity: int | None,
    *numbers: Any,
) -> tuple[Tensor, ...]:
    lattice = Lattice(*numbers)
    n_rays, n_words = len(rays_o), lattice.n_words
    kernels = _kernels(rays_o.dtype, is_cuda())
    hits = torch.empty(n_rays, n_words, dtype=torch.int32, device=rays_o.device)
    counts = torch.empty(n_rays, dtype=torch.int32, device=rays_o.device)
    first_ts = torch.empty_like(t_near)
    launch(
        kernels.find,
        *(rays_o, rays_d, t_near, t_far, noise, bitfield),
        *(n_rays, lattice.resolution, lattice.n_cascades, lattice.bound, *lattice.step),
        *(lattice.max_samples, n_words),
        *(hits, counts, first_ts),
    )
    ends = torch.cumsum(counts, 0)
    n_found = counts.sum()
    begins = ends - counts
    # Without a capacity this waits for the GPU: the price of exact allocation.
    samples = _empty_samples(rays_o, int(n_found) if capacity is None else capacity)
    if capacity is not None:
        for rows in samples:
            rows.zero_()
        counts = torch.where(ends <= capacity, counts, 0)
        begins = begins.clamp(max=capacity)
    packed_info = torch.stack((begins, counts), 1).to(torch.int32)
    launch(
        kernels.write,
        *(rays_o, rays_d, hits, first_ts, packed_info),
        *(n_rays, n_words, lattice.bound, *lattice.step),
        *samples,
    )
    return *samples, packed_info, n_found


def _empty_samples(rays_o: Tensor, n: int | torch.SymInt) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return rays_o.new_empty(n, 3), rays_o.new_empty(n, 3), rays_o.new_empty(n), rays_o.new_empty(n)


def _fake_march(
    rays_o: Tensor,
    rays_d: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    noise: Tensor,
    bitfield: Tensor,
    capacity: int | None,
    *numbers: Any,
) -> tuple[Tensor, ...]:
    n_samples = torch.library.get_ctx().new_dynamic_size() if capacity is None else capacity
    packed_info = rays_o.new_empty(rays_o.shape[0], 2, dtype=torch.int32)
    return *_empty_samples(rays_o, n_samples), packed_info, rays_o.new_empty((), dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ts, deltas, packed_info, n_found = output[2:]
    ctx.mark_non_differentiable(ts, deltas, packed_info, n_found)
    ctx.save_for_backward(ts, packed_info)


def _backward(ctx: Any, grad_positions: Tensor, grad_directions: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    grads = _MARCH_RAYS_BACKWARD(grad_positions, grad_directions, *ctx.saved_tensors)
    return *grads, *[None] * (5 + len(Lattice._fields))


def _gradient(
    grad_positions: Tensor, grad_directions: Tensor, ts: Tensor, packed_info: Tensor
) -> tuple[Tensor, Tensor]:
    grads = _empty_gradient(grad_positions, grad_directions, ts, packed_info)
    upstream = dense(grad_positions), dense(grad_directions)
    launch(_kernels(ts.dtype, is_cuda()).gradient, *upstream, ts, packed_info, len(packed_info), *grads)
    return grads


def _empty_gradient(
    grad_positions: Tensor, grad_directions: Tensor, ts: Tensor, packed_info: Tensor
) -> tuple[Tensor, Tensor]:
    return ts.new_empty(packed_info.shape[0], 3), ts.new_empty(packed_info.shape[0], 3)


class _Kernels(NamedTuple):
    find: Any
    write: Any
    gradient: Any


@kernel_factory
def _kernels(dtype: torch.dtype, on_cuda: bool) -> _Kernels:
    ti = taichi()
    real, Reals, Ints, Bytes = scalar(dtype), array(dtype), array(torch.int32), array(torch.uint8)
    step_length, row, clip, has_length, _, empty_distance = lattice_functions(dtype)
    LARGEST = torch.finfo(dtype).max

    @parallel_kernel(on_cuda)
    def find(
        # rays
        rays_o: Reals,  # [N, 3]
        rays_d: Reals,  # [N, 3]
        t_near: Reals,  # [N]
        t_far: Reals,  # [N]
        noise: Reals,  # [N]
        # grid
        bitfield: Bytes,  # [C R^3 / 8]
        n_rays: ti.i32,
        resolution: ti.i32,
        n_cascades: ti.i32,
        bound: real,
        # steps
        dt_gamma: real,
        dt_min: real,
        dt_max: real,
        max_samples: ti.i32,
        n_words: ti.i32,
        # results
        hits: Ints,  # [N, n_words], bit k: the k-th lattice point from the first sample on is a sample
        counts: Ints,  # [N]
        first_ts: Reals,  # [N]
    ):
        for i in range(n_rays):
            for word in range(n_words):
                hits[i * n_words + word] = 0
            origin, direction = row(rays_o, i), row(rays_d, i)
            inverse = real(1.0) / direction
            # The lattice starts at t_near, wherever that is, but samples lie inside the cube. The margin
            # keeps points that a box as large as the cube has put on its faces.
            t_empty, far = t_near[i], t_far[i]  # no cell is occupied before t_empty
            for d in ti.static(range(3)):
                if ti.abs(direction[d]) > real(PARALLEL):
                    to_lower, to_upper = (-bound - origin[d]) * inverse[d], (bound - origin[d]) * inverse[d]
                    margin = real(1e-4) * bound + real(1e-6) * ti.abs(to_lower)
                    t_empty = ti.max(t_empty, ti.min(to_lower, to_upper) - margin)
                    far = ti.min(far, ti.max(to_lower, to_upper) + margin)
                elif not (ti.abs(origin[d]) <= bound):
                    far = real(-LARGEST)
                if not (ti.abs(origin[d]) + ti.abs(direction[d]) <= real(LARGEST)):  # NaN
                    far = real(-LARGEST)
            if not (t_near[i] < t_far[i] and has_length(direction)):  # NaN too
                far = real(-LARGEST)
            t = t_near[i] + step_length(t_near[i], dt_gamma, dt_min, dt_max) * noise[i]
            t_first = t
            count, k = 0, 0
            while t < far and count < max_samples and k < 32 * n_words:
                dt = step_length(t, dt_gamma, dt_min, dt_max)
                if t + dt == t:  # too far away for this step
                    break
                if t >= t_empty:
                    point = clip(origin + t * direction, bound)
                    distance = empty_distance(bitfield, point, direction, inverse, dt, resolution, n_cascades, bound)
                    if distance < 0:
                        if count == 0:
                            t_first = t
                        word = i * n_words + (k >> 5)
                        hits[word] = hits[word] | 1 << (k & 31)
                        count += 1
                    else:
                        t_empty = t + distance
                t += dt
                if count > 0:
                    k += 1
            counts[i] = count
            first_ts[i] = t_first

    @parallel_kernel(on_cuda)
    def write(
        rays_o: Reals,  # [N, 3]
        rays_d: Reals,  # [N, 3]
        hits: Ints,  # [N, n_words]
        first_ts: Reals,  # [N]
        packed_info: Ints,  # [N, 2]
        n_rays: ti.i32,
        n_words: ti.i32,
        bound: real,
        dt_gamma: real,
        dt_min: real,
        dt_max: real,
        # results
        positions: Reals,  # [M, 3]
        directions: Reals,  # [M, 3]
        ts: Reals,  # [M]
        deltas: Reals,  # [M]
    ):
        for i in range(n_rays):
            j, end = packed_info[2 * i], packed_info[2 * i] + packed_info[2 * i + 1]
            t = first_ts[i]
            origin, direction = row(rays_o, i), row(rays_d, i)
            for k in range(32 * n_words):
                if j == end:
                    break
                dt = step_length(t, dt_gamma, dt_min, dt_max)
                if (hits[i * n_words + (k >> 5)] >> (k & 31)) & 1:
                    point = clip(origin + t * direction, bound)
                    for d in ti.static(range(3)):
                        positions[3 * j + d] = point[d]
                        directions[3 * j + d] = direction[d]
                    ts[j] = t
                    deltas[j] = dt
                    j += 1
                t += dt

    @parallel_kernel(on_cuda)
    def gradient(
        grad_positions: Reals,  # [M, 3]
        grad_directions: Reals,  # [M, 3]
        ts: Reals,  # [M]
        packed_info: Ints,  # [N, 2]
        n_rays: ti.i32,
        # results
        grad_o: Reals,  # [N, 3]
        grad_d: Reals,  # [N, 3]
    ):
        for i in range(n_rays):
            begin, count = packed_info[2 * i], packed_info[2 * i + 1]
            for d in ti.static(range(3)):
                sum_o, sum_d = real(0.0), real(0.0)
                for j in range(begin, begin + count):
                    g = grad_positions[3 * j + d]
                    sum_o += g
                    sum_d += g * ts[j] + grad_directions[3 * j + d]
                grad_o[3 * i + d] = sum_o
                grad_d[3 * i + d] = sum_d

    return _Kernels(find, write, gradient)


_MARCH_RAYS = Operator(
    "march_rays(Tensor rays_o, Tensor rays_d, Tensor t_near, Tensor t_far, Tensor noise, Tensor bitfield, "
    "int? capacity, float bound, int resolution, int n_cascades, float dt_gamma, float dt_min, float dt_max, "
    "int max_samples) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _march,
    _fake_march,
    _setup_context,
    _backward,
)
_MARCH_RAYS_BACKWARD = Operator(
    "march_rays_backward(Tensor grad_positions, Tensor grad_directions, Tensor ts, Tensor packed_info)"
    " -> (Tensor, Tensor)",
    _gradient,
    _empty_gradient,
    backward=not_differentiable("march_rays"),
)
