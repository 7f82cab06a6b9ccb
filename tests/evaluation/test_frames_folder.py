"""Only frames that an evaluation wrote are removed."""

import pytest

from ernerf_ti.evaluation.frames_folder import FramesFolder
from ernerf_ti.evaluation.held_out import frame_file
from ernerf_ti.process.ranks import Ranks


def evaluated(path, n=0, keep=True, error=None):
    """An evaluation that renders n frames of a setting, and ends with an error or not."""
    with FramesFolder(path, Ranks()) as frames:
        folder = frames.temporary()
        assert folder.parent == path.parent
        (folder / "head").mkdir()
        for i in range(n):
            frame_file(folder / "head", i).write_bytes(b"")
        if error is not None:
            raise error
        frames.replace(keep)


def names(path):
    return sorted(file.name for file in path.iterdir())


def test_frames_are_kept_until_the_next_evaluation(tmp_path):
    path = tmp_path / "results" / "frames"
    evaluated(path, 2)
    frame_file(path / "head", 123_456).write_bytes(b"")
    assert names(path.parent) == ["frames"] and len(names(path / "head")) == 3
    evaluated(path, 1)
    assert names(path / "head") == ["00000.png"]
    evaluated(path, 1, keep=False)
    assert names(path.parent) == []
    evaluated(path, 1, keep=False)  # nothing to remove
    assert names(path.parent) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_frames_of_an_earlier_evaluation_stay_if_the_next_one_fails(tmp_path, error):
    evaluated(tmp_path / "frames", 2)
    with pytest.raises(error):
        evaluated(tmp_path / "frames", 1, error=error())
    assert names(tmp_path) == ["frames"] and len(names(tmp_path / "frames" / "head")) == 2


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "frames").mkdir()
    evaluated(tmp_path / "frames", 1)
    assert names(tmp_path / "frames" / "head") == ["00000.png"]


def test_other_files_are_left_alone(tmp_path):
    path = tmp_path / "frames"
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"a picture")
    with pytest.raises(ValueError, match="expected no such folder or one made by an evaluation, got other files"):
        evaluated(path)
    assert (path / "holiday.jpg").read_bytes() == b"a picture" and names(tmp_path) == ["frames"]


def test_other_files_in_a_folder_of_ours_are_left_alone(tmp_path):
    path = tmp_path / "frames"
    evaluated(path, 3)
    others = [path / "notes.txt", path / "head" / "best.png", path / "mine" / "00.png"]
    (path / "mine").mkdir()
    for other in others:
        other.write_bytes(b"kept")
    evaluated(path, 1)
    assert names(path / "head") == ["00000.png", "best.png"]
    evaluated(path, 1, keep=False)
    assert all(other.read_bytes() == b"kept" for other in others)
    assert names(path / "head") == ["best.png"]
    evaluated(path)  # the mark is there still


def test_a_link_to_a_folder_of_ours_is_left_alone(tmp_path):
    evaluated(tmp_path / "frames", 1)
    (tmp_path / "link").symlink_to(tmp_path / "frames")
    with pytest.raises(ValueError, match="got other files"):
        evaluated(tmp_path / "link")
    assert (tmp_path / "frames" / "head" / "00000.png").is_file()
