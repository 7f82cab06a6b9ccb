"""A head that is a ball with a moving spot, as a portrait that nothing was trained on."""

import pytest
import torch

from ernerf_ti.bake.baking import TrainingConditions
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs
from ernerf_ti.run.checkpoint import save_checkpoint
from ernerf_ti.run.serialization import config_to_dict
from ernerf_ti.train.config import PRESETS, TrainConfig
from taichi_kernels import cell_centers, pack_bits

INTRINSICS, SIZE = (160.0, 160.0, 16.0, 16.0), (32, 32)
N = 6


@pytest.fixture(scope="session")
def portrait() -> Portrait:
    """Noise, made dense within a ball."""
    torch.manual_seed(3)
    portrait = Portrait(PRESETS["small"].portrait, 42, N).requires_grad_(False)
    head = portrait.head
    torch.nn.init.normal_(head.position_encoder.encoding.tables, std=0.5)
    # The first output of the density network is the logarithm of the density.
    head.density_net.layers[-1].weight[0] *= 8.0
    head.density_net.layers[0].weight[:, -33:] *= 4.0  # of speech and eye closure
    grid = portrait.head_grid
    centers = cell_centers(grid.config.resolution, 0, 1.0, "cpu")
    grid.set_bitfield(pack_bits((centers.norm(dim=1) < 0.12).float()[None], 0.5))
    return portrait


@pytest.fixture(scope="session")
def trained_on(portrait) -> TrainingConditions:
    torch.manual_seed(5)
    poses = torch.eye(4).repeat(N, 1, 1)
    poses[:, :3, :3] = torch.tensor([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])
    poses[:, 1, 3] = 2.0
    poses[:, 0, 3] = torch.linspace(-0.1, 0.1, N)
    codes = portrait.head.audio_encoder(torch.randn(N, 8, 42, 16) * 3)
    return TrainingConditions(codes, torch.linspace(0, 1, N), poses)


@pytest.fixture
def inputs(trained_on) -> FrameInputs:
    torch.manual_seed(7)
    return FrameInputs(torch.randn(8, 42, 16), torch.tensor([0.2]), None, trained_on.poses[2])


@pytest.fixture
def run(portrait, trained_on, tmp_path):
    """A run folder of the portrait, as training leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    content = {
        "portrait_config": config_to_dict(portrait.config),
        "portrait": portrait.state_dict(),
        "capture": {"extractor": "ppg", "feature_dimension": 42, "width": SIZE[0], "height": SIZE[1], "n_train": N},
        "scene": {
            "intrinsics": torch.tensor(INTRINSICS, dtype=torch.float64),
            "poses": trained_on.poses,
            "eye_closures": trained_on.eye_closures,
            "background": torch.full((*SIZE, 3), 90, dtype=torch.uint8),
        },
        "train_config": config_to_dict(TrainConfig()),
        "stage": "head",
        "step": 1,
        "stage_finished": True,
        "optimizer": {"left": "out"},
        "consent": {"by": "Jane Doe", "date": "2026-11-01", "purpose": "a test"},
    }
    save_checkpoint(folder / "checkpoint.pt", content)
    return folder
