"""How the synthetic person moves: head poses, the torso that follows them late, blinks."""

from dataclasses import dataclass

import numpy as np

from ernerf_ti.data.synthetic.mouth import FRAME_RATE

CAMERA_DISTANCE = 1.0
"""Metres from the camera to the middle of the head."""

_HEIGHT = 0.014  # of the middle of the head over the middle of the picture, metres
_HEAD_PIVOT = np.array([0.0, -0.06, -0.04])  # top of the spine
_TORSO_PIVOT = np.array([0.0, -0.40, -0.06])  # hips
_TORSO_LAG = 0.12  # seconds

# Furthest from rest: yaw, pitch, roll in radians; to the right, up, towards the camera in metres.
_HEAD_RANGE = np.array([0.20, 0.12, 0.085, 0.016, 0.008, 0.016])
_TORSO_RANGE = np.array([0.02, 0.01, 0.014, 0.007, 0.003, 0.007])


@dataclass(frozen=True)
class Motion:
    """Where head and torso are, and how far the eyes are shut, in n frames.

    Attributes:
        poses: [n, 4, 4] float64 pose_world_from_camera, world = head, metres, OpenGL camera.
        torsos: [n, 4, 4] float64 torso_from_camera; the torso's frame is the head's while both are at rest.
        blinks: [n] float32, 0 open, 1 closed.
    """

    poses: np.ndarray
    torsos: np.ndarray
    blinks: np.ndarray


def natural_motion(n_frames: int, seed: int) -> Motion:
    """Motion of a person who talks to the camera, smooth and deterministic."""
    rng = np.random.default_rng([seed, 3])
    times = np.arange(n_frames) / FRAME_RATE
    hz = rng.uniform(0.06, 0.42, (10, 6))
    phases = rng.uniform(0, 2 * np.pi, (10, 6))

    def wander(at: np.ndarray, slowness: float) -> np.ndarray:
        """[n, 6] in (-1, 1): sums of slow waves; fast ones are left out by `slowness` seconds."""
        waves = np.sin(2 * np.pi * hz * at[:, None, None] + phases) / (1 + (slowness * hz) ** 2)
        return np.tanh(0.45 * waves.sum(1))

    heads = wander(times, 0.0) * _HEAD_RANGE
    torsos = wander(times - _TORSO_LAG, 0.5) * _TORSO_RANGE
    return Motion(
        np.linalg.inv(_camera_from_body(heads, _HEAD_PIVOT)),
        np.linalg.inv(_camera_from_body(torsos, _TORSO_PIVOT)),
        _blinks(times, rng),
    )


def _camera_from_body(moves: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """[n, 6] angles and shifts -> [n, 4, 4] metres."""
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


def _blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every 1.5 to 5 s; the lids close in 0.1 s, stay for 0.05 s, and open in 0.18 s."""
    closed = np.zeros(len(times))
    start = rng.uniform(0.4, 2.0)
    while len(times) and start < times[-1]:
        since = times - start
        falling = np.clip(since / 0.10, 0, 1)
        rising = np.clip((since - 0.15) / 0.18, 0, 1)
        closed = np.maximum(closed, falling * falling * (3 - 2 * falling) * (1 - rising * rising * (3 - 2 * rising)))
        start += rng.uniform(1.5, 5.0)
    return closed.astype(np.float32)
