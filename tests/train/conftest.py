"""A tiny capture of a synthetic person, with which a training step takes milliseconds."""

import dataclasses

import pytest

from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.train.config import PRESETS, TrainConfig
from tests.data.conftest import make_capture  # noqa: F401, a fixture


@pytest.fixture(scope="session")
def capture(tmp_path_factory, pytestconfig) -> Capture:
    folder = tmp_path_factory.mktemp("tiny") / "capture"
    # Not by the fixture `device`, which only tests that train there take.
    person = SyntheticPortrait(22, 48, seed=1, device=pytestconfig.getoption("--device"))
    write_portrait_capture(person, folder)
    return open_capture(folder)


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    small = PRESETS["small"]
    return dataclasses.replace(
        small,
        portrait=dataclasses.replace(
            small.portrait, head_grid=dataclasses.replace(small.portrait.head_grid, resolution=32)
        ),
        head=dataclasses.replace(small.head, iterations=10, n_rays=256),
        finetune=dataclasses.replace(
            small.finetune, iterations=4, n_rays=256, patch_size=16, perceptual="dssim", eyes_every=0
        ),
        torso=dataclasses.replace(small.torso, iterations=6, n_rays=256),
        rare_frames_fraction=0.0,
        silence_fraction=0.0,
        grid_update_every=4,
        save_every=3,
        validate_every=5,
        validation_frames=1,
        log_every=2,
    )
