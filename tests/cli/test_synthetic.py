"""The command that makes a synthetic portrait."""

import pytest

from ernerf_ti.cli.main import main
from ernerf_ti.data.capture import open_capture
from ernerf_ti.media.video import probe


def test_capture_and_video(tmp_path, capsys):
    folder, video = tmp_path / "capture", tmp_path / "talking.mp4"
    arguments = [str(folder), "--video", str(video), "--seconds", "0.4", "--size", "48", "--voice", "alto"]
    assert main(["synthetic", *arguments]) == 0
    assert open_capture(folder).description.source["voice"] == "alto"
    assert probe(video).width == 48
    assert capsys.readouterr().out.split() == [str(folder), str(video)]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "output: expected a folder, --video, or both, got neither"),
        (["out", "--size", "47"], 1, "size: expected an even number >= 16, got 47"),
        (["out", "--seconds", "0"], 2, "--seconds: expected 0.04 to 86400, got 0.0"),
        (["out", "--seconds", "nan"], 2, "--seconds: expected 0.04 to 86400, got nan"),
        (["out", "--seed", "-1"], 2, "--seed: expected 0 or more, below 2^62, got -1"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, status, text):
    monkeypatch.chdir(tmp_path)
    assert main(["synthetic", *arguments]) == status
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_kept(tmp_path, capsys):
    (tmp_path / "capture.json").write_text("mine")
    assert main(["synthetic", str(tmp_path), "--seconds", "0.4", "--size", "48"]) == 1
    assert "expected a new or an empty folder, got one with files" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("capture.json", "mine")]
