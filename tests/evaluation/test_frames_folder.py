"""Only frames that an evaluation wrote are removed."""

import pytest

from ernerf_ti.evaluation.frames_folder import FramesFolder
from ernerf_ti.evaluation.held_out import frame_file


def prepared(path, n=0):
    """A folder with n frames of a setting."""
    folder = FramesFolder(path)
    folder.prepare()
    for i in range(n):
        (path / "head").mkdir(exist_ok=True)
        frame_file(path / "head", i).write_bytes(b"")
    return folder


def test_a_folder_of_ours_is_made_emptied_and_removed(tmp_path):
    path = tmp_path / "results" / "frames"
    prepared(path, 2)
    frame_file(path / "head", 123_456).write_bytes(b"")
    folder = prepared(path)
    assert not (path / "head").exists()
    folder.remove()
    assert not path.exists() and path.parent.exists()
    folder.remove()  # nothing to do


def test_frames_of_an_earlier_evaluation_stay_until_the_next_one_begins(tmp_path):
    prepared(tmp_path, 2)
    FramesFolder(tmp_path).remove()  # of an evaluation that has failed before
    assert len(list((tmp_path / "head").iterdir())) == 2


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "frames").mkdir()
    prepared(tmp_path / "frames").remove()
    assert not (tmp_path / "frames").exists()


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"a picture")
    with pytest.raises(ValueError, match="expected no such folder or one made by an evaluation, got other files"):
        prepared(tmp_path)
    FramesFolder(tmp_path).remove()
    assert (tmp_path / "holiday.jpg").read_bytes() == b"a picture"


def test_other_files_in_a_folder_of_ours_are_left_alone(tmp_path):
    prepared(tmp_path, 3)
    others = [tmp_path / "notes.txt", tmp_path / "head" / "best.png", tmp_path / "mine" / "00.png"]
    (tmp_path / "mine").mkdir()
    for path in others:
        path.write_bytes(b"kept")
    folder = prepared(tmp_path, 1)
    assert {path.name for path in (tmp_path / "head").iterdir()} == {"best.png", "00000.png"}
    folder.remove()
    assert all(path.read_bytes() == b"kept" for path in others)
    assert [path.name for path in (tmp_path / "head").iterdir()] == ["best.png"]
    prepared(tmp_path)  # the mark is there still


def test_a_link_to_a_folder_of_ours_is_left_alone(tmp_path):
    prepared(tmp_path / "frames", 1)
    (tmp_path / "link").symlink_to(tmp_path / "frames")
    with pytest.raises(ValueError, match="got other files"):
        prepared(tmp_path / "link")
    assert (tmp_path / "frames" / "head" / "00000.png").is_file()
