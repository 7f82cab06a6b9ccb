"""The demo at a tiny size: interrupted after training, then continued with the same command."""

import json

import numpy as np
import pytest

from ernerf_ti.cli import demo as command
from ernerf_ti.data.capture import open_capture
from ernerf_ti.experiments import demo
from ernerf_ti.media.images import read_image
from ernerf_ti.media.video import probe, read_frames
from ernerf_ti.train.losses import psnr

SIZE = 64


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory):
    """Folder of a demo, and the times of its frames at the interruption and at the end."""
    folder = tmp_path_factory.mktemp("demo")
    arguments = [str(folder), "--size", str(SIZE), "--seconds", "2", "--speed-up", "60", "--device", "cpu"]

    def times() -> dict[str, int]:
        files = (folder / "capture").rglob("[0-9]*.jpg")
        return {str(file): file.stat().st_mtime_ns for file in files}

    with pytest.MonkeyPatch.context() as patch:

        def interrupted(*_):
            raise KeyboardInterrupt

        patch.setattr(demo, "load_portrait", interrupted)
        assert command.main(arguments) == 130
    before = times()
    assert command.main(arguments) == 0
    return folder, before, times()


def test_an_interrupted_demo_continues(demonstrated):
    folder, before, after = demonstrated
    assert len(before) == 2 * 50 and before == after
    # No step was trained twice.
    steps = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    trained = [(line["stage"], line["step"]) for line in steps if "loss" in line]
    assert len(set(trained)) == len(trained) >= 3


def test_the_portrait_is_better_than_no_portrait(demonstrated):
    """Even 75 head steps bring the held-out frames nearer to the truth than the background alone, or than no head."""
    folder, _, _ = demonstrated
    metrics = json.loads((folder / "metrics.json").read_text())
    capture = open_capture(folder / "capture")
    headless, empty = [], []
    for k in capture.val.frame_ids:
        torso, image = capture.torso(k).astype(float) / 255, capture.image(k) / 255
        background = capture.background / 255
        behind = torso[..., :3] * torso[..., 3:] + background * (1 - torso[..., 3:])
        headless.append(psnr(float(np.square(behind - image).mean())))
        empty.append(psnr(float(np.square(background - image).mean())))
    assert metrics["held_out_frames"] == len(capture.val)
    assert metrics["head_psnr"] > np.mean(headless) + 3
    assert metrics["portrait_psnr"] > np.mean(empty) + 3


def test_measures_of_the_truth_are_those_of_the_truth(demonstrated):
    metrics = json.loads((demonstrated[0] / "metrics.json").read_text())
    assert metrics["mouth_opening_correlation_of_the_true_frames"] > 0.8
    lids = metrics["lid_aperture"]
    assert lids["closed_in_the_truth"] < 0.05 < 0.2 < lids["open_in_the_truth"] < 0.4
    assert lids["closed_in_the_truth"] <= lids["closed"] <= lids["open_in_the_truth"]
    stages = ["render the synthetic person", "train head", "train finetune", "train torso"]
    assert list(metrics["seconds"]) == [*stages, "measure held-out frames", "speak a sentence in a new voice"]


def test_videos_have_sound_and_captions(demonstrated):
    folder, _, _ = demonstrated
    n_frames = round(json.loads((folder / "metrics.json").read_text())["sentence"]["seconds"] * 25)
    assert n_frames > 75
    info = probe(folder / "portrait.mp4")
    assert (info.width, info.height, info.sound_rate) == (SIZE, SIZE, 16_000)
    frames = list(read_frames(folder / "comparison.mp4", 25))
    assert len(frames) == n_frames
    assert frames[0].shape == (24 + SIZE + 30, 2 * SIZE, 3)
    for bar in (frames[0][:24, :SIZE], frames[0][:24, SIZE:], frames[0][-30:]):
        assert bar.max() > 120 and np.median(bar) < 60  # text on a dark bar
    assert np.ptp(read_image(folder / "contact_sheet.png")) > 100


def test_another_demo_does_not_overwrite(demonstrated, capsys):
    folder = demonstrated[0]
    assert command.main([str(folder), "--size", "32", "--device", "cpu"]) == 1
    assert "pass another folder" in capsys.readouterr().err


def test_a_folder_of_something_else_is_kept(tmp_path, capsys):
    (tmp_path / "capture").mkdir()
    assert command.main([str(tmp_path), "--size", "32", "--device", "cpu"]) == 1
    assert "expected a new or an empty folder, got one with files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["capture"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seconds", "1"], "--seconds: expected 2 to 86400, got 1.0"),
        (["--seconds", "inf"], "--seconds: expected 2 to 86400, got inf"),
        (["--seconds", "nan"], "--seconds: expected 2 to 86400, got nan"),
        (["--seconds", "1e300"], "--seconds: expected 2 to 86400, got 1e+300"),
        (["--speed-up", "0"], "--speed-up: expected 1 to 1000000, got 0.0"),
        (["--speed-up", "inf"], "--speed-up: expected 1 to 1000000, got inf"),
        (["--seed", "-1"], "--seed: expected 0 or more, below 2^62, got -1"),
        (["--size", "1000000"], "--size: expected 16 to 8192, got 1000000"),
        (["--size", "33"], "size: expected an even number"),
    ],
)
def test_bad_choices(tmp_path, capsys, arguments, text):
    assert command.main([str(tmp_path / "demo"), "--device", "cpu", *arguments]) == (2 if text.startswith("--") else 1)
    assert text in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
