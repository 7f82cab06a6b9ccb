"""The demonstration, so short that it learns nothing."""

import json

import numpy as np
import pytest

from ernerf_ti.media.images import read_image
from ernerf_ti.media.video import probe, read_frames


def test_writes_everything(load_tool, tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--size", "64", "--seconds", "2", "--speed-up", "500", "--device", "cpu"]
    assert load_tool("demo").main(arguments) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 5 < metrics["portrait_psnr"] < 40 and 5 < metrics["head_psnr"] < 40
    assert metrics["mouth_opening_correlation_of_the_true_frames"] > 0.8
    assert set(metrics["seconds"]) >= {"train head", "train fine", "train torso"}
    assert probe(tmp_path / "portrait.mp4").sound_rate == 16_000
    assert len(list(read_frames(tmp_path / "comparison.mp4", 25))) == 150
    assert next(read_frames(tmp_path / "comparison.mp4", 25)).shape == (64, 128, 3)
    assert np.ptp(read_image(tmp_path / "contact_sheet.png")) > 100
    assert str(tmp_path / "portrait.mp4") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seconds", "1"], "seconds: expected at least 2, got 1.0"),
        (["--speed-up", "0"], "speed_up: expected at least 1, got 0.0"),
        (["--size", "33"], "size: expected an even number"),
    ],
)
def test_bad_choices(load_tool, tmp_path, capsys, arguments, text):
    assert load_tool("demo").main(["--out", str(tmp_path / "demo"), "--device", "cpu", *arguments]) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
