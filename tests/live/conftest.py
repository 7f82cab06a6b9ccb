"""An untrained portrait with stand-ins for its renderer, and a clock that runs only while it is waited for."""

import dataclasses

import numpy as np
import pytest
import torch

from ernerf_ti.live import LivePortrait, SimulatedClock
from ernerf_ti.live.quality import SCALES
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.train.config import PRESETS

RATE = 16_000


@pytest.fixture(scope="session")
def trained() -> TrainedPortrait:
    torch.manual_seed(0)
    portrait = Portrait(PRESETS["small"].portrait, 80, 3).requires_grad_(False)
    poses = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    poses[:, 2, 3] = 0.8
    poses[:, 0, 3] = torch.linspace(-0.02, 0.02, 5)
    return TrainedPortrait(
        portrait,
        "mel",
        80,
        (80.0, 80.0, 16.0, 16.0),
        (32, 32),
        scene_from_capture(poses).float(),
        torch.linspace(0, 1, 5),
        torch.full((32, 32, 3), 0.5),
    )


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """[S] 0.61 s that is loud and quiet in turns."""
    generator = np.random.default_rng(1)
    loudness = np.repeat(generator.uniform(0.01, 0.3, 16), 610)
    return (loudness * generator.uniform(-1, 1, len(loudness))).astype(np.float32)


class Pictures:
    """Keeps what it is to render; takes time on a clock."""

    size, scales = (4, 4), SCALES

    def __init__(self, clock=None, seconds=0.0):
        self.clock, self.seconds, self.inputs, self.used_scales = clock, seconds, [], []

    def picture(self, inputs, background, scale):
        if self.clock is not None:
            self.clock.pass_by(self.seconds * scale**2)
        self.inputs.append(inputs)
        self.used_scales.append(scale)
        return np.full((4, 4, 3), len(self.inputs) % 256, np.uint8)


class Stage:
    """A session of a portrait with stand-ins."""

    def __init__(self, trained, seconds=0.0, features=None, **options):
        self.clock = SimulatedClock()
        self.pictures = Pictures(self.clock, seconds)
        self.portrait = LivePortrait(trained, self.pictures)
        if features:
            self.portrait.features = dataclasses.replace(self.portrait.features, **features)
        self.session = self.portrait.session(clock=self.clock, **options)
        self.reading = self.session.frames()

    def read(self, n):
        return [next(self.reading) for _ in range(n)]

    @property
    def windows(self):
        return np.stack([inputs.windows for inputs in self.pictures.inputs])


def sound_of(frames):
    return np.concatenate([frame.sound[0] for frame in frames])
