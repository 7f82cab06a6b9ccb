"""Only folders that an evaluation made are emptied."""

import pytest

from ernerf_ti.evaluation.frames_folder import prepare_frames_folder, remove_frames_folder


def test_a_folder_of_ours_is_made_emptied_and_removed(tmp_path):
    folder = tmp_path / "results" / "frames"
    prepare_frames_folder(folder)
    (folder / "head").mkdir()
    (folder / "head" / "00000.png").write_bytes(b"")
    prepare_frames_folder(folder)
    assert not (folder / "head").exists()
    remove_frames_folder(folder)
    assert not folder.exists() and folder.parent.exists()
    remove_frames_folder(folder)  # nothing to do


def test_an_empty_folder_may_be_used(tmp_path):
    prepare_frames_folder(tmp_path)
    remove_frames_folder(tmp_path)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"a picture")
    with pytest.raises(ValueError, match="expected no such folder or one made by an evaluation, got other files"):
        prepare_frames_folder(tmp_path)
    remove_frames_folder(tmp_path)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"a picture"


def test_a_link_to_a_folder_of_ours_is_left_alone(tmp_path):
    prepare_frames_folder(tmp_path / "frames")
    (tmp_path / "link").symlink_to(tmp_path / "frames")
    remove_frames_folder(tmp_path / "link")
    assert (tmp_path / "frames").is_dir()
