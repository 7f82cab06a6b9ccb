"""The command that converts checkpoints of the public code and compares its numbers with ours."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ernerf_ti.cli.main import main
from ernerf_ti.interop.tensors import is_parameter
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.trainer import trained_alone
from tests.cli.conftest import TOOLS
from tests.interop.making import frame_inputs, official_frame, random_tensors, save, write_capture


def convert(arguments):
    return main(["convert", *arguments])


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Folder with the checkpoint of a head and the frame that belongs to it."""
    folder, tensors = tmp_path_factory.mktemp("head"), random_tensors(3, torso=False)
    save(folder / "ngp.pth", tensors)
    np.savez(folder / "frame.npz", **official_frame(tensors, frame_inputs(3, 29, 16)))
    return folder


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return write_capture(tmp_path_factory.mktemp("convert") / "capture")


def test_check_that_holds(head, tmp_path, capsys):
    run = tmp_path / "run"
    for _ in range(2):  # the second run replaces the first
        assert convert([str(head / "ngp.pth"), str(run), "--check", str(head / "frame.npz")]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()[: len(shown.out.splitlines()) // 2]
    assert sum("  ok" in line for line in lines) == 46 and "EXCEEDS THE TOLERANCE" not in shown.out
    assert [line.split()[0] for line in lines[:7]] == [
        *("head_image", "head_amb_aud", "head_amb_eye"),
        *("train_image", "train_weights_sum", "train_unc", "train_loss"),
    ]
    assert lines[-2].endswith("frame.npz: holds") and lines[-1] == str(run)
    if any("(kinks: " in line for line in lines):
        assert any(line.startswith("ATTENTION: gradients marked") for line in lines)
    assert "no capture was given, so that the run has no poses, blinks or background" in shown.err
    assert load_portrait(run).extractor == "deepspeech"


@pytest.mark.parametrize("name", ["head_image", "grad/color_net.net.1.weight"])
def test_check_that_fails(head, tmp_path, capsys, name):
    with np.load(head / "frame.npz") as arrays:
        changed = dict(arrays)
    changed[name] = changed[name] * np.float32(1.01)
    np.savez(tmp_path / "frame.npz", **changed)
    assert convert([str(head / "ngp.pth"), str(tmp_path / "run"), "--check", str(tmp_path / "frame.npz")]) == 1
    assert f"frame.npz: 1 of 46 exceed the tolerance: {name}" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_check_with_another_checkpoint_fails(head, tmp_path):
    tensors = random_tensors(3, torso=False)
    tensors["aud_ch_att_net.net.1.weight"][3] *= 1.01
    command = [sys.executable, str(TOOLS / "convert_checkpoint.py"), str(save(tmp_path / "ngp.pth", tensors))]
    result = subprocess.run(
        [*command, str(tmp_path / "run"), "--check", str(head / "frame.npz")], capture_output=True, text=True
    )
    assert result.returncode == 1 and "exceed the tolerance: " in result.stdout and "head_amb_aud" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="folders can't be locked there")
def test_a_run_that_is_being_trained_is_left_alone(head, tmp_path, capsys):
    run = tmp_path / "run"
    with trained_alone(run):  # it has not saved a checkpoint yet
        assert convert([str(head / "ngp.pth"), str(run)]) == 1
        assert list(run.iterdir()) == []
    assert capsys.readouterr().err.startswith(f"{run}: expected a run that nothing else trains, got one that another")
    assert convert([str(head / "ngp.pth"), str(run)]) == 0


def test_round_trip(head, capture, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out.pth"
    settings = ["--finetune.perceptual", "dssim", "--head.iterations", "120"]
    assert convert([str(head / "ngp.pth"), str(run), "--capture", str(capture), *settings]) == 0
    assert convert(["--to-official", str(run), str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == [str(run), str(out)]
    checkpoint = run / "checkpoint.pt"
    before = checkpoint.read_bytes()
    assert convert(["--to-official", str(run), str(checkpoint)]) == 1
    assert "it would replace the checkpoint that is read" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before
    assert "training continues with stage finetune, step 0" in shown.err
    first, second = (torch.load(path, weights_only=True) for path in (head / "ngp.pth", out))
    assert all(torch.equal(second["model"][name], tensor) for name, tensor in first.pop("model").items())
    second.pop("model")
    assert first == second
    assert load_checkpoint(run / "checkpoint.pt")["train_config"]["finetune"]["perceptual"] == "dssim"


def test_training_goes_on(head, capture, tmp_path, capsys):
    run = tmp_path / "run"
    settings = [
        "--head.iterations",
        "121",
        "--finetune.iterations",
        "0",
        "--torso.iterations",
        "0",
        "--head.n-rays",
        "64",
    ]
    assert convert([str(head / "ngp.pth"), str(run), "--capture", str(capture), *settings]) == 0
    resume = [str(capture), str(run), "--resume", "--features", "deepspeech", "--device", "cpu", "--stages", "head"]
    assert main(["train", *resume]) == 0
    content = load_checkpoint(run / "checkpoint.pt")
    assert (content["stage"], content["step"], content["stage_finished"]) == ("head", 121, True)


def test_average(head, tmp_path, capsys):
    tensors = random_tensors(3, torso=False)
    shadows = [tensor + 0.5 for name, tensor in tensors.items() if is_parameter(name)]
    path = save(tmp_path / "ngp_ep0001.pth", tensors, ema={"num_updates": 1, "shadow_params": shadows})
    for flags, added in (([], 0), (["--ema"], 0.5)):
        assert convert([str(path), str(tmp_path / "run"), *flags]) == 0
        weight = load_portrait(tmp_path / "run").portrait.head.density_net.layers[0].weight
        torch.testing.assert_close(weight.detach(), tensors["sigma_net.net.0.weight"] + added)
    assert convert([str(head / "ngp.pth"), str(tmp_path / "run"), "--ema"]) == 1
    assert "expected an entry ema with shadow_params, got none; pass an epoch file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.pth", "run"], "none.pth: expected a checkpoint, got no such file"),
        (["ngp.pth", "run", "--check", "none.npz"], "none.npz: expected a frame.npz, got no such file"),
        (["ngp.pth", "run", "--stage", "finetune"], "--stage: expected --capture with it, got none"),
        (["ngp.pth", "run", "--capture", "none"], "none: expected a capture folder, got no such folder"),
        (["--to-official", "run", "out.pth"], "run: expected a run folder or a checkpoint, got no such file or folder"),
        (["--to-official", "run", "out.pth", "--ema"], "--to-official: expected a run and a path alone, got --ema too"),
    ],
)
def test_errors(head, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ngp.pth").symlink_to(head / "ngp.pth")
    assert convert(arguments) == 1
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["ngp.pth"]
