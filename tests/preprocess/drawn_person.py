"""A person drawn with a few ellipses, whom MediaPipe recognizes as a person."""

import cv2
import numpy as np

from ernerf_ti.preprocess.face_parts import JAW

SIDE = 256
SKIN, SHADED_SKIN, SHIRT, HAIR = (220, 170, 140), (190, 140, 115), (40, 50, 110), (50, 35, 25)
_CENTER_Y, _HALF_WIDTH, _HALF_HEIGHT = 108, 45, 60  # of the face


def draw_wall() -> np.ndarray:
    """[256, 256, 3] uint8 RGB."""
    y = np.linspace(0, 60, SIDE)[:, None, None]
    return np.broadcast_to(np.array([150, 170, 180]) - y, (SIDE, SIDE, 3)).astype(np.uint8)


def draw_person(x: int = 128, neck: tuple[int, int, int] = SHADED_SKIN) -> np.ndarray:
    """[256, 256, 3] uint8 RGB: shoulders, neck, head and hair in front of a wall, the face centered at column x."""
    frame = draw_wall().copy()
    cv2.ellipse(frame, (x, 300), (105, 115), 0, 0, 360, SHIRT, -1)
    cv2.rectangle(frame, (x - 22, 140), (x + 22, 205), neck, -1)
    cv2.ellipse(frame, (x, 92), (58, 70), 0, 0, 360, HAIR, -1)
    cv2.ellipse(frame, (x, _CENTER_Y), (_HALF_WIDTH, _HALF_HEIGHT), 0, 0, 360, SKIN, -1)
    for eye in (x - 18, x + 18):
        cv2.ellipse(frame, (eye, 98), (8, 4), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(frame, (eye, 98), 3, (40, 30, 20), -1)
        cv2.line(frame, (eye - 9, 86), (eye + 9, 86), (60, 40, 30), 2)
    cv2.line(frame, (x, 100), (x - 4, 122), SHADED_SKIN, 2)
    cv2.ellipse(frame, (x, 140), (16, 5), 0, 0, 360, (180, 80, 80), -1)
    return cv2.GaussianBlur(frame, (0, 0), 1.0)


def silhouette(x: int = 128) -> np.ndarray:
    """[256, 256] bool mask of the person."""
    return np.abs(draw_person(x).astype(int) - draw_wall()).max(-1) > 20


def mesh_points(x: int = 128) -> np.ndarray:
    """[478, 2] px: the points of the outline and the cheeks on the drawn face, all others at its center."""
    points = np.tile(np.array([x, _CENTER_Y], float), (478, 1))

    def on_outline(degrees):
        turn = np.radians(degrees)
        return np.stack((x + _HALF_WIDTH * np.cos(turn), _CENTER_Y + _HALF_HEIGHT * np.sin(turn)), -1)

    points[list(JAW)] = on_outline(np.linspace(150, 30, len(JAW)))
    points[[10, 234, 454]] = on_outline(np.array([-90, 180, 0]))
    points[[50, 205, 425, 280]] = [(x - 27, 112), (x - 22, 125), (x + 22, 125), (x + 27, 112)]
    return points
