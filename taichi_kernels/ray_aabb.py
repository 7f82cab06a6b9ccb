"""Where rays enter and leave an axis-aligned box: the slab test (Kay and Kajiya 1986)."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, expect
from taichi_kernels.operators import Operator
from taichi_kernels.runtime import array, launch, scalar, taichi


def intersect_aabb(
    rays_o: Tensor, rays_d: Tensor, aabb: Sequence[float], min_near: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Distances along rays at which they enter and leave a box.

    Args:
        rays_o: [N, 3] float32 or float64, origins in world units.
        rays_d: [N, 3] of the same dtype, unit directions. A component of zero is a ray parallel to
            that pair of faces.
        aabb: xmin, ymin, zmin, xmax, ymax, zmax in world units.
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
    box = [float(value) for value in aabb]
    expect(
        len(box) == 6 and all(low <= high for low, high in zip(box[:3], box[3:], strict=True)),
        "aabb",
        "xmin, ymin, zmin, xmax, ymax, zmax with min <= max",
        box,
        "order the six numbers",
    )
    t_near, t_far = _INTERSECT_AABB(rays_o, rays_d, box, float(min_near))
    return t_near, t_far


def _intersect(rays_o: Tensor, rays_d: Tensor, aabb: list[float], min_near: float) -> tuple[Tensor, Tensor]:
    distances = _empty_distances(rays_o, rays_d, aabb, min_near)
    launch(_kernel(rays_o.dtype), rays_o, rays_d, len(rays_o), *aabb, min_near, *distances)
    return distances


def _empty_distances(rays_o: Tensor, rays_d: Tensor, aabb: list[float], min_near: float) -> tuple[Tensor, Tensor]:
    return rays_o.new_empty(rays_o.shape[0]), rays_o.new_empty(rays_o.shape[0])


@functools.cache
def _kernel(dtype: torch.dtype) -> Any:
    ti = taichi()
    real, Reals = scalar(dtype), array(dtype)
    LARGEST = torch.finfo(dtype).max
    # Below this a direction is parallel to the slab; 1 / d must not overflow, nor d be flushed to zero.
    PARALLEL = 1e-30

    @ti.kernel
    def intersect(
        rays_o: Reals,  # [N, 3]
        rays_d: Reals,  # [N, 3]
        n: ti.i32,
        x_min: real,
        y_min: real,
        z_min: real,
        x_max: real,
        y_max: real,
        z_max: real,
        min_near: real,
        t_near: Reals,  # [N]
        t_far: Reals,  # [N]
    ):
        for i in range(n):
            low, high = ti.Vector([x_min, y_min, z_min]), ti.Vector([x_max, y_max, z_max])
            near, far = real(-LARGEST), real(LARGEST)
            hit = True
            for d in ti.static(range(3)):
                o, direction = rays_o[3 * i + d], rays_d[3 * i + d]
                if ti.abs(direction) < real(PARALLEL):
                    if not (o >= low[d] and o <= high[d]):
                        hit = False
                else:
                    # By the reciprocal, as the kernels of torch-ngp: another rounding moves all samples of a ray.
                    inverse = real(1.0) / direction
                    t_low, t_high = (low[d] - o) * inverse, (high[d] - o) * inverse
                    if not (ti.abs(t_low) <= real(LARGEST) and ti.abs(t_high) <= real(LARGEST)):
                        hit = False  # NaN would be lost in the minima and maxima
                    near = ti.max(near, ti.min(t_low, t_high))
                    far = ti.min(far, ti.max(t_low, t_high))
            if hit and near <= far:
                t_near[i] = ti.max(near, min_near)
                t_far[i] = far
            else:
                t_near[i] = real(LARGEST)
                t_far[i] = real(LARGEST)

    return intersect


_INTERSECT_AABB = Operator(
    "intersect_aabb(Tensor rays_o, Tensor rays_d, float[] aabb, float min_near) -> (Tensor, Tensor)",
    _intersect,
    _empty_distances,
)
