"""Signed distance to the head of the synthetic portrait while it speaks and blinks, as Taichi functions.

The grids of the head at rest are sampled at positions with jaw rotation and lip protrusion undone; lips,
teeth, tongue and eye openings are added as solids. Lengths are centimeters in the head frame.
"""

import functools
from types import SimpleNamespace

from ernerf_ti.data.synthetic import frame_state as state
from ernerf_ti.data.synthetic.head_shape import EYE, EYE_RADIUS, grid_lookup
from ernerf_ti.data.synthetic.materials import CAVITY, EYEBALL, HAIR, SKIN, TEETH
from ernerf_ti.data.synthetic.solid_geometry import solids
from ernerf_ti.data.synthetic.solid_noise import noises
from taichi_kernels.runtime import taichi

MOUTH_Y = -3.95
"""Height of the line between the closed lips."""
JAW_HINGE = (0.5, -2.0)
"""y and z of the axis about which the jaw turns."""
JAW_PER_OPENING = 0.088
"""Radians of jaw rotation per cm between the lips: the lower lip is 8 cm in front of the hinge."""
UPPER_FRACTION, LOWER_FRACTION = 0.27, 0.73
"""Fractions of the opening by which the upper and the lower lip move."""
FISSURE = 1.5
"""Half the distance between the corners of the eye."""
LID_SHIFT = 0.1
"""Offset of the eye opening's center from the eyeball's, toward the nose."""
BROW_X, BROW_LENGTH = 1.0, 4.2
"""Inner end of the brows beside the middle of the face, and their length."""
BROW_CURVE = (4.6, 1.5, 1.2)
"""a, b, c of their height a + b u (c - u) at the fraction u of the length."""


@functools.cache
def face_curves() -> SimpleNamespace:
    """Outlines of lips and eyelids as functions of x, for geometry and colors."""
    ti = taichi()

    @ti.func
    def lip_edges(x, opening, half_width):
        """Heights of the inner edge and outer border of the upper lip, then of the lower one."""
        t2 = ti.min((x / half_width) ** 2, 1.0)
        bulge = ti.sqrt(1.0 - t2) * (1.0 - 0.25 * t2)
        line = MOUTH_Y - 0.1 * ti.exp(-((x / 0.7) ** 2)) + (0.15 - 0.3 * opening) * t2
        upper, lower = line + UPPER_FRACTION * opening * bulge, line - LOWER_FRACTION * opening * bulge
        fade = (1.0 - t2) ** 0.8
        bow = ti.exp(-(((ti.abs(x) - 0.5) / 0.4) ** 2)) - 0.55 * ti.exp(-((x / 0.25) ** 2))
        return ti.Vector([upper, upper + fade * (0.62 + 0.16 * bow), lower, lower - (1.0 - t2) ** 0.6 * 0.88])

    @ti.func
    def lip_front(x, rounding):
        """z of the front of the lips."""
        return 6.1 - 0.17 * x * x + 0.75 * rounding * ti.exp(-((x / 2.0) ** 2))

    @ti.func
    def lid_edges(x, blink):
        """Heights of the upper and the lower lid's edge above the center of the eye; x points outward."""
        t2 = ((x + LID_SHIFT) / FISSURE) ** 2
        slant = 0.07 * x
        lower = slant - (0.43 - 0.1 * blink) * (1.0 - t2) * (1.0 + 0.12 * x)
        raised = slant + 0.455 * (1.0 - t2) * (1.0 - 0.1 * x)
        return ti.Vector([raised + (lower - 0.03 - raised) * blink, lower])

    return SimpleNamespace(lip_edges=lip_edges, lip_front=lip_front, lid_edges=lid_edges)


