"""Runs made by version 0.1.0 (format version 1 of checkpoints): a tiny one, stopped while fine-tuning, is a fixture.

The archive holds `capture/`, `run/`, and in `frames.npz` three frames that 0.1.0 rendered of the run: as it was
stopped, and after 0.1.0 had resumed it and trained it to its end.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ernerf_ti.data.capture import open_capture
from ernerf_ti.run.checkpoint import FORMAT_VERSION, load_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.synthesis.driving import blinks, head_path
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.train.trainer import Trainer

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures" / "run_0_1_0.zip"


@pytest.fixture
def folder(tmp_path) -> Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def rendered(run: Path, capture, device) -> np.ndarray:
    trained = load_portrait(run, device)
    windows = torch.from_numpy(capture.audio_windows)[3:6]
    poses, frames = head_path(trained, 3)
    outputs = render_frames(trained, windows, poses, blinks(trained, 3, "capture"), trained.background, True, frames)
    return np.stack([output.rgb.cpu().numpy() for output in outputs])


def test_renders_the_same_image(folder, device):
    expected = np.load(folder / "frames.npz")["stopped"]
    assert expected.std() > 0.05
    found = rendered(folder / "run", open_capture(folder / "capture"), device)
    if device.type == "cpu":
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:  # a sample within rounding of a cell's face may fall on its other side
        assert np.abs(found - expected).mean() < 2e-4


def test_resumes_to_the_same_end(folder, device):
    capture = open_capture(folder / "capture")
    frames = np.load(folder / "frames.npz")
    trainer = Trainer.resume(capture, folder / "run", device)
    assert (trainer.stage, trainer.step) == ("finetune", 7)
    assert trainer.run()
    assert load_checkpoint(RunFolder(folder / "run").checkpoint)["format_version"] == FORMAT_VERSION
    assert np.abs(frames["ended"] - frames["stopped"]).max() > 0.05
    difference = np.abs(rendered(folder / "run", capture, device) - frames["ended"])
    if device.type == "cpu":
        # This version draws other cells of the occupancy grid to evaluate, where it draws them (fraction < 1), so that
        # some rays have other samples.
        assert difference.max() < 0.01 and difference.mean() < 2e-4
    else:  # all random numbers are others: 0.003 to 0.004 measured
        assert difference.mean() < 0.01 < np.abs(frames["stopped"] - frames["ended"]).mean()


def test_former_name_of_an_extractor(folder):
    path = RunFolder(folder / "run").checkpoint
    content = torch.load(path, weights_only=True)
    content["capture"]["extractor"] = "senone"
    torch.save(content, path)
    assert load_checkpoint(path)["capture"]["extractor"] == "ppg"
