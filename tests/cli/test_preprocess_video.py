"""The command that turns a video into a capture; its stages are tested in tests/preprocess."""

import numpy as np
import pytest

from ernerf_ti.media.video import write_video


@pytest.fixture
def tool(load_tool):
    return load_tool("preprocess_video")


def test_failure_is_one_line(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "none.mp4"), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.mp4: expected a video, got no such file" in error


@pytest.fixture
def gray(tmp_path):
    write_video(tmp_path / "gray.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25, np.zeros(1920, np.float32))


def test_unknown_stage(tool, tmp_path, capsys, gray):
    assert tool.main([str(tmp_path / "gray.mp4"), str(tmp_path / "out"), "--only", "hair"]) == 1
    assert "only: expected one of crop, frames, sound," in capsys.readouterr().err


def test_interruption_says_how_to_go_on(tool, tmp_path, capsys, monkeypatch, gray):
    def interrupted(self, only):
        raise KeyboardInterrupt

    monkeypatch.setattr("ernerf_ti.preprocess.pipeline.Pipeline.run", interrupted)
    assert tool.main([str(tmp_path / "gray.mp4"), str(tmp_path / "out")]) == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err
