"""State of one frame of the scene, and its packing into the row of floats that the kernels read."""

from dataclasses import dataclass

import numpy as np

HEAD_FROM_CAMERA = 0  # 3 x 4, row by row, in cm
TORSO_FROM_CAMERA = 12
NECK_TOP = 24  # where the neck ends inside the head, in torso coordinates, cm
BLINK = 27
OPENING = 28  # cm between the inner lips
HALF_WIDTH = 29  # cm from the middle of the mouth to its corner
ROUNDING = 30
GAZE = 31  # tangents of the angles to the right, up
FOCAL = 33  # pixels
SIZE = 34

_NECK_TOP_IN_HEAD = np.array([0.0, -5.5, -4.2])


@dataclass(frozen=True)
class FrameState:
    """State of one frame.

    Attributes:
        pose_world_from_camera: [4, 4] meters, world = head.
        torso_from_camera: [4, 4] meters; at rest the torso's frame is the head's.
        blink: 0 open, 1 closed.
        opening: meters between the inner lips.
        width: meters from corner to corner of the mouth.
        rounding: 0 spread or neutral, 1 fully protruded.
    """

    pose_world_from_camera: np.ndarray
    torso_from_camera: np.ndarray
    blink: float
    opening: float
    width: float
    rounding: float

    def packed(self, focal: float, size: int) -> np.ndarray:
        """[35] float32 at the offsets above."""
        head = _in_cm(self.pose_world_from_camera)
        torso = _in_cm(self.torso_from_camera)
        neck_top = (torso @ np.linalg.inv(head) @ np.append(_NECK_TOP_IN_HEAD, 1.0))[:3]
        # The eyes turn half of the way back to the camera.
        gaze = 0.5 * head[:2, 3] / head[2, 3]
        mouth = (self.blink, 100 * self.opening, 50 * self.width, self.rounding)
        row = np.concatenate((head[:3].ravel(), torso[:3].ravel(), neck_top, mouth, gaze, (focal, size)))
        return row.astype(np.float32)


def _in_cm(transform: np.ndarray) -> np.ndarray:
    scaled = np.array(transform, np.float64)
    scaled[:3, 3] *= 100
    return scaled
