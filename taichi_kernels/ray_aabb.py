"""Where rays enter and leave an axis-aligned box: the slab test (Kay and Kajiya 1986)."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, expect
from taichi_kernels.operators import Operator
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi

PARALLEL = 1e-30
"""Components of a direction below this are parallel to the faces of a cell or box: their inverse may overflow, and they
may be flushed to zero."""


def intersect_aabb(
    rays_o: Tensor, rays_d: Tensor, aabb: Sequence[float] | Tensor, min_near: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Distances along rays at which they enter and leave a box.

    Args:
        rays_o: [N, 3] float32 or float64, origins in world units.
        rays_d: [N, 3] of the same dtype, unit directions. A component of zero is a ray parallel to
            that pair of faces.
        aabb: xmin, ymin, zmin, xmax, ymax, zmax in world units, as numbers or as a tensor [6] of the dtype and on
            the device of the rays. The call does not wait for the values of a tensor; with min > max they are an empty
            box, which all rays miss.
        min_near: lower limit of the entry distance, for a camera near or inside the box.

    Returns:
        t_near, t_far: [N]. A ray that misses the box, or holds a NaN, has the largest number of the
        dtype for both; one that leaves it before min_near has t_near > t_far.

    Not differentiable: for rays that require a gradient pass rays_o.detach() and rays_d.detach(). The
    gradient of samples on the ray comes from :func:`taichi_kernels.march_rays`. Deterministic.
    Raises ValueError if an argument is not as above.
    """
    rays_o, rays_d = cast_under_autocast(rays_o), cast_under_autocast(rays_d)
    check = ArgumentCheck()
    check.tensor("rays_o", rays_o, ("N", 3), FLOATS, differentiable=False)
    check.tensor("rays_d", rays_d, ("N", 3), rays_o.dtype, differentiable=False)
    box: Tensor | None = None
    numbers: list[float] = []
    if isinstance(aabb, Tensor):
        box = cast_under_autocast(aabb)
        check.tensor("aabb", box, (6,), rays_o.dtype, differentiable=False)
    else:
        numbers = box_numbers(aabb)
    t_near, t_far = _INTERSECT_AABB(rays_o, rays_d, box, numbers, float(min_near))
    return t_near, t_far


def box_numbers(aabb: Sequence[float]) -> list[float]:
    """The six numbers of a box; raises ValueError if they are others, or not in order."""
    numbers = [float(value) for value in aabb]
    expect(
        len(numbers) == 6 and all(low <= high for low, high in zip(numbers[:3], numbers[3:], strict=True)),
        "aabb",
        "xmin, ymin, zmin, xmax, ymax, zmax with min <= max",
        numbers,
        "order the six numbers",
    )
    return numbers


def _intersect(
    rays_o: Tensor, rays_d: Tensor, box: Tensor | None, numbers: Sequence[float], min_near: float
) -> tuple[Tensor, Tensor]:
    if box is None:
        box = _box_tensor(tuple(numbers), rays_o.dtype, rays_o.device)
    distances = _empty_distances(rays_o)
    launch(_kernel(rays_o.dtype, is_cuda()), rays_o, rays_d, box, len(rays_o), min_near, *distances)
    return distances


@functools.lru_cache(maxsize=64)
def _box_tensor(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept, because the copy to a GPU waits for it.
    return torch.tensor(numbers, dtype=dtype, device=device)


def _empty_distances(rays_o: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return rays_o.new_empty(rays_o.shape[0]), rays_o.new_empty(rays_o.shape[0])


@functools.cache
def slab_function(dtype: torch.dtype) -> Any:
    """A function to call inside kernels: origin, direction and, of a box, first index of six numbers -> distances at
    which the ray enters and leaves the box; LARGEST for both if it misses it."""
    ti, real = taichi(), scalar(dtype)
    LARGEST = torch.finfo(dtype).max

    @ti.func
    def enter_and_leave(origin, directions, boxes: ti.template(), first):
        near, far = real(-LARGEST), real(LARGEST)
        hit = True
        for d in ti.static(range(3)):
            o, direction = origin[d], directions[d]
            low, high = boxes[first + d], boxes[first + 3 + d]
            if ti.abs(direction) < real(PARALLEL):
                if not (o >= low and o <= high):
                    hit = False
            else:
                # By the reciprocal, as the kernels of torch-ngp: another rounding moves all samples of a ray.
                inverse = real(1.0) / direction
                t_low, t_high = (low - o) * inverse, (high - o) * inverse
                if not (low <= high and ti.abs(t_low) <= real(LARGEST) and ti.abs(t_high) <= real(LARGEST)):
                    hit = False  # an empty box, or NaN, which would be lost in the minima and maxima
                near = ti.max(near, ti.min(t_low, t_high))
                far = ti.min(far, ti.max(t_low, t_high))
        if not (hit and near <= far):
            near, far = real(LARGEST), real(LARGEST)
        return ti.Vector([near, far])

    return enter_and_leave


@kernel_factory
def _kernel(dtype: torch.dtype, on_cuda: bool) -> Any:
    ti = taichi()
    real, Reals = scalar(dtype), array(dtype)
    enter_and_leave = slab_function(dtype)

    @parallel_kernel(on_cuda)
    def intersect(
        rays_o: Reals,  # [N, 3]
        rays_d: Reals,  # [N, 3]
        box: Reals,  # [6]
        n: ti.i32,
        min_near: real,
        t_near: Reals,  # [N]
        t_far: Reals,  # [N]
    ):
        for i in range(n):
            origin = ti.Vector([rays_o[3 * i], rays_o[3 * i + 1], rays_o[3 * i + 2]])
            direction = ti.Vector([rays_d[3 * i], rays_d[3 * i + 1], rays_d[3 * i + 2]])
            distances = enter_and_leave(origin, direction, box, 0)
            t_near[i] = ti.max(distances[0], min_near)
            t_far[i] = distances[1]

    return intersect


_INTERSECT_AABB = Operator(
    "intersect_aabb(Tensor rays_o, Tensor rays_d, Tensor? box, float[] numbers, float min_near) -> (Tensor, Tensor)",
    _intersect,
    _empty_distances,
)
