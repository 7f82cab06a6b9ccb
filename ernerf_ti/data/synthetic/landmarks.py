"""The 68 landmarks of the synthetic face, in the order of iBUG 300-W (Sagonas et al. 2013).

Points on lips and lids come from the curves that shape them; the other points lie on the skin at rest and
move with the jaw.
"""

import functools

import numpy as np
import torch

from ernerf_ti.data.synthetic import frame_state as state
from ernerf_ti.data.synthetic.head_shape import CELL, EYE, GRID_LOW, GRID_SIZE, LID_RADIUS, head_grids
from ernerf_ti.data.synthetic.solid_geometry import solids
from ernerf_ti.data.synthetic.talking_face import (
    BROW_CURVE,
    BROW_LENGTH,
    BROW_X,
    FISSURE,
    JAW_HINGE,
    JAW_PER_OPENING,
    LID_SHIFT,
    MOUTH_Y,
    face_curves,
)
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.runtime import array, is_cuda, launch, start, taichi

N_LANDMARKS = 68

_EYES = slice(36, 48)
_LIPS = slice(48, 68)
# Eyelids: x outwards from the middle of the eye, 1 on the upper edge; first the eye at negative x.
_LID_X = FISSURE * np.array([1, 0.4, -0.4, -1, -0.4, 0.4, -1, -0.4, 0.4, 1, 0.4, -0.4])
_LID_UPPER = np.array([1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0])
# Lips: x in half widths of the mouth; which of the four edges of face_curves().lip_edges.
_LIP_X = np.array([-1, -0.6, -0.2, 0, 0.2, 0.6, 1, 0.6, 0.2, 0, -0.2, -0.6, -0.9, -0.35, 0, 0.35, 0.9, 0.35, 0, -0.35])
_LIP_EDGE = np.array([1] * 7 + [3] * 5 + [0] * 5 + [2] * 3)


def face_landmarks(frame: torch.Tensor) -> np.ndarray:
    """[35] packed state of a frame -> [68, 2] float64 x, y in pixels; centers of pixels are at + 0.5."""
    moved = torch.empty(3 * N_LANDMARKS, dtype=torch.float32, device=frame.device)
    table = torch.from_numpy(_rest_table(frame.device)).to(frame.device)
    start(frame.device, "frame")
    launch(_kernel(is_cuda()), table, frame, moved)
    points = moved.view(-1, 3).cpu().numpy().astype(np.float64)
    row = frame.cpu().numpy().astype(np.float64)
    transform = row[:12].reshape(3, 4)
    seen = (points - transform[:, 3]) @ transform[:, :3]
    return row[state.FOCAL] * seen[:, :2] * (1, -1) / -seen[:, 2:] + row[state.SIZE] / 2


@functools.cache
def _rest_table(device: torch.device) -> np.ndarray:
    """[68, 3] float32: a position in cm; for lids x, whether upper, side; for lips x in half widths, edge, 0."""
    table = np.zeros((N_LANDMARKS, 3), np.float32)
    skin = head_grids(device)[: np.prod(GRID_SIZE)].view(GRID_SIZE).cpu().numpy()
    forwards = np.array([0.0, 0.0, 1.0])
    for i, angle in enumerate(np.linspace(0, np.pi, 17)):
        outwards = np.array([-np.cos(angle), -np.sin(angle), 0.0])
        table[i] = _surface(skin, np.array([0.0, 1.8, -0.3 + 4.6 * np.sin(angle) ** 3]), outwards)
    for i, u in enumerate((0.95, 0.73, 0.5, 0.26, 0.05)):
        height = BROW_CURVE[0] + BROW_CURVE[1] * u * (BROW_CURVE[2] - u)
        position = np.array([BROW_X + BROW_LENGTH * u, height, 0.0])
        table[17 + i] = _surface(skin, position * (-1, 1, 1), forwards)
        table[26 - i] = _surface(skin, position, forwards)
    for i, y in enumerate((3.0, 1.75, 0.5, -0.75)):
        table[27 + i] = _surface(skin, np.array([0.0, y, 0.0]), forwards)
    for i, (x, y) in enumerate(((-1.35, -1.75), (-0.7, -2.15), (0.0, -2.05), (0.7, -2.15), (1.35, -1.75))):
        table[31 + i] = _surface(skin, np.array([x, y, 0.0]), forwards)
    table[_EYES] = np.stack((_LID_X - LID_SHIFT, _LID_UPPER, np.repeat((-1, 1), 6)), 1)
    table[_LIPS] = np.stack((_LIP_X, _LIP_EDGE, np.zeros(20)), 1)
    return table


def _surface(skin: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Outermost point of the skin along a ray from inside the head."""
    points = origin + np.arange(0.0, 12.0, 0.01)[:, None] * direction
    cells = (np.abs(points) * (1, 0, 0) + points * (0, 1, 1) - GRID_LOW) / CELL
    cells = np.clip(cells, 0, np.array(GRID_SIZE) - 1.001)
    base = cells.astype(int)
    f = cells - base
    distances = np.zeros(len(points))
    for corner in np.ndindex(2, 2, 2):
        weights = np.where(corner, f, 1 - f).prod(1)
        distances += weights * skin[tuple((base + corner).T)]
    return points[np.flatnonzero(distances < 0)[-1]]


@functools.cache
def _kernel(on_cuda: bool):
    ti = taichi()
    curves, s = face_curves(), solids()
    vec = ti.math.vec3
    Floats = array(torch.float32)

    @parallel_kernel(on_cuda)
    def move(
        table: Floats,  # [68, 3]
        frame: Floats,
        moved: Floats,  # [68, 3] cm in the head frame
    ):
        for i in range(N_LANDMARKS):
            a = vec(table[3 * i], table[3 * i + 1], table[3 * i + 2])
            opening, half_width = frame[state.OPENING], frame[state.HALF_WIDTH]
            p = a
            if i >= 48:
                x = a.x * half_width
                edges = curves.lip_edges(x, opening, half_width)
                y = edges[0]
                for k in ti.static(range(1, 4)):
                    if ti.cast(a.y, ti.i32) == k:
                        y = edges[k]
                p = vec(x, y, curves.lip_front(x, frame[state.ROUNDING]))
            elif i >= 36:
                lids = curves.lid_edges(a.x, frame[state.BLINK])
                y = ti.select(a.y > 0.5, lids[0], lids[1])
                z = ti.sqrt(ti.max(LID_RADIUS**2 - a.x * a.x - y * y, 0.16))
                p = vec(a.z * (EYE[0] + a.x), EYE[1] + y, EYE[2] + z)
            else:
                angle = JAW_PER_OPENING * opening * s.smooth_step(MOUTH_Y + 1.5, MOUTH_Y - 1.0, a.y)
                y, z = a.y - JAW_HINGE[0], a.z - JAW_HINGE[1]
                c, n = ti.cos(angle), ti.sin(angle)
                p = vec(a.x, JAW_HINGE[0] + c * y - n * z, JAW_HINGE[1] + c * z + n * y)
            for k in ti.static(range(3)):
                moved[3 * i + k] = p[k]

    return move
