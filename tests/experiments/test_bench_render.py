"""The command that times rendering and training."""

import json

import pytest

from ernerf_ti.cli.main import main
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from tests.quick_training import options


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write_portrait_capture(SyntheticPortrait(6, 32, seed=4), folder / "capture")
    return folder / "capture", folder / "run"


def test_times_everything(folders, tmp_path, capsys):
    capture, run = folders
    assert main(["train", str(capture), str(run), *options(2, 2, 2)]) == 0
    out = tmp_path / "bench.json"
    arguments = [str(run), "--capture", str(capture), "--sizes", "32", "48", "--frames", "1", "-o", str(out)]
    assert main(["bench", "render", *arguments, "--device", "cpu"]) == 0
    figures = json.loads(out.read_text())
    assert set(figures) == {"machine", "32 x 32", "48 x 48", "training step"}
    assert set(figures["training step"]) == {"head", "finetune", "torso"}
    frame = figures["48 x 48"]
    assert all(value > 0 for value in frame.values())
    assert frame["field (encoder and networks)"] > frame["position encoder"]
    parts = {"rays", "audio encoder", "folding the networks", "march", "position encoder", "direction encoder"}
    parts |= {"networks", "blending", "head", "torso", "whole, as in training", "whole, in passes"}
    assert {f"frame on the CPU, {part}{what}" for part in parts for what in ("", ", CPU time")} <= set(frame)
    assert frame["frame on the CPU, PSNR between both"] > 80
    printed = capsys.readouterr().out
    for layers in ("portrait", "head alone"):
        for what in ("rendering only", "uint8 on the host", "into an mp4"):
            assert f"frames/s, {layers}, {what} " in printed


def test_no_run(tmp_path, capsys):
    assert main(["bench", "render", str(tmp_path)]) == 1
    assert "expected a run folder or a checkpoint, got a folder without checkpoint.pt" in capsys.readouterr().err
