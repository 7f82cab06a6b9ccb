"""Ray tracing of one frame of the synthetic portrait: sphere tracing (Hart 1996) and shading.

Head and torso are traced separately, so that the torso is also rendered without the head, which then only
casts its shadow. Lighting is computed in camera coordinates, in cm.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.data.synthetic import frame_state as state
from ernerf_ti.data.synthetic.head_shape import head_grids
from ernerf_ti.data.synthetic.materials import CAVITY, EYEBALL, HAIR, NECK, SKIN, TEETH
from ernerf_ti.data.synthetic.surface_colors import surface_colors
from ernerf_ti.data.synthetic.talking_face import head_distance
from ernerf_ti.data.synthetic.torso_shape import torso_distance
from taichi_kernels.runtime import array, launch_by_taichi, start, taichi

BACKGROUND_LABEL, HEAD_LABEL, NECK_LABEL, TORSO_LABEL = range(4)

# Bounding sphere of the head with the jaw down: center in head coordinates and radius, cm.
_BOUND_CENTER, _BOUND_RADIUS = (0.0, 2.8, -2.0), 13.6
_DETAIL = 0.08  # of the displayed range between neighboring pixels; smoother areas look the same with one ray


def render_layers(frame: Tensor, background: Tensor, n_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Trace one frame: one ray through the center of each pixel, then `n_samples` rays through pixels with detail.

    Args:
        frame: [35] float32, see :mod:`ernerf_ti.data.synthetic.frame_state`.
        background: [H, W, 3] float32 in [0, 1] as displayed, H = W even.
        n_samples: rays per pixel where the picture has detail, a square number.

    Returns:
        [H, W, 3] float32 picture in [0, 1]; [H, W, 4] float32 of neck and torso without the head,
        straight alpha; [H, W] uint8 labels, those of most rays of the pixel.
    """
    size = background.shape[0]
    image = torch.empty_like(background)
    torso = background.new_empty(size, size, 4)
    labels = background.new_empty(size, size, dtype=torch.uint8)
    start(background.device, "background")
    grids = head_grids(background.device)
    pixels = _shuffled_pixels(size, background.device)
    launch_by_taichi(_kernel(), frame, grids, background, pixels, size, len(pixels), 1, image, torso, labels)
    pixels = pixels[_has_detail(image, torso, labels)[pixels.long()]]
    if len(pixels):
        per_side = round(n_samples**0.5)
        launch_by_taichi(_kernel(), frame, grids, background, pixels, size, len(pixels), per_side, image, torso, labels)
    return image, torso, labels


@functools.cache
def _shuffled_pixels(size: int, device: torch.device) -> Tensor:
    """[size^2] int32 indices of pixels, row by row, with the rows shuffled.

    On the CPU each thread gets a contiguous run of them, and all runs should have the same work.
    """
    row_step = next(step for step in range(round(0.618 * size), 0, -1) if math.gcd(step, size) == 1)
    rows = torch.arange(size, device=device) * row_step % size
    return (rows[:, None] * size + torch.arange(size, device=device)).flatten().int()


def _has_detail(image: Tensor, torso: Tensor, labels: Tensor) -> Tensor:
    """[size^2] bool: pixels that differ from a neighbor in label or coverage, or visibly in color."""
    layers = torch.cat((image, torso, 0.1 * labels[..., None]), 2).permute(2, 0, 1)[None]
    highest = F.max_pool2d(layers, 3, 1, 1)
    lowest = -F.max_pool2d(-layers, 3, 1, 1)
    return (highest - lowest).amax((0, 1)).flatten() > _DETAIL


