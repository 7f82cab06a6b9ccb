"""Rigid parts of the synthetic head as grids of signed distances.

Skin at rest (skull, nose, jaw, ears, closed eyelids) and the volume of the hair. Lengths are
centimeters in the head frame. Proportions are those of an average adult (Farkas 1994).
"""

import functools
from types import SimpleNamespace

import torch
from torch import Tensor

from ernerf_ti.data.synthetic.solid_geometry import solids
from ernerf_ti.data.synthetic.solid_noise import noises
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.runtime import array, is_cuda, launch, start, taichi

CELL = 0.15
"""Spacing of grid points in cm."""
GRID_LOW = (-9.6, -11.1, -14.4)
GRID_SIZE = (129, 189, 162)
"""Grid points along x, y, z; the first is at GRID_LOW."""
EYE = (3.15, 3.0, 3.3)
"""Center of the eyeball on the side of positive x."""
EYE_RADIUS = 1.2
LID_RADIUS = 1.31


@functools.cache
def head_grids(device: torch.device) -> Tensor:
    """[2 * nx * ny * nz] float32 distances in cm: of the skin, then of the hair; z runs fastest."""
    n_points = GRID_SIZE[0] * GRID_SIZE[1] * GRID_SIZE[2]
    grids = torch.empty(2 * n_points, dtype=torch.float32, device=device)
    start(device)
    launch(_shape(is_cuda()).fill, n_points, grids)
    return grids


@functools.cache
def grid_lookup():
    """Taichi function (grids, which, p) -> distance; outside the grid a lower bound of it."""
    ti = taichi()
    nx, ny, nz = GRID_SIZE

    @ti.func
    def lookup(grids: ti.template(), which: ti.i32, p):
        low = ti.Vector([GRID_LOW[0], GRID_LOW[1], GRID_LOW[2]])
        top = ti.Vector([nx - 1.001, ny - 1.001, nz - 1.001])
        position = (p - low) * (1.0 / CELL)
        inside = ti.min(ti.max(position, 0.0), top)
        i, j, k = ti.cast(inside.x, ti.i32), ti.cast(inside.y, ti.i32), ti.cast(inside.z, ti.i32)
        fx, fy, fz = inside.x - i, inside.y - j, inside.z - k
        at = ((which * nx + i) * ny + j) * nz + k
        c00 = grids[at] * (1.0 - fz) + grids[at + 1] * fz
        c01 = grids[at + nz] * (1.0 - fz) + grids[at + nz + 1] * fz
        at += ny * nz
        c10 = grids[at] * (1.0 - fz) + grids[at + 1] * fz
        c11 = grids[at + nz] * (1.0 - fz) + grids[at + nz + 1] * fz
        outside = (position - inside).norm() * CELL
        value = (c00 * (1.0 - fy) + c01 * fy) * (1.0 - fx) + (c10 * (1.0 - fy) + c11 * fy) * fx
        return ti.select(outside > 0.01, ti.max(outside, value - outside), value)

    return lookup


