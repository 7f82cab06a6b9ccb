"""Runs and captures of earlier versions, which named phone posteriors "senone", go on under today's name."""

import json
import shutil

import pytest
import torch

from ernerf_ti.data.capture import open_capture
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.trainer import Trainer


@pytest.fixture
def former_run(capture, config, tmp_path):
    run = tmp_path / "run"
    Trainer(capture, config, run).save()
    content = torch.load(RunFolder(run).checkpoint, weights_only=True)
    content["capture"]["extractor"] = "senone"
    torch.save(content, RunFolder(run).checkpoint)
    return run


@pytest.fixture
def former_capture(capture, tmp_path):
    folder = tmp_path / "capture"
    shutil.copytree(capture.folder, folder)
    (folder / "aud_ppg.npy").rename(folder / "aud_senone.npy")
    description = json.loads((folder / "capture.json").read_text())
    (folder / "capture.json").write_text(json.dumps({**description, "extractor": "senone"}))
    return folder


def test_run_resumes_on_either_capture(capture, former_run, former_capture):
    assert load_portrait(former_run).extractor == "ppg"
    for folder in (former_capture, capture.folder):
        for name in (None, "ppg", "senone"):
            opened = open_capture(folder, name)
            assert (opened.extractor, opened.description.extractor) == ("ppg", "ppg")
            Trainer.resume(opened, former_run).save()


def test_new_run_resumes_on_a_former_capture(capture, config, former_capture, tmp_path):
    Trainer(capture, config, tmp_path / "run").save()
    assert Trainer.resume(open_capture(former_capture), tmp_path / "run").capture.extractor == "ppg"


def test_new_run_on_a_former_capture(config, former_capture, tmp_path):
    Trainer(open_capture(former_capture), config, tmp_path / "run").save()
    stored = torch.load(RunFolder(tmp_path / "run").checkpoint, weights_only=True)
    assert stored["capture"]["extractor"] == "ppg"