@functools.cache
def head_distance():
    """Taichi function (p, frame, grids) -> distance and material of the nearest surface."""
    ti = taichi()
    s, noise, curves = solids(), noises(), face_curves()
    lookup = grid_lookup()
    vec = ti.math.vec3
    vec2 = ti.math.vec2

    @ti.func
    def unrotated(p, angle):
        """Undo the rotation of the jaw."""
        y, z = p.y - JAW_HINGE[0], p.z - JAW_HINGE[1]
        c, n = ti.cos(angle), ti.sin(angle)
        return vec(p.x, JAW_HINGE[0] + c * y + n * z, JAW_HINGE[1] + c * z - n * y)

    @ti.func
    def mouth(p, skin, opening, half_width, rounding):
        """Cut the mouth out of the skin; add lips, teeth and tongue."""
        x, y = p.x, p.y
        edges = curves.lip_edges(x, opening, half_width)
        slit = ti.max(ti.max(y - edges[0], edges[2] - y), ti.abs(x) - half_width)
        front = curves.lip_front(x, rounding)
        upper_height = 0.5 * (edges[1] - edges[0]) + 0.1
        lower_height = 0.5 * (edges[2] - edges[3]) + 0.1
        upper = s.ellipsoid(
            vec(0.0, y, p.z),
            vec(0.0, edges[0] + upper_height, front - 0.42),
            vec(1.0, upper_height, 0.3 + 0.38 * upper_height),
        )
        lower = s.ellipsoid(
            vec(0.0, y, p.z),
            vec(0.0, edges[2] - lower_height, front - 0.5),
            vec(1.0, lower_height, 0.3 + 0.42 * lower_height),
        )
        beside = ti.max(ti.abs(x) - half_width, 0.0)
        lips = ti.max(ti.min(upper, lower), beside)
        outer = s.join(skin, lips, 0.25)
        hole = ti.max(slit * 0.8, 2.5 - p.z)
        room = s.ellipsoid(p, vec(0.0, -4.2, 3.0), vec(2.5, 1.5 + 0.5 * opening, 2.4))
        empty = ti.min(hole, room)
        result = vec2(outer, SKIN)
        if -empty > outer:
            result = vec2(-empty, CAVITY)

        jaw = unrotated(p, JAW_PER_OPENING * opening)
        arch = 0.32 * x
        lean = 1.0 / ti.sqrt(1.0 + arch * arch)
        gap = 0.03 * ti.abs(ti.sin(x * 3.7))
        upper_teeth = ti.max(
            ti.abs(p.z - (5.55 - 0.16 * x * x)) * lean - 0.16,
            ti.max(ti.abs(y + 3.65) - 0.54 + gap, ti.abs(x) - 2.5),
        )
        lower_teeth = ti.max(
            ti.abs(jaw.z - (5.2 - 0.17 * x * x)) * lean - 0.15,
            ti.max(ti.abs(jaw.y + 4.6) - 0.42 + gap, ti.abs(x) - 2.3),
        )
        teeth = ti.min(upper_teeth, lower_teeth) - 0.03
        if teeth < result.x:
            result = vec2(teeth, TEETH)
        tongue = s.ellipsoid(jaw, vec(0.0, -4.8, 2.9), vec(1.8, 0.75, 2.0))
        if tongue < result.x:
            result = vec2(tongue, CAVITY)
        return result

    @ti.func
    def distance(p, frame: ti.template(), grids: ti.template()):
        opening, half_width, rounding = frame[state.OPENING], frame[state.HALF_WIDTH], frame[state.ROUNDING]
        # To the head at rest. In a band around the mouth the skin follows the jaw partly.
        follows = s.smooth_step(MOUTH_Y + 0.5, MOUTH_Y - 0.8 - 0.8 * opening, p.y) * s.smooth_step(-5.0, -1.0, p.z)
        rest = unrotated(p, JAW_PER_OPENING * opening * follows)
        near_lips = ti.exp(-((p.x / 2.2) ** 2) - ((p.y - MOUTH_Y + 0.3 * opening) / 1.8) ** 2)
        rest.z -= 0.6 * rounding * near_lips * s.smooth_step(1.0, 5.0, p.z)

        d = vec2(lookup(grids, 0, vec(ti.abs(rest.x), rest.y, rest.z)), SKIN)
        if (p - vec(0.0, -4.3, 4.2)).norm_sqr() < 14.0:
            d = mouth(p, d.x, opening, half_width, rounding)
        q = vec(ti.abs(p.x), p.y, p.z) - vec(EYE[0], EYE[1], EYE[2])
        if q.norm_sqr() < 5.0:
            lids = curves.lid_edges(q.x, frame[state.BLINK])
            slit = ti.max(ti.max(q.y - lids[0], lids[1] - q.y) * 0.8, 0.25 - q.z)
            d.x = s.cut(d.x, slit, 0.06)
            eyeball = q.norm() - EYE_RADIUS
            if eyeball < d.x:
                d = vec2(eyeball, EYEBALL)
        hair = lookup(grids, 1, p)
        if hair < 0.9:
            # Strands run from the parting down the sides, in planes through a transverse axis.
            across = ti.atan2(p.z + 3.0, p.y + 2.0)
            radius = ti.sqrt((p.z + 3.0) ** 2 + (p.y + 2.0) ** 2)
            wisp = noise.smooth(vec(across * 16.0, p.x * 0.22, radius * 0.2))
            strand = noise.smooth(vec(across * 75.0, p.x * 0.3, radius * 0.3))
            hair += 0.42 * (wisp - 0.5) + 0.26 * (strand - 0.5)
        if hair < d.x:
            d = vec2(hair, HAIR)
        return d

    return distance
