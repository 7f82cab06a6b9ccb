"""`--precision` and `--deterministic`: they reach the portraits of all commands that train or render."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ernerf_ti.cli import demo
from ernerf_ti.cli.main import main
from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.experiments.demo import Demo
from ernerf_ti.portrait.portrait import Portrait
from tests.quick_training import options


@pytest.fixture
def precisions(monkeypatch) -> list[torch.dtype]:
    """Those that portraits were set to, in order."""
    seen, original = [], Portrait.set_precision

    def recorded(portrait: Portrait, precision: torch.dtype) -> None:
        seen.append(precision)
        original(portrait, precision)

    monkeypatch.setattr(Portrait, "set_precision", recorded)
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With `capture`, a `run` in bf16, and `speech.wav`."""
    folder = tmp_path_factory.mktemp("precision")
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder / "capture")
    write_sound(folder / "speech.wav", np.sin(np.arange(1_900) * 0.05) * 0.3)
    (folder / "script.json").write_text(json.dumps({"seconds": 0.1, "actions": []}))
    arguments = [str(folder / "capture"), str(folder / "run"), *options(2, 1, 1), "--precision", "bf16"]
    assert main(["train", *arguments]) == 0
    return folder


def test_training(folder, precisions):
    assert json.loads((folder / "run" / "config.json").read_text())["precision"] == "bf16"
    resume = ["train", str(folder / "capture"), str(folder / "run"), "--resume", "--device", "cpu"]
    assert main(resume) == 0
    assert precisions == [torch.bfloat16]


@pytest.mark.parametrize(
    ("command", "n_portraits"),
    [
        ("synthesize FOLDER/run --audio FOLDER/speech.wav -o FOLDER/out.mp4", 1),
        ("evaluate FOLDER/run --capture FOLDER/capture -o FOLDER/evaluation --frames 1", 1),
        ("view FOLDER/run --offscreen FOLDER/view.mp4 --script FOLDER/script.json", 1),
        ("view FOLDER/new --train FOLDER/capture --offscreen FOLDER/view.mp4 --script FOLDER/script.json", 1),
        ("bench render FOLDER/run --capture FOLDER/capture --sizes 32 --frames 1", 3),
    ],
)
def test_commands_that_render(folder, precisions, command, n_portraits, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))  # no weights there
    arguments = [word.replace("FOLDER", str(folder)) for word in command.split()]
    assert main([*arguments, "--device", "cpu", "--precision", "fp16"]) == 0
    assert precisions[:1] == [torch.float16] and len(precisions) == n_portraits


def test_the_demo():
    assert Demo(Path("demo"), "cpu", 64, 4.0, 1.0, 0, "bf16").config.precision == "bf16"
    assert demo.main.parse(["--precision", "fp16", "--deterministic"]).precision == "fp16"


def test_deterministic_training(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    fills = torch.utils.deterministic.fill_uninitialized_memory
    try:
        arguments = [str(folder / "capture"), str(tmp_path / "run"), *options(2, 1, 1), "--deterministic"]
        assert main(["train", *arguments]) == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = fills


def test_an_unknown_precision(folder, capsys):
    with pytest.raises(SystemExit):
        main(["synthesize", str(folder / "run"), "--audio", "a", "-o", "b.mp4", "--precision", "half"])
    assert "half" in capsys.readouterr().err
