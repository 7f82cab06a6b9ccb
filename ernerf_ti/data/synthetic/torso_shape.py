"""Signed distance to the neck and the clothed shoulders of the synthetic portrait, as a Taichi function.

Lengths are centimeters in torso coordinates, which at rest are those of the head.
"""

import functools

from ernerf_ti.data.synthetic import frame_state as state
from ernerf_ti.data.synthetic.materials import CLOTH, COLLAR, NECK
from ernerf_ti.data.synthetic.solid_geometry import solids
from ernerf_ti.data.synthetic.solid_noise import noises
from taichi_kernels.runtime import taichi


@functools.cache
def torso_distance():
    """Taichi function (p, frame) -> distance and material of the nearest surface."""
    ti = taichi()
    s, noise = solids(), noises()
    vec = ti.math.vec3
    vec2 = ti.math.vec2

    @ti.func
    def distance(p, frame: ti.template()):
        neck_top = vec(frame[state.NECK_TOP], frame[state.NECK_TOP + 1], frame[state.NECK_TOP + 2])
        q = vec(ti.abs(p.x), p.y, p.z)
        neck = s.cone(p, vec(0.0, -16.5, -4.2), neck_top, 5.7, 4.9)
        body = s.cone(q, vec(2.0, -13.2, -5.0), vec(16.0, -18.6, -4.0), 3.0, 3.6)
        body = s.join(body, s.ellipsoid(q, vec(15.8, -21.0, -3.6), vec(5.2, 5.6, 5.4)), 3.0)
        body = s.join(body, s.ellipsoid(q, vec(0.0, -28.0, -2.0), vec(18.5, 13.8, 9.8)), 4.0)
        skin = s.join(neck, body, 2.5)
        # The neckline: at a distance from the neck, and below a plane that slopes down to the front.
        over = p.y + 11.2 + 0.3 * ti.max(p.z + 4.0, 0.0)
        inside = 0.8 + 0.07 * ti.max(p.z + 5.0, 0.0) - neck
        folds = 0.5 * noise.smooth(vec(p.x * 0.28, p.y * 0.18 + 0.1 * q.x, p.z * 0.2)) - 0.25
        cloth = ti.max(skin - 0.5 - folds, ti.max(inside, over + 0.6))
        off, along = ti.max(ti.abs(skin - 0.4) - 0.2, 0.0), ti.max(ti.abs(inside + 0.75) - 0.85, 0.0)
        collar = ti.sqrt(off * off + along * along) - 0.28
        collar = s.cut(collar, -over, 0.5)
        d = vec2(skin, NECK)
        if cloth < d.x:
            d = vec2(cloth, CLOTH)
        if collar < d.x:
            d = vec2(collar, COLLAR)
        return d

    return distance
