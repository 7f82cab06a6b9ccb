"""Solid noise as Taichi functions, with the same values on all devices."""

import functools
from types import SimpleNamespace

from taichi_kernels.runtime import taichi


@functools.cache
def noises() -> SimpleNamespace:
    """The functions; they take positions as 3-vectors and give values in [0, 1]."""
    ti = taichi()

    @ti.func
    def hashed(x: ti.i32, y: ti.i32, z: ti.i32):
        """Hash of three integers in [0, 1)."""
        h = ti.cast(x, ti.u32) * ti.u32(0x9E3779B1) ^ ti.cast(y, ti.u32) * ti.u32(0x85EBCA77)
        h = h ^ ti.cast(z, ti.u32) * ti.u32(0xC2B2AE3D)
        h = (h ^ (h >> 15)) * ti.u32(0x2C1B3C6D)
        h = (h ^ (h >> 12)) * ti.u32(0x297A2D39)
        h = h ^ (h >> 15)
        return ti.cast(h >> 8, ti.f32) * (1.0 / 16777216.0)

    @ti.func
    def smooth(p):
        """Value noise: random values at integer positions, interpolated between them."""
        base = ti.floor(p)
        f = p - base
        w = f * f * (3.0 - 2.0 * f)
        x, y, z = ti.cast(base.x, ti.i32), ti.cast(base.y, ti.i32), ti.cast(base.z, ti.i32)
        value = 0.0
        for corner in range(8):
            i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
            weight = ti.select(i == 1, w.x, 1.0 - w.x) * ti.select(j == 1, w.y, 1.0 - w.y)
            value += weight * ti.select(k == 1, w.z, 1.0 - w.z) * hashed(x + i, y + j, z + k)
        return value

    @ti.func
    def layered(p):
        """Three octaves."""
        total, scale, weight = 0.0, 1.0, 4.0 / 7.0
        for _ in range(3):
            total += weight * smooth(p * scale + 7.1 * (scale - 1.0))
            scale *= 2.03
            weight *= 0.5
        return total

    @ti.func
    def spots(p, radius):
        """Soft spots, one in each unit cell, with radii below `radius` cells: 1 at their centers, 0 outside."""
        base = ti.floor(p)
        x, y, z = ti.cast(base.x, ti.i32), ti.cast(base.y, ti.i32), ti.cast(base.z, ti.i32)
        f = p - base
        a, b, c = hashed(x, y, z), hashed(x + 57, y, z), hashed(x, y + 57, z)
        center = 0.5 + 0.5 * (ti.Vector([a, b, c]) - 0.5)
        r = radius * (0.35 + 0.65 * hashed(x, y, z + 57))
        return ti.max(1.0 - (f - center).norm() / r, 0.0)

    return SimpleNamespace(hashed=hashed, smooth=smooth, layered=layered, spots=spots)
