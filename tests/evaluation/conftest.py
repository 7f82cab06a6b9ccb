"""Synthetic faces, speech features and settings."""

import numpy as np
import pytest

from ernerf_ti.audio.windows import audio_windows
from ernerf_ti.evaluation.metric import ImageSequence, Setting
from ernerf_ti.preprocess.face_mesh import N_POINTS


def landmarks(center=(32.0, 32.0), size=20.0):
    """[68, 2] roughly a face: an oval, two eyes, two rings of lips."""
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack((np.cos(angles), np.sin(angles)), 1) * size
    points[36:42] = (-0.4 * size, -0.3 * size)
    points[42:48] = (0.4 * size, -0.3 * size)
    ring = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points[48:60] = np.stack((np.cos(ring), np.sin(ring)), 1) * size * 0.3 + (0, 0.5 * size)
    points[60:68] = (0, 0.5 * size)
    points[61:64, 1] -= 2
    points[65:68, 1] += 2
    return (points + center).astype(np.float32)


def mesh_face(n=4):
    """[n, 478, 3]: a mesh whose eyes are 60 px apart, mouth 40 wide, lips 12 apart inside and 30 high outside."""
    points = np.zeros((n, N_POINTS, 3), np.float32)
    for corners, x in (((33, 133), (-40, -20)), ((263, 362), (40, 20))):
        points[:, list(corners), 0] = x
    for upper, lower in ((82, 87), (13, 14), (312, 317)):
        points[:, upper, 1], points[:, lower, 1] = 44, 56
    points[:, 0, 1], points[:, 17, 1] = 35, 65
    points[:, 61], points[:, 291] = (-20, 50, 5), (20, 50, 5)
    return points


def smooth_noise(n, width, rng):
    """[n] of about unit variance, correlated over `width` values."""
    noise = rng.standard_normal(n + width - 1)
    return np.lib.stride_tricks.sliding_window_view(noise, width).sum(-1) / width**0.5


def talker(n=360, seed=0, noise=0.3):
    """[n, 16, 5] windows and [n, 3] targets: linear in them, in their absolute value, and noise."""
    rng = np.random.default_rng(seed)
    features = np.stack([smooth_noise(2 * n, 5, rng) for _ in range(5)], 1)
    windows = audio_windows(features.astype(np.float32), n)
    heard = windows[:, 12].astype(float)
    targets = np.stack((heard[:, 0] - 0.5 * heard[:, 1], np.abs(heard[:, 2]), np.zeros(n)), 1)
    return windows, targets + noise * rng.standard_normal((n, 3)) + 3


@pytest.fixture
def make_setting():
    """ImageSequence [n, H, W, 3] and what they are compared with, as a setting."""

    def make(images, truth=None, samples=None, times=None, windows=None, name="head"):
        def sequence(array):
            return ImageSequence(len(array), lambda i: array[i])

        n = len(images)
        return Setting(
            name,
            "made by hand",
            sequence(images),
            None if truth is None else sequence(truth),
            lambda i: landmarks(),
            np.arange(n) if times is None else times,
            samples,
            np.zeros((n, 16, 2), np.float32) if windows is None else windows,
        )

    return make
