"""Wrong files and folders are recognized; the demo's folder is understood."""

from pathlib import Path

import pytest

from ernerf_ti.cli import paths


@pytest.fixture
def places(tmp_path):
    """A capture, a run, a demo with both, a video, and an empty folder; only the files that identify them."""
    for name in ("capture", "demo/capture"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "transforms_train.json").write_text("{}")
    for name in ("run", "demo/run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint.pt").touch()
    (tmp_path / "talk.mp4").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_right_ones_are_returned(places, capsys):
    assert paths.run_folder(places / "run") == places / "run"
    assert paths.run_folder(places / "run" / "checkpoint.pt") == places / "run" / "checkpoint.pt"
    assert paths.capture_folder(places / "capture") == places / "capture"
    assert paths.existing_file(places / "talk.mp4", "a video") == places / "talk.mp4"
    assert paths.output_file(places / "new" / "a.mp4") == places / "new" / "a.mp4"
    assert paths.output_folder(places / "empty") == places / "empty"
    assert not (places / "new").exists()
    assert capsys.readouterr().err == ""


def test_the_demo_is_understood(places, capsys):
    assert paths.run_folder(places / "demo") == places / "demo" / "run"
    assert paths.capture_folder(places / "demo") == places / "demo" / "capture"
    assert capsys.readouterr().err == (
        f"{places / 'demo'}: using {places / 'demo' / 'run'}\n{places / 'demo'}: using {places / 'demo' / 'capture'}\n"
    )


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        ("run_folder", "capture", "capture: expected a run folder or a checkpoint, got a capture; train a portrait"),
        ("run_folder", "talk.mp4", "talk.mp4: expected a run folder or a checkpoint, got a video; make a capture"),
        ("run_folder", "none", "none: expected a run folder or a checkpoint, got no such file or folder; train"),
        ("run_folder", "empty", "empty: expected a run folder or a checkpoint, got a folder without checkpoint.pt"),
        ("capture_folder", "run", "run: expected a capture folder, got a run folder; pass the capture"),
        ("capture_folder", "talk.mp4", "talk.mp4: expected a capture folder, got a file; make a capture of a video"),
        ("capture_folder", "none", "none: expected a capture folder, got no such folder; make one of a video"),
        ("output_file", "empty", "empty: expected a file to write, got a folder; add a file name"),
        ("output_file", "talk.mp4/a.mp4", "a.mp4: expected a file to write, got a path below the file"),
        (
            "new_folder",
            "run",
            "run: expected a new or an empty folder, got one with files; pass another path, or delete",
        ),
        ("new_folder", "talk.mp4", "talk.mp4: expected a folder to write to, got a file"),
        ("output_folder", "talk.mp4", "talk.mp4: expected a folder to write to, got a file"),
        ("output_folder", "talk.mp4/a", "a: expected a folder to write to, got a path below the file"),
    ],
)
def test_wrong_ones_are_named(places, check, name, text):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        getattr(paths, check)(places / name)
    assert text in str(error.value)


def test_a_file_that_is_read(places):
    with pytest.raises(ValueError, match="empty: expected a video, got a folder; pass a file"):
        paths.existing_file(places / "empty", "a video")
    with pytest.raises(FileNotFoundError, match="none: expected a video, got no such file; check the path"):
        paths.existing_file(places / "none", "a video")


def test_a_folder_appears_whole(tmp_path):
    def interrupted():
        with paths.whole_folder(tmp_path / "a" / "new") as folder:
            (folder / "file").touch()
            assert not (tmp_path / "a" / "new").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "a").iterdir()) == []
    with paths.whole_folder(tmp_path / "a" / "new") as folder:
        (folder / "file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


def test_an_empty_folder_is_filled_at_once(tmp_path, monkeypatch):
    def interrupted():
        with paths.whole_folder(tmp_path) as folder:
            (folder / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(tmp_path)
    with paths.whole_folder(Path()) as folder:
        (folder / "frames").mkdir()
        (folder / "frames" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["frames", "file"]


def test_what_a_killed_process_left_does_not_count(tmp_path):
    (tmp_path / f".content.{'0' * 16}.tmp").mkdir()
    assert paths.new_folder(tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_cannot_be_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match=r"folder .*link \(a link of that name leads nowhere\); pass"):
        paths.make_parent(tmp_path / "link" / "out.mp4")