@functools.cache
def _kernel():
    ti = taichi()
    head, trunk, paint = head_distance(), torso_distance(), surface_colors()
    vec, vec2 = ti.math.vec3, ti.math.vec2
    Floats = array(torch.float32)

    @ti.func
    def moved(p, frame: ti.template(), at: ti.template()):
        """A point in camera coordinates -> coordinates of the head or the torso."""
        q = vec(0.0)
        for i in ti.static(range(3)):
            a = at + 4 * i
            q[i] = frame[a] * p.x + frame[a + 1] * p.y + frame[a + 2] * p.z + frame[a + 3]
        return q

    @ti.func
    def turned_to_camera(v, frame: ti.template(), at: ti.template()):
        q = vec(0.0)
        for i in ti.static(range(3)):
            q[i] = frame[at + i] * v.x + frame[at + 4 + i] * v.y + frame[at + 8 + i] * v.z
        return q

    @ti.func
    def scene(p, which: ti.i32, frame: ti.template(), grids: ti.template()):
        """Distance and material of the torso (0), the head (1), or both (2), at a point in camera coordinates.

        With 3 for both, the head is hollow: its distance is positive inside too.
        """
        d = vec2(1e3, SKIN)
        if which != 1:
            q = moved(p, frame, state.TORSO_FROM_CAMERA)
            if which >= 2 and q.y > 0.0:
                d.x = 2.5 + q.y  # the neck is inside the head there
            else:
                d = trunk(q, frame)
        if which != 0:
            q = moved(p, frame, state.HEAD_FROM_CAMERA)
            # Far from the head its bounding sphere is enough.
            far = (q - vec(_BOUND_CENTER)).norm() - _BOUND_RADIUS
            h = vec2(far, SKIN)
            if far < 1.0:
                h = head(q, frame, grids)
            if which == 3:
                h.x = ti.abs(h.x)
            if h.x < d.x:
                d = h
        return d

    @ti.func
    def corner_of_tetrahedron(k: ti.i32):
        x, y = ti.select(k == 0 or k == 3, 1.0, -1.0), ti.select(k >= 2, 1.0, -1.0)
        return vec(x, y, ti.select(k % 2 == 1, 1.0, -1.0))

    @ti.func
    def trace(d, which: ti.i32, t_near, t_far, frame: ti.template(), grids: ti.template()):
        """Distance, material (-1: none) and normal of the first hit of a ray.

        One loop marches along the ray and then samples the distances around the hit for the normal: each call
        site compiles the scene again, which takes seconds.
        """
        t = t_near
        kind, n_probes, width = -1, 0, 0.0
        n, e = vec(0.0), vec(0.0)
        precision, stride = ti.select(which == 1, 0.00012, 0.0004), ti.select(which == 1, 0.85, 0.9)
        for _ in range(70):
            if kind < 0 and t > t_far:
                break
            hit = scene(t * d + width * e, which, frame, grids)
            if kind >= 0:
                n += e * hit.x
                n_probes += 1
            elif hit.x < precision * t:
                kind = ti.cast(hit.y, ti.i32)
                width = ti.select(TEETH <= kind <= HAIR, 0.03, 0.09)
            else:
                t += stride * hit.x
            if n_probes == 4:
                break
            e = corner_of_tetrahedron(n_probes)
        return t, kind, n.normalized(1e-9)

    @ti.func
    def display(c):
        """Linear light -> display values in [0, 1]: a filmic shoulder and the sRGB curve."""
        c = ti.max(c, 0.0)
        c = c * (1.0 + c * 0.12) / (1.0 + c * 0.62)
        c = ti.min(c, 1.0)
        return ti.select(c < 0.0031308, 12.92 * c, 1.055 * ti.max(c, 1e-6) ** (1.0 / 2.4) - 0.055)

    @ti.func
    def lit(p, d, which: ti.i32, kind: ti.i32, n, frame: ti.template(), grids: ti.template()):
        """Display color of the point p of torso (0) or head (1), seen along d, with the normal n."""
        key, fill, rim = vec(-0.50, 0.46, 0.73), vec(0.80, 0.15, 0.58), vec(0.75, 0.45, -0.48)
        # Openness to the sky above the surface, and the shadow of the key light: from the nearest
        # surfaces along a few steps (Evans 2006), from the nearest miss (Quilez 2010).
        open_ = 1.0
        light = 1.0
        start_at = p + 0.12 * n
        t = 0.0
        weight = 0.55
        for step in range(15):
            probing_openness = step < 4
            height = 0.25 + 0.55 * step * (1.0 + 0.35 * step)
            q = p + height * n if probing_openness else start_at + key * t
            # Behind the head the neck is darkened only along the line where they meet.
            h = scene(q, ti.select(probing_openness and which == 0, 3, 2), frame, grids).x
            if probing_openness:
                open_ -= weight * ti.max(height - h, 0.0) / height
                weight *= 0.62
            else:
                light = ti.min(light, 0.5 + 0.5 * h / (0.02 + 0.09 * t))
                t += ti.max(h, 0.3)
                if light <= 0.0 or t > 22.0:
                    break
            if step == 3:
                t = 0.25
        open_ = ti.max(open_, 0.06)
        light = ti.max(light, ti.select(kind == TEETH, 0.4, 0.0))
        light = light * light * (3.0 - 2.0 * light)

        local = moved(p, frame, state.TORSO_FROM_CAMERA)
        if which == 1:
            local = moved(p, frame, state.HEAD_FROM_CAMERA)
        surface = paint.color(local, kind, frame)
        albedo, gloss = surface.xyz, surface.w
        ndk, ndf, ndr = n.dot(key), n.dot(fill), n.dot(rim)
        half = (key - d).normalized()
        facing = ti.max(-n.dot(d), 0.0)
        fresnel = 0.04 + 0.96 * (1.0 - facing) ** 5
        warm, cool, back = vec(2.1, 1.9, 1.7), vec(0.34, 0.40, 0.50), vec(1.5, 1.5, 1.6)
        sky = vec(0.44, 0.47, 0.54) * (0.6 + 0.4 * n.y) + vec(0.30, 0.24, 0.21) * (0.5 - 0.5 * n.y)

        c = vec(0.0)
        if kind == HAIR:
            along = turned_to_camera(paint.strand(local), frame, state.HEAD_FROM_CAMERA)
            along = (along - n * along.dot(n)).normalized()
            # Hair shading: Kajiya and Kay 1989.
            th, tk = along.dot(half), along.dot(key)
            sheen = ti.sqrt(ti.max(1.0 - th * th, 0.0))
            body = ti.sqrt(ti.max(1.0 - tk * tk, 0.0)) * ti.max(0.35 + 0.65 * ndk, 0.0)
            c = albedo * (warm * body * light + sky * open_ * 1.2 + cool * ti.max(ndf, 0.0) * open_)
            gleam = gloss * (0.55 * sheen**60 + 0.22 * sheen**14) * ti.max(ndk + 0.2, 0.0)
            c += (albedo * 1.6 + 0.015) * warm * light * gleam
            edge = 2.4 * (0.4 + 0.6 * gloss) * ti.max(ndr + 0.25, 0.0) * (1.0 - facing) ** 2
            c += (albedo * 1.2 + 0.02) * back * edge
        else:
            # Subsurface scattering: wrapped diffuse light, wider in red.
            wrap = vec(0.0)
            if kind <= NECK:
                wrap = vec(0.34, 0.16, 0.10)
            soft = ti.max((ndk + wrap) / (1.0 + wrap), 0.0)
            shade = light + (1.0 - light) * wrap * 0.35
            c = albedo * (warm * soft * shade + sky * open_ + cool * ti.max((ndf + 0.3) / 1.3, 0.0) * open_)
            shine = ti.max(n.dot(half), 0.0)
            if kind == EYEBALL:
                # Specular reflection of the cornea.
                c += 2.2 * light * ti.math.smoothstep(0.985, 0.991, shine) + 0.15 * fresnel
            elif kind != CAVITY:
                c += gloss * (0.10 * shine**14 + 0.09 * shine**48) * warm * light * (0.4 + 0.6 * open_)
            if CAVITY <= kind <= TEETH:
                c *= ti.select(kind == TEETH, 0.55 + 0.45 * open_, 0.25 + 0.75 * open_)
            c += albedo * back * ti.max(ndr, 0.0) * (1.0 - facing) ** 2 * 0.4 * open_
            if kind <= NECK:
                c += 0.2 * fresnel * sky * open_
        return display(c)

    @ti.kernel
    def render(
        frame: Floats,  # [35]
        grids: Floats,
        background: Floats,  # [H, W, 3]
        pixels: array(torch.int32),  # [N] indices of the pixels to trace
        size: ti.i32,
        n_pixels: ti.i32,
        per_side: ti.i32,
        image: Floats,  # [H, W, 3]
        torso: Floats,  # [H, W, 4]
        labels: array(torch.uint8),  # [H, W]
    ):
        for i in range(n_pixels):
            pixel = pixels[i]
            row, column = pixel // size, pixel % size
            behind = vec(background[3 * pixel], background[3 * pixel + 1], background[3 * pixel + 2])
            shown, worn = vec(0.0), vec(0.0)
            n_worn = 0
            counts = ti.Vector([0, 0, 0, 0])
            for sample in range(per_side * per_side):
                u = column + (sample % per_side + 0.5) / per_side
                v = row + (sample // per_side + 0.5) / per_side
                d = vec((u - 0.5 * size) / frame[state.FOCAL], (0.5 * size - v) / frame[state.FOCAL], -1.0).normalized()
                color = behind
                label = BACKGROUND_LABEL
                nearest = 1e3
                for which in range(2):
                    at = ti.select(which == 0, state.TORSO_FROM_CAMERA, state.HEAD_FROM_CAMERA)
                    t, t_far = 55.0, 135.0
                    if which == 1:
                        q = vec(_BOUND_CENTER) - vec(frame[at + 3], frame[at + 7], frame[at + 11])
                        center = turned_to_camera(q, frame, state.HEAD_FROM_CAMERA)
                        along = center.dot(d)
                        inside = _BOUND_RADIUS**2 - (center - along * d).norm_sqr()
                        if inside > 0.0:
                            t, t_far = along - ti.sqrt(inside), along + ti.sqrt(inside)
                        else:
                            t_far = 0.0
                    t, kind, n = trace(d, which, t, t_far, frame, grids)
                    if kind >= 0:
                        c = lit(t * d, d, which, kind, n, frame, grids)
                        if which == 0:
                            worn += c
                            n_worn += 1
                        if t < nearest:
                            nearest = t
                            color = c
                            label = ti.select(which == 1, HEAD_LABEL, ti.select(kind == NECK, NECK_LABEL, TORSO_LABEL))
                shown += color
                for k in ti.static(range(4)):
                    counts[k] += ti.select(label == k, 1, 0)
            n_samples = per_side * per_side
            best = 0
            for k in ti.static(range(4)):
                if counts[k] > counts[best]:
                    best = k
            labels[pixel] = ti.cast(best, ti.u8)
            for k in ti.static(range(3)):
                image[3 * pixel + k] = shown[k] / n_samples
                torso[4 * pixel + k] = worn[k] / ti.max(n_worn, 1)
            torso[4 * pixel + 3] = ti.cast(n_worn, ti.f32) / n_samples

    return render