@functools.cache
def _shape(on_cuda: bool) -> SimpleNamespace:
    ti = taichi()
    s, noise = solids(), noises()
    vec = ti.math.vec3
    _, ny, nz = GRID_SIZE

    @ti.func
    def ear(p):
        # The shell is rotated outward by half a radian and tilted back a little.
        q = p - vec(7.15, 0.9, -2.6)
        out, back = 0.88 * q.x + 0.47 * q.z, 0.47 * q.x - 0.88 * q.z
        back, up = 0.98 * back + 0.2 * q.y, 0.98 * q.y - 0.2 * back
        shell = s.ellipsoid(vec(out, up, back), vec(0.1, 0.4, 0.9), vec(0.6, 2.45, 1.5))
        shell = s.join(shell, s.ellipsoid(vec(out, up, back), vec(0.0, -2.0, 0.5), vec(0.5, 1.0, 0.75)), 0.5)
        hollow = s.ellipsoid(vec(out, up, back), vec(0.75, -0.2, 0.75), vec(0.7, 1.1, 0.75))
        upper = s.ellipsoid(vec(out, up, back), vec(0.8, 1.5, 1.0), vec(0.45, 0.95, 0.85))
        return s.cut(s.cut(shell, hollow, 0.25), upper, 0.3)

    @ti.func
    def nose(p):
        d = s.cone(p, vec(0.0, 3.0, 4.55), vec(0.0, -0.55, 7.1), 0.62, 0.78)
        d = s.join(d, s.ellipsoid(p, vec(0.0, -0.85, 7.15), vec(0.86, 0.82, 0.95)), 0.7)
        d = s.join(d, s.ellipsoid(p, vec(1.12, -1.1, 6.2), vec(0.66, 0.68, 0.95)), 0.45)
        flank = s.cone(p, vec(0.55, 2.0, 4.4), vec(1.1, -0.9, 5.6), 0.6, 0.8)
        return s.join(d, flank, 0.9)

    @ti.func
    def skin(p):
        d = s.ellipsoid(p, vec(0.0, 4.9, -2.7), vec(7.2, 8.5, 8.4))
        d = s.join(d, s.ellipsoid(p, vec(0.0, 5.4, 0.4), vec(6.3, 5.6, 5.2)), 2.0)
        d = s.join(d, s.ellipsoid(p, vec(0.0, -0.6, 0.0), vec(6.3, 7.0, 5.2)), 2.0)
        d = s.join(d, s.ellipsoid(p, vec(4.3, 0.4, 1.9), vec(2.2, 1.9, 2.4)), 1.6)
        d = s.join(d, s.cone(p, vec(4.35, -3.3, -1.4), vec(1.6, -6.6, 3.6), 1.4, 1.2), 2.2)
        d = s.join(d, s.ellipsoid(p, vec(0.0, -5.9, 2.0), vec(3.6, 1.9, 4.0)), 1.5)
        d = s.join(d, s.ellipsoid(p, vec(0.0, -6.85, 4.2), vec(1.9, 1.5, 1.7)), 1.6)
        d = s.join(d, s.ellipsoid(p, vec(0.0, -3.4, 2.9), vec(3.4, 3.0, 3.1)), 1.8)
        d = s.join(d, s.ellipsoid(p, vec(2.9, -2.6, 3.4), vec(2.0, 2.4, 2.0)), 2.0)
        d = s.join(d, s.cone(p, vec(1.2, 4.7, 4.6), vec(4.3, 4.7, 3.0), 0.5, 0.5), 2.2)
        d = s.cut(d, s.ellipsoid(p, vec(3.25, 3.0, 5.8), vec(1.8, 1.0, 1.6)), 1.3)
        d = s.cut(d, s.ellipsoid(p, vec(1.5, 2.75, 5.75), vec(0.6, 0.9, 0.9)), 1.0)
        lids = (p - vec(EYE[0], EYE[1], EYE[2])).norm() - LID_RADIUS
        d = s.join(d, lids, 0.45)
        d = s.join(d, nose(p), 0.8)
        d = s.cut(d, s.ellipsoid(p, vec(0.55, -1.78, 6.8), vec(0.34, 0.5, 0.55)), 0.2)
        d = s.cut(d, s.cone(p, vec(0.0, -1.9, 6.7), vec(0.0, -3.0, 6.75), 0.22, 0.3), 0.5)
        return s.join(d, ear(p), 0.35)

    @ti.func
    def hair(p):
        d = s.ellipsoid(p, vec(0.0, 5.4, -3.0), vec(8.0, 9.3, 10.0))
        d = s.join(d, s.ellipsoid(p, vec(-1.5, 11.5, 2.2), vec(5.2, 2.9, 4.6)), 2.6)
        d = s.join(d, s.ellipsoid(p, vec(4.3, 10.6, 1.8), vec(2.9, 2.6, 4.0)), 2.2)
        part = s.cone(p, vec(3.1, 13.4, 5.6), vec(2.6, 15.0, -2.5), 0.7, 0.5)
        d = s.cut(d, part, 0.9)
        wave = noise.smooth(p * 0.35 + 3.0) - 0.5
        face = s.ellipsoid(p, vec(-0.2, -1.4, 8.6), vec(10.5, 11.3, 10.5)) + 0.9 * wave
        d = s.cut(d, face, 0.7)
        d = s.cut(d, s.ellipsoid(p, vec(3.9, 8.6, 7.2), vec(2.3, 2.3, 4.5)), 0.9)
        # Hairline in front of the ears, around them, and at the nape.
        edge = 1.6 + 1.0 * wave - 5.0 * s.smooth_step(-2.8, -5.0, p.z)
        return -s.join(-d, p.y - edge, 0.6)

    @parallel_kernel(on_cuda)
    def fill(n_points: ti.i32, grids: array(torch.float32)):
        for at in range(n_points):
            i, j, k = at // (ny * nz), at // nz % ny, at % nz
            p = vec(GRID_LOW[0] + i * CELL, GRID_LOW[1] + j * CELL, GRID_LOW[2] + k * CELL)
            grids[at] = skin(vec(ti.abs(p.x), p.y, p.z))
            grids[n_points + at] = hair(p)

    return SimpleNamespace(fill=fill)
