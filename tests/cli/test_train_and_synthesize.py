"""The commands that train a portrait and let it speak, on a tiny capture."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.run.checkpoint import load_checkpoint
from tests.cli.conftest import TOOLS
from tests.quick_training import OPTIONS, options


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools") / "capture"
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder)
    return folder


@pytest.fixture
def train(load_tool):
    return load_tool("train").main


def test_train_then_synthesize(train, load_tool, capture, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out.mp4"
    assert train([str(capture), str(run), *options(3, 2, 3)]) == 0
    write_sound(tmp_path / "speech.wav", np.sin(np.arange(9_000) * 0.05) * 0.3)
    synthesize = load_tool("synthesize").main
    assert synthesize([str(run), "--audio", str(tmp_path / "speech.wav"), "-o", str(out), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.split() == [str(run), str(out)]
    assert len(list(read_frames(out, 25))) == 15  # 9,000 samples are 14.06 frames
    assert np.abs(read_sound(out)).max() > 0.2


def test_settings_reach_the_run(train, capture, tmp_path):
    arguments = ["--head.iterations", "1", "--seed", "5", "--stages", "head"]
    assert train([str(capture), str(tmp_path), *OPTIONS, *arguments]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["seed"], config["head"]["iterations"], config["head"]["n_rays"]) == (5, 1, 128)


def test_choice_of_frames(train, capture, tmp_path, capsys):
    arguments = [*OPTIONS, "--head.iterations", "1", "--stages", "head"]
    flags = ["--data_range", "0", "6", "--smooth_path", "--smooth_eye", "--skip-missing"]
    for name, more, n_train in (("range", [], 6), ("part", ["--part"], 1), ("part2", ["--part2"], 6)):
        assert train([str(capture), str(tmp_path / name), *arguments, *flags, *more]) == 0
        assert load_checkpoint(tmp_path / name / "checkpoint.pt")["capture"]["n_train"] == n_train
    assert train([str(capture), str(tmp_path / "run"), *arguments, "--smooth_path", "4"]) == 1
    assert "smooth_path: expected an odd number of frames, got 4" in capsys.readouterr().err


def test_unknown_setting_stops(train, capture, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        train([str(capture), str(tmp_path / "run"), *OPTIONS, "--head.iteratoins", "1"])
    assert error.value.code == 2
    assert "iteratoins" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_run_is_not_overwritten(train, capture, tmp_path, capsys):
    arguments = [str(capture), str(tmp_path), *OPTIONS, "--head.iterations", "1", "--stages", "head"]
    assert train(arguments) == 0
    assert train(arguments) == 1
    assert "expected a folder without a run, got one with a checkpoint; pass --resume" in capsys.readouterr().err
    assert train([str(capture), str(tmp_path), "--resume", "--head.iterations", "5"]) == 1
    assert "resume: expected no settings" in capsys.readouterr().err


def test_no_capture(train, tmp_path, capsys):
    assert train([str(tmp_path / "none"), str(tmp_path / "run"), "--preset", "small"]) == 1
    assert "expected a capture folder, got no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves(capture, tmp_path, number):
    command = [sys.executable, str(TOOLS / "train.py"), str(capture), str(tmp_path)]
    endless = ["--head.iterations", "1000000", "--save-every", "1000000", "--stages", "head"]
    process = subprocess.Popen([*command, *OPTIONS, *endless], stderr=subprocess.PIPE, text=True)
    try:
        for line in iter(process.stderr.readline, ""):
            if "step/s" in line or "loss=" in line:
                break
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "stopped at stage head, step" in error
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] >= 1


def test_synthesize_without_a_run(load_tool, tmp_path, capsys):
    write_sound(tmp_path / "speech.wav", np.zeros(1000))
    arguments = [str(tmp_path), "--audio", str(tmp_path / "speech.wav"), "-o", str(tmp_path / "out.mp4")]
    assert load_tool("synthesize").main(arguments) == 1
    assert "expected a run folder or a checkpoint, got a folder without checkpoint.pt" in capsys.readouterr().err
