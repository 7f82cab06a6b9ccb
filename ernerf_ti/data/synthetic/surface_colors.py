"""Solid textures of the synthetic portrait, as Taichi functions.

Colors are linear RGB reflectances. Points are in coordinates of the head or the torso, in cm, so that
textures move with them; lips and eyelids follow their outlines.
"""

import functools
from types import SimpleNamespace

from ernerf_ti.data.synthetic import frame_state as state
from ernerf_ti.data.synthetic.head_shape import EYE
from ernerf_ti.data.synthetic.materials import CAVITY, CLOTH, COLLAR, EYEBALL, HAIR, TEETH
from ernerf_ti.data.synthetic.solid_geometry import solids
from ernerf_ti.data.synthetic.solid_noise import noises
from ernerf_ti.data.synthetic.talking_face import BROW_CURVE, BROW_LENGTH, BROW_X, JAW_PER_OPENING, MOUTH_Y, face_curves
from taichi_kernels.runtime import taichi


@functools.cache
def surface_colors() -> SimpleNamespace:
    """`color(p, kind, frame)` -> reflectance and gloss, as a 4-vector; `strand(p)` -> direction of the hair."""
    ti = taichi()
    s, noise, curves = solids(), noises(), face_curves()
    vec, vec4 = ti.math.vec3, ti.math.vec4
    mix = ti.math.mix

    @ti.func
    def blob(p, center, radii):
        q = (p - center) / radii
        return ti.exp(-q.dot(q))

    @ti.func
    def skin(p, frame: ti.template()):
        opening, half_width = frame[state.OPENING], frame[state.HALF_WIDTH]
        side = vec(ti.abs(p.x), p.y, p.z)
        # The texture of the lower face moves with the jaw.
        drop = JAW_PER_OPENING * 7.0 * opening * s.smooth_step(MOUTH_Y, MOUTH_Y - 1.0 - opening, p.y)
        rest = vec(p.x, p.y + drop, p.z)
        c = vec(0.57, 0.300, 0.192)
        c *= 0.9 + 0.2 * noise.layered(rest * 0.55)
        c *= 0.94 + 0.12 * noise.layered(rest * 3.1)
        # Cheeks, nose, ears, chin.
        red = blob(side, vec(4.4, -0.9, 4.6), vec(2.0, 1.7, 3.0))
        red += 0.9 * blob(p, vec(0.0, -0.9, 7.9), vec(1.4, 1.2, 2.0))
        red += 0.5 * blob(side, vec(7.3, 1.0, -2.4), vec(1.6, 3.0, 3.0))
        red += 0.35 * blob(rest, vec(0.0, -7.3, 5.8), vec(1.6, 1.2, 2.0))
        c = mix(c, c * vec(1.12, 0.72, 0.68), ti.min(red * 0.6, 1.0))
        freckled = blob(side, vec(2.7, 0.3, 5.6), vec(2.6, 1.5, 4.0)) + blob(p, vec(0.0, 0.6, 7.0), vec(1.2, 1.3, 3.0))
        spots = noise.spots(rest * 2.6, 0.34) + noise.spots(rest * 3.9 + 5.3, 0.3)
        c = mix(c, c * vec(0.62, 0.47, 0.4), ti.min(spots * 1.6, 1.0) * ti.min(freckled + 0.06, 1.0))
        moles = noise.spots(rest * 0.33 + 2.2, 0.055)
        c = mix(c, c * vec(0.35, 0.25, 0.22), ti.min(moles * 3.0, 1.0))
        c *= 1.0 - 0.16 * blob(side, vec(2.9, 1.75, 5.0), vec(1.6, 0.5, 3.0))
        gloss = 0.35

        # Lips: inside their borders.
        edges = curves.lip_edges(p.x, opening, half_width)
        inside = ti.min(edges[1] - p.y, p.y - edges[3])
        lip = s.smooth_step(-0.06, 0.07, inside) * s.smooth_step(3.2, 4.2, p.z)
        lip *= s.smooth_step(0.05, -0.12, ti.abs(p.x) - half_width)
        creases = noise.smooth(vec(p.x * 9.0, rest.y * 1.5, 0.0))
        lip_color = vec(0.46, 0.15, 0.13) * (0.92 + 0.16 * creases)
        c = mix(c, lip_color, 0.88 * lip)
        gloss = mix(gloss, 0.8, lip)
        seam = s.smooth_step(0.09, 0.0, ti.min(ti.abs(p.y - edges[0]), ti.abs(p.y - edges[2])))
        c *= 1.0 - 0.45 * seam * lip

        # Brows: short strokes along a curve.
        u = (side.x - BROW_X) / BROW_LENGTH
        middle = BROW_CURVE[0] + BROW_CURVE[1] * u * (BROW_CURVE[2] - u)
        height = 0.46 * s.smooth_step(-0.06, 0.12, u) * s.smooth_step(1.05, 0.35, u) + 0.05
        stroke = noise.smooth(
            vec(side.x * 13.0 - p.y * 7.0, p.y * 2.0 + side.x * 1.2, 4.0 + ti.select(p.x > 0, 9.0, 0.0))
        )
        brow = s.smooth_step(1.0, 0.25, ti.abs(p.y - middle) / height + 0.5 * (stroke - 0.45))
        brow *= s.smooth_step(-0.08, 0.03, u) * s.smooth_step(1.07, 0.95, u) * s.smooth_step(2.0, 3.0, p.z)
        c = mix(c, vec(0.06, 0.032, 0.02), 0.95 * brow * (0.7 + 0.3 * stroke))

        # Lashes along the lids, and the crease above the eye.
        q = side - vec(EYE[0], EYE[1], EYE[2])
        lids = curves.lid_edges(q.x, frame[state.BLINK])
        near_eye = s.smooth_step(1.62, 1.38, ti.abs(q.x)) * s.smooth_step(0.0, 0.4, q.z)
        lashes = s.smooth_step(0.17, 0.04, ti.abs(q.y - lids[0] - 0.03)) * 0.92
        lashes = ti.max(lashes, 0.45 * s.smooth_step(0.09, 0.02, ti.abs(q.y - lids[1])))
        crease = curves.lid_edges(q.x * 0.93, 0.25 * frame[state.BLINK])[0] + 0.30
        fold = 0.5 * s.smooth_step(0.12, 0.0, ti.abs(q.y - crease)) * s.smooth_step(1.5, 1.0, ti.abs(q.x))
        shadow = 0.25 * s.smooth_step(0.6, 0.0, ti.abs(q.y - 0.55)) * s.smooth_step(1.9, 0.6, ti.abs(q.x))
        c *= 1.0 - near_eye * ti.max(fold, shadow)
        c = mix(c, vec(0.02, 0.012, 0.01), lashes * near_eye)
        return vec4(c, gloss)

    @ti.func
    def eyeball(p, frame: ti.template()):
        q = vec(ti.abs(p.x), p.y, p.z) - vec(EYE[0], EYE[1], EYE[2])
        lids = curves.lid_edges(q.x, frame[state.BLINK])
        outwards = ti.select(p.x > 0, 1.0, -1.0)
        x = q.x * outwards / ti.max(q.z, 0.3) - frame[state.GAZE]
        y = q.y / ti.max(q.z, 0.3) - frame[state.GAZE + 1]
        r = ti.sqrt(x * x + y * y)
        angle = ti.atan2(y, x)
        fibres = noise.smooth(vec(ti.cos(angle) * 7.0, ti.sin(angle) * 7.0, r * 3.0 + outwards))
        white = vec(0.70, 0.66, 0.62) * (1.0 - 0.12 * noise.smooth(q * 6.0))
        white = mix(white, vec(0.52, 0.22, 0.18), s.smooth_step(-0.85, -1.35, q.x))
        iris = mix(vec(0.05, 0.10, 0.11), vec(0.20, 0.30, 0.29), fibres)
        iris = mix(vec(0.24, 0.15, 0.06), iris, s.smooth_step(0.2, 0.36, r))
        iris *= 1.0 - 0.75 * s.smooth_step(0.40, 0.52, r)
        c = mix(iris, white, s.smooth_step(0.49, 0.56, r))
        c = mix(vec(0.004, 0.004, 0.005), c, s.smooth_step(0.17, 0.21, r))
        # The upper lid and its lashes cast a shadow on the eye.
        c *= 0.45 + 0.55 * s.smooth_step(0.0, 0.4, lids[0] - q.y)
        c *= 0.75 + 0.25 * s.smooth_step(0.0, 0.15, q.y - lids[1])
        return vec4(c, 1.0)

    @ti.func
    def teeth(p):
        along = ti.abs(p.x) * (1.0 + 0.02 * p.x * p.x)
        # Gaps between the teeth, from the middle: incisors, canine, premolars.
        nearest = ti.min(along, ti.abs(along - 0.86))
        nearest = ti.min(nearest, ti.min(ti.abs(along - 1.52), ti.min(ti.abs(along - 2.25), ti.abs(along - 2.95))))
        c = vec(0.82, 0.77, 0.66) * (0.5 + 0.5 * s.smooth_step(0.0, 0.07, nearest))
        return vec4(c * (1.0 - 0.75 * s.smooth_step(0.9, 2.4, ti.abs(p.x))), 0.8)

    @ti.func
    def cloth(p, collar: ti.i32):
        bands = p.y + 0.5 * noise.smooth(p * 0.25) + 0.012 * p.x * p.x
        dark = vec(0.022, 0.040, 0.085)
        light = vec(0.10, 0.15, 0.21)
        phase = bands / 2.6 - ti.floor(bands / 2.6)
        stripe = s.smooth_step(0.30, 0.34, phase) * s.smooth_step(0.70, 0.66, phase)
        knit = 0.9 + 0.2 * noise.smooth(vec(p.x * 7.0, p.y * 9.0, p.z * 7.0))
        c = mix(dark, light, stripe) * knit
        if collar == 1:
            around = ti.atan2(p.x, p.z + 3.0)
            ribs = 0.5 + 0.5 * ti.cos(around * 96.0)
            c = dark * (0.85 + 0.4 * ribs)
        return vec4(c, 0.05)

    @ti.func
    def strand(p):
        """Unit direction of the hair, in planes through the transverse axis."""
        away = 1.0 / ti.sqrt((p.z + 3.0) ** 2 + (p.y + 2.0) ** 2)
        sideways = ti.select(p.x > 3.0, 1.0, -1.0)
        return vec(sideways, -(p.y + 2.0) * away * ti.abs(p.x - 3.0) * 0.12, -(p.z + 3.0) * away * 0.3).normalized()

    @ti.func
    def hair(p):
        across, radius = ti.atan2(p.z + 3.0, p.y + 2.0), ti.sqrt((p.z + 3.0) ** 2 + (p.y + 2.0) ** 2)
        fine = s.smooth_step(0.2, 0.8, noise.smooth(vec(across * 140.0, p.x * 0.25, radius * 0.9)))
        # Above the forehead the surface is parallel to the radius, so that strands differ along the radius too.
        layer = s.smooth_step(0.2, 0.8, noise.smooth(vec(radius * 5.5 + 0.6 * p.x, p.x * 0.22, across * 9.0)))
        over_forehead = s.smooth_step(5.6, 2.5, ti.abs(p.x + 0.5)) * s.smooth_step(3.0, 5.2, p.z)
        fine = mix(fine, 0.35 * fine + 0.65 * layer, over_forehead)
        coarse = s.smooth_step(0.2, 0.8, noise.smooth(vec(across * 45.0, p.x * 0.3, radius * 0.5)))
        c = mix(vec(0.024, 0.011, 0.006), vec(0.20, 0.092, 0.040), 0.6 * fine + 0.4 * coarse * fine)
        return vec4(c, 0.15 + 1.1 * fine * (0.4 + 0.6 * coarse))

    @ti.func
    def color(p, kind: ti.i32, frame: ti.template()):
        c = vec4(0.0)
        if kind == HAIR:
            c = hair(p)
        elif kind == EYEBALL:
            c = eyeball(p, frame)
        elif kind == TEETH:
            c = teeth(p)
        elif kind == CAVITY:
            c = vec4(vec(0.26, 0.07, 0.06) * s.smooth_step(0.5, 5.5, p.z), 0.5)
        elif kind == CLOTH:
            c = cloth(p, 0)
        elif kind == COLLAR:
            c = cloth(p, 1)
        else:
            c = skin(p, frame)
        return c

    return SimpleNamespace(color=color, strand=strand)
