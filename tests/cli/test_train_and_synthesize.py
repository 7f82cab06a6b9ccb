"""The commands that train a portrait and let it speak, on a tiny capture."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ernerf_ti.cli.main import main
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.process.interruption import StopRequest
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.train.trainer import trained_alone
from ernerf_ti.viewer.app import open_training
from tests.cli.conftest import TOOLS
from tests.quick_training import OPTIONS, options


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools") / "capture"
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder)
    return folder


def train(arguments):
    return main(["train", *arguments])


def test_train_then_synthesize(capture, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out.mp4"
    assert train([str(capture), str(run), *options(3, 2, 3)]) == 0
    write_sound(tmp_path / "speech.wav", np.sin(np.arange(9_000) * 0.05) * 0.3)
    arguments = ["synthesize", str(run), "--audio", str(tmp_path / "speech.wav"), "-o", str(out), "--device", "cpu"]
    assert main([*arguments, "--hardware-encoding"]) == 0  # no graphics card encodes frames that small
    printed = capsys.readouterr()
    assert printed.out.split() == [str(run), str(out)]
    assert printed.err.count("hardware encoding: h264_nvenc can't be used (") == 1
    assert len(list(read_frames(out, 25))) == 15  # 9,000 samples are 14.06 frames
    assert np.abs(read_sound(out)).max() > 0.2


def test_settings_reach_the_run(capture, tmp_path):
    arguments = ["--head.iterations", "1", "--seed", "5", "--stages", "head"]
    assert train([str(capture), str(tmp_path), *OPTIONS, *arguments]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["seed"], config["head"]["iterations"], config["head"]["n_rays"]) == (5, 1, 128)


def test_choice_of_frames(capture, tmp_path, capsys):
    arguments = [*OPTIONS, "--head.iterations", "1", "--stages", "head"]
    flags = ["--data_range", "0", "6", "--smooth_path", "--smooth_eye", "--skip-missing"]
    for name, more, n_train in (("range", [], 6), ("part", ["--part"], 1), ("part2", ["--part2"], 6)):
        assert train([str(capture), str(tmp_path / name), *arguments, *flags, *more]) == 0
        assert load_checkpoint(tmp_path / name / "checkpoint.pt")["capture"]["n_train"] == n_train
    assert train([str(capture), str(tmp_path / "run"), *arguments, "--smooth_path", "4"]) == 2
    assert "smooth_path: expected an odd number of frames, got 4" in capsys.readouterr().err


def test_unknown_setting_stops(capture, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        train([str(capture), str(tmp_path / "run"), *OPTIONS, "--head.iteratoins", "1"])
    assert error.value.code == 2
    assert "iteratoins" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_run_is_not_overwritten(capture, tmp_path, capsys):
    arguments = [str(capture), str(tmp_path), *OPTIONS, "--head.iterations", "1", "--stages", "head"]
    assert train(arguments) == 0
    capsys.readouterr()
    resume = [str(capture), str(tmp_path), "--resume", "--device", "cpu"]
    for command in (arguments, resume):
        assert train([*command, "--head.iterations", "5"]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{tmp_path}: expected the settings that this run was started with" in error
        assert "got others for --head.iterations (1 there, 5 here); pass --resume alone" in error
    assert load_checkpoint(tmp_path / "checkpoint.pt")["train_config"]["head"]["iterations"] == 1


def test_same_command_continues(capture, tmp_path, monkeypatch, capsys):
    arguments = [str(capture), str(tmp_path / "run"), *options(3, 2, 3)]
    whole = [str(capture), str(tmp_path / "whole"), *options(3, 2, 3)]
    assert train(whole) == 0
    asked = itertools.count(1)
    monkeypatch.setattr(StopRequest, "__call__", lambda self: next(asked) >= 2)
    monkeypatch.setattr(StopRequest, "exit_status", 130)
    assert train(arguments) == 130
    assert "stopped at stage head, step 2; the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert train(arguments) == 0
    assert "continuing" in capsys.readouterr().err
    first, second = (load_checkpoint(tmp_path / name / "checkpoint.pt")["portrait"] for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert train(arguments) == 0  # nothing is left to do


def test_a_run_of_few_frames_takes_fewer_steps_and_continues(capture, tmp_path, capsys):
    n = len(open_capture(capture).train)
    arguments = [str(capture), str(tmp_path), *options(3 * n, 0, 0), "--stages", "head"]
    assert train([*arguments, "--head.most-visits", "1"]) == 0
    assert f"head: {n} steps instead of {3 * n}, 1 for each of {n} training frames" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == n
    for same in (arguments, [str(capture), str(tmp_path), "--resume", "--device", "cpu"]):
        assert train([*same, "--head.most-visits", "1"]) == 0
        assert "instead of" not in capsys.readouterr().err
    assert train([*arguments, "--head.most-visits", "0"]) == 1
    assert (
        f"--head.iterations ({n} there, {3 * n} here), --head.most-visits (1 there, 0 here)" in capsys.readouterr().err
    )


@pytest.mark.skipif(sys.platform == "win32", reason="folders can't be locked there")
def test_one_process_at_a_time_trains_a_run(capture, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [str(capture), str(run), *OPTIONS, "--head.iterations", "1", "--stages", "head"]
    assert train(arguments) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    with trained_alone(run):
        assert train(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"{run}: expected a run that nothing else trains, got one that another process trains")
        assert error.count("\n") == 1
        with pytest.raises(OSError, match="another process trains now"):
            open_training(run, capture, "small", ("head",), "cpu")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before, "nor is there a new file"
    training = open_training(run, capture, "small", ("head",), "cpu")
    assert train(arguments) == 1
    training.close()
    assert train(arguments) == 0


def test_resume_takes_the_settings_of_the_run(capture, tmp_path):
    arguments = [str(capture), str(tmp_path), *OPTIONS, "--head.iterations", "1", "--stages", "head"]
    assert train(arguments) == 0
    assert train([str(capture), str(tmp_path), "--resume", "--device", "cpu", "--stages", "head"]) == 0
    assert main(["train", str(capture), str(tmp_path / "new"), "--resume"]) == 1


def test_memory_for_frames_is_no_setting_of_the_run(capture, tmp_path, monkeypatch, capsys):
    weights = []
    for first, later in (([], []), (["--frame-memory-gb", "0"], ["--frame-memory-gb", "0.5"])):
        run = tmp_path / f"run{len(weights)}"
        arguments = [str(capture), str(run), *OPTIONS, "--head.iterations", "4", "--stages", "head"]
        with monkeypatch.context() as patch:
            stops = itertools.count(1)
            patch.setattr(StopRequest, "__call__", lambda request, stops=stops: next(stops) >= 2)
            train([*arguments, *first])
        assert train([*arguments, *later]) == 0
        weights.append(load_checkpoint(run / "checkpoint.pt")["portrait"])
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name
    for wrong in ("-1", "inf", "nan"):
        assert train([str(capture), str(tmp_path / "other"), "--frame-memory-gb", wrong]) == 2
        assert f"frame-memory-gb: expected 0 or more, got {wrong}; pass 0" in capsys.readouterr().err


def test_the_run_says_what_it_uses(capture, tmp_path, capsys, monkeypatch, no_packaged_files):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # no weights there
    arguments = ["--device", "cpu", "--head.iterations", "1", "--finetune.iterations", "1", "--torso.iterations", "1"]
    small = ["--head.n-rays", "64", "--finetune.n-rays", "64", "--torso.n-rays", "64", "--finetune.patch-size", "8"]
    assert train([str(capture), str(tmp_path / "run"), *arguments, *small]) == 0
    error = capsys.readouterr().err
    assert f"training {tmp_path / 'run'}: preset small, device cpu\n" in error
    assert "fine-tuning with the perceptual loss dssim; st-lpips would be better, but the weights of ST-LPIPS" in error


def test_no_capture(tmp_path, capsys):
    assert train([str(tmp_path / "none"), str(tmp_path / "run"), "--preset", "small"]) == 1
    assert "expected a capture folder, got no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "status", "message"),
    [
        (("--pose", "stil"), 1, "stil: expected capture, still or a transforms file, got no such file"),
        (("--background", "blue"), 1, "blue: expected capture, none, a color as #rrggbb or an image, got no such file"),
        (("--blink", "2"), 2, "blink: expected capture, natural or a number from 0 to 1, got '2'"),
        (("--mouth-gain", "4"), 2, "mouth-gain: expected 0 to 3, got 4; pass e.g. 1.25"),
    ],
)
def test_pose_blink_and_background_are_checked_before_the_portrait_is_loaded(tmp_path, capsys, option, status, message):
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    (tmp_path / "speech.wav").write_bytes(b"damaged")
    arguments = [str(tmp_path), "--audio", str(tmp_path / "speech.wav"), "-o", str(tmp_path / "out.mp4")]
    assert main(["synthesize", *arguments, *option]) == status
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("command", "module", "arguments"),
    [
        ("synthesize", "run.trained_portrait", ("--audio", "speech.wav", "-o", "out.mp4")),
        ("live", "live.portrait", ("--port", "0")),
        ("view", "viewer.app", ("--offscreen", "out.mp4", "--script", "script.json")),
    ],
)
def test_the_gain_of_the_mouth_reaches_the_portrait(command, module, arguments, tmp_path, monkeypatch, capsys):
    def load(*args, mouth_gain=None, **options):
        raise ValueError(f"loaded with {mouth_gain or args[-1]}")

    if command == "live":
        pytest.importorskip("aiortc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"ernerf_ti.{module}.load_portrait", load)
    for name in ("speech.wav", "checkpoint.pt"):
        Path(name).write_bytes(b"")
    Path("script.json").write_text('{"seconds": 1, "actions": []}')
    assert main([command, ".", *arguments, "--mouth-gain", "1.5"]) == 1
    assert "loaded with 1.5" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--crf", "99"], "crf: expected 0 (best) to 51 (smallest) for H.264, got 99; the default is 18"),
        (["--codec", "prores"], "codec: expected one of h264, hevc, av1 for out.mp4, got prores; choose one of these"),
        (["--fps", "121"], "fps: expected 1 to 120 frames per second, got 121.0; choose one of these"),
    ],
)
def test_formats_are_checked_before_anything_is_loaded(options, text, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert main(["synthesize", "none", "--audio", "none.wav", "-o", str(out), *options]) == 2
    assert capsys.readouterr().err.startswith(text)


def test_synthesize_without_a_run(tmp_path, capsys):
    write_sound(tmp_path / "speech.wav", np.zeros(1000))
    arguments = ["synthesize", str(tmp_path), "--audio", str(tmp_path / "speech.wav"), "-o", str(tmp_path / "out.mp4")]
    assert main(arguments) == 1
    assert "expected a run folder or a checkpoint, got a folder without checkpoint.pt" in capsys.readouterr().err
