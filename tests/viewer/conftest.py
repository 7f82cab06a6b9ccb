"""A tiny untrained portrait whose images depend on every input, and a viewer with a clock of its own."""

import dataclasses

import numpy as np
import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.train.config import PRESETS
from ernerf_ti.viewer.clip import SAMPLES_PER_FRAME, Clip
from ernerf_ti.viewer.offscreen import ScriptTime
from ernerf_ti.viewer.screen import Layout
from ernerf_ti.viewer.sound import SilentOutput
from ernerf_ti.viewer.viewer import RuntimeOptions, Viewer

N_FRAMES = 6


@pytest.fixture(scope="session")
def trained() -> TrainedPortrait:
    torch.manual_seed(3)
    small = PRESETS["small"].portrait
    config = dataclasses.replace(
        small,
        head=dataclasses.replace(small.head, eye_closure_scale=1.0),  # the weights below are large already
        head_grid=dataclasses.replace(small.head_grid, resolution=32),
    )
    portrait = Portrait(config, 42, 3).requires_grad_(False)
    # A block of dense cells, so that there is a head with an outline; weights that let each input count.
    grid = portrait.head_grid
    grid.density_grid.zero_()
    centers = tk.cell_centers(32)
    grid.density_grid[0, (centers.abs() < torch.tensor([0.3, 0.2, 0.2])).all(1)] = 20.0
    grid.mean_density.fill_(1.0)
    grid.set_bitfield(tk.pack_bits(grid.density_grid, 10.0))
    portrait.torso_grid.alpha_grid.fill_(1.0)
    portrait.torso_grid.mean_alpha.fill_(1.0)
    for name, parameter in portrait.named_parameters():
        if name.endswith("table"):
            parameter.uniform_(0, 1.5)
        if name.endswith("embeddings"):
            parameter.mul_(20)
        if name.startswith("head.audio_encoder"):
            parameter.mul_(2.5)
        if name.startswith(("head.region_attention", "head.density_net")):
            parameter.mul_(4)
    dense = centers[grid.density_grid[0] > 0]
    head = portrait.head
    log_density = head.densities(dense, torch.zeros(head.config.audio_code_size), torch.zeros(1)).log().mean()
    head.density_net.layers[-1].weight[0].mul_(3.5 / log_density)
    poses = torch.eye(4, dtype=torch.float64).repeat(N_FRAMES, 1, 1)
    poses[:, 2, 3] = 0.8
    poses[:, 0, 3] = torch.linspace(-0.03, 0.03, N_FRAMES)
    return TrainedPortrait(
        portrait,
        "ppg",
        42,
        (110.0, 110.0, 16.0, 16.0),
        (32, 32),
        scene_from_capture(poses).float(),
        torch.linspace(0, 1, N_FRAMES),
        torch.rand(32, 32, 3),
    )


@pytest.fixture
def clip(trained) -> Clip:
    generator = torch.Generator().manual_seed(1)
    samples = 0.4 * np.sin(np.arange(N_FRAMES * SAMPLES_PER_FRAME) * 0.05)
    return Clip(
        "tone",
        samples.astype(np.float32),
        torch.rand(N_FRAMES, 16, 42, generator=generator) * 4,
        trained.poses,
        np.arange(N_FRAMES),
        np.linspace(0, 1, N_FRAMES, dtype=np.float32),
        np.zeros(N_FRAMES, np.float32),
        lambda k: np.full((32, 32, 3), 40 * k, np.uint8),
    )


@pytest.fixture
def time() -> ScriptTime:
    return ScriptTime()


@pytest.fixture
def viewer(trained, clip, time, tmp_path):
    options = RuntimeOptions(
        *(tmp_path / "out", Layout(200, 220)),
        inbox=tmp_path / "inbox",
        refine_seconds=float("inf"),
        wait_for_sound=True,
        mesh_resolution=48,
    )
    viewer = Viewer(trained, clip, SilentOutput(time=time), options, time, own_clip=clip)
    viewer.act({"set": {"auto_scale": False}})
    yield viewer
    viewer.close()
