"""Signed distances of simple solids, as Taichi functions.

Distances are negative inside. Those of ellipsoids are exact only to first order at the surface.
"""

import functools
from types import SimpleNamespace

from taichi_kernels.runtime import taichi


@functools.cache
def solids() -> SimpleNamespace:
    """The functions; positions are 3-vectors, sizes floats, all in one unit of length."""
    ti = taichi()

    @ti.func
    def join(a, b, k):
        """Union with a fillet of width k."""
        h = ti.max(k - ti.abs(a - b), 0.0)
        return ti.min(a, b) - 0.25 * h * h / k

    @ti.func
    def cut(a, b, k):
        """Solid a minus solid b, with edges rounded over a width k."""
        return -join(-a, b, k)

    @ti.func
    def ellipsoid(p, center, radii):
        q = (p - center) / radii
        m = (q / radii).norm()
        length = q.norm()
        return ti.select(m > 1e-6, length * (length - 1.0) / ti.max(m, 1e-6), -radii.min())

    @ti.func
    def cone(p, a, b, radius_a, radius_b):
        """Capsule from a to b whose radius varies linearly from radius_a to radius_b."""
        along = b - a
        h = ti.min(ti.max((p - a).dot(along) / along.dot(along), 0.0), 1.0)
        return (p - a - h * along).norm() - (radius_a + h * (radius_b - radius_a))

    @ti.func
    def smooth_step(low, high, x):
        t = ti.min(ti.max((x - low) / (high - low), 0.0), 1.0)
        return t * t * (3.0 - 2.0 * t)

    return SimpleNamespace(join=join, cut=cut, ellipsoid=ellipsoid, cone=cone, smooth_step=smooth_step)
