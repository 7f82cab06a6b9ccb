"""An untrained portrait and a short sound."""

import numpy as np
import pytest
import torch

from ernerf_ti.media.video_writer import write_video
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.train.config import PRESETS


@pytest.fixture(scope="module")
def trained() -> TrainedPortrait:
    torch.manual_seed(0)
    portrait = Portrait(PRESETS["small"].portrait, 42, 3).requires_grad_(False)
    poses = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    poses[:, 2, 3] = 0.8
    poses[:, 0, 3] = torch.linspace(-0.02, 0.02, 5)
    return TrainedPortrait(
        portrait,
        "ppg",
        42,
        (80.0, 80.0, 16.0, 16.0),
        (32, 32),
        scene_from_capture(poses).float(),
        torch.linspace(0, 1, 5),
        torch.full((32, 32, 3), 0.5),
    )


@pytest.fixture
def speech(tmp_path):
    sound = 0.3 * np.sin(np.arange(16_000 * 2) * 0.05).astype(np.float32)[: 16_000 // 2 + 100]
    path = tmp_path / "speech.mp4"
    write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 13, 25, sound)
    return path
