"""Motion of the synthetic person: head poses, a torso that follows with a delay, and blinks."""

from dataclasses import dataclass

import numpy as np

from ernerf_ti.data.synthetic.frame_state import FrameState
from ernerf_ti.data.synthetic.mouth import FRAME_RATE

CAMERA_DISTANCE = 1.0
"""Meters from the camera to the middle of the head."""

_HEIGHT = 0.014  # of the middle of the head over the middle of the picture, meters
_HEAD_PIVOT = np.array([0.0, -0.06, -0.04])  # upper end of the spine
_TORSO_PIVOT = np.array([0.0, -0.40, -0.06])  # hips
_TORSO_LAG = 0.12  # seconds

# Largest deviation from rest: yaw, pitch, roll in radians; to the right, up, towards the camera in meters.
_HEAD_RANGE = np.array([0.20, 0.12, 0.085, 0.016, 0.008, 0.016])
_TORSO_RANGE = np.array([0.02, 0.01, 0.014, 0.007, 0.003, 0.007])


@dataclass(frozen=True)
class Motion:
    """Poses of head and torso and closure of the eyes in n frames.

    Attributes:
        poses: [n, 4, 4] float64 pose_world_from_camera, world = head, meters, OpenGL camera.
        torsos: [n, 4, 4] float64 torso_from_camera; at rest the torso's frame is the head's.
        blinks: [n] float32, 0 open, 1 closed.
    """

    poses: np.ndarray
    torsos: np.ndarray
    blinks: np.ndarray

    def state(self, k: int, mouth: np.ndarray) -> FrameState:
        """State of frame k with a mouth [3], columns :data:`ernerf_ti.data.synthetic.mouth.MOUTH_COLUMNS`."""
        opening, width, rounding = map(float, mouth)
        return FrameState(self.poses[k], self.torsos[k], float(self.blinks[k]), opening, width, rounding)


BLINKS = {"natural": ((1.5, 5.0), (0.05, 0.05)), "frequent": ((0.5, 1.6), (0.05, 0.55))}
"""Seconds between blinks and seconds that the eyes stay closed, each as a range. "frequent" is for training: closed
eyes are seen in many poses."""


def natural_motion(n_frames: int, seed: int, blinks: str = "natural") -> Motion:
    """Smooth, deterministic motion of a person who talks to the camera.

    Args:
        n_frames: at 25 per second.
        seed: of poses and blinks.
        blinks: a key of BLINKS. Poses do not depend on it.
    """
    rng = np.random.default_rng([seed, 3])
    times = np.arange(n_frames) / FRAME_RATE
    hz = rng.uniform(0.06, 0.42, (10, 6))
    phases = rng.uniform(0, 2 * np.pi, (10, 6))

    def wander(at: np.ndarray, slowness: float) -> np.ndarray:
        """[n, 6] in (-1, 1): sums of sines, low-passed with a time constant of `slowness` seconds."""
        waves = np.sin(2 * np.pi * hz * at[:, None, None] + phases) / (1 + (slowness * hz) ** 2)
        return np.tanh(0.45 * waves.sum(1))

    heads = wander(times, 0.0) * _HEAD_RANGE
    torsos = wander(times - _TORSO_LAG, 0.5) * _TORSO_RANGE
    return Motion(
        np.linalg.inv(_camera_from_body(heads, _HEAD_PIVOT)),
        np.linalg.inv(_camera_from_body(torsos, _TORSO_PIVOT)),
        _blinks(times, rng, *BLINKS[blinks]),
    )


def _camera_from_body(moves: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """[n, 6] angles and translations -> [n, 4, 4], meters."""
    yaw, pitch, roll = moves[:, 0], moves[:, 1], moves[:, 2]
    rotation = _turn(1, yaw) @ _turn(0, pitch) @ _turn(2, roll)
    transform = np.zeros((len(moves), 4, 4))
    transform[:, :3, :3] = rotation
    transform[:, :3, 3] = pivot - rotation @ pivot + moves[:, 3:] + (0.0, _HEIGHT, -CAMERA_DISTANCE)
    transform[:, 3, 3] = 1
    return transform


def _turn(axis: int, angles: np.ndarray) -> np.ndarray:
    c, s = np.cos(angles), np.sin(angles)
    matrix = np.zeros((len(angles), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, i, i], matrix[:, j, j] = c, c
    matrix[:, i, j], matrix[:, j, i] = -s, s
    return matrix


def _blinks(
    times: np.ndarray, rng: np.random.Generator, every: tuple[float, float], held: tuple[float, float]
) -> np.ndarray:
    """The lids close in 0.1 s, stay closed for `held` seconds, and open in 0.18 s."""
    closed = np.zeros(len(times))
    start = rng.uniform(0.4, 2.0)
    while len(times) and start < times[-1]:
        since = times - start
        falling = np.clip(since / 0.10, 0, 1)
        pause = held[0] if held[0] == held[1] else rng.uniform(*held)
        rising = np.clip((since - 0.10 - pause) / 0.18, 0, 1)
        closed = np.maximum(closed, falling * falling * (3 - 2 * falling) * (1 - rising * rising * (3 - 2 * rising)))
        start += pause - held[0] + rng.uniform(*every)
    return closed.astype(np.float32)
