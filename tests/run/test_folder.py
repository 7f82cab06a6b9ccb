"""Finding a run from the paths that people pass."""

import pytest

from ernerf_ti.run.folder import RunFolder


def make(folder, name="checkpoint.pt"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder / name


def test_run_folder_checkpoint_and_parent(tmp_path):
    checkpoint = make(tmp_path / "demo" / "run")
    for path in (checkpoint, checkpoint.parent, tmp_path / "demo"):
        found = RunFolder.find(path)
        assert found.checkpoint == checkpoint and found.path == checkpoint.parent
        assert found.log == checkpoint.parent / "log.jsonl"
    other = make(tmp_path, "step_500.pt")
    assert RunFolder.find(other).checkpoint == other


def test_results_of_several_portraits_in_a_folder_lie_apart(tmp_path):
    paths = [make(tmp_path, name) for name in ("checkpoint.pt", "step_500.pt", "anna.eti", "ben.v2.eti")]
    names = [RunFolder.find(path).evaluation.relative_to(tmp_path).name for path in paths]
    assert names == ["evaluation", "step_500_evaluation", "anna_evaluation", "ben.v2_evaluation"]


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("none", FileNotFoundError, "got no such file or folder; train a portrait"),
        ("clip.mp4", ValueError, "got a media file; pass the folder that `ernerf-ti train` wrote"),
        ("Speech.WAV", ValueError, "got a media file"),
        ("capture", ValueError, "got a capture; train a portrait of it with `ernerf-ti train`"),
        ("begun", FileNotFoundError, "got a run that has not saved a checkpoint yet"),
        ("empty", FileNotFoundError, "got a folder without checkpoint.pt"),
    ],
)
def test_other_paths_are_named(tmp_path, name, error, text):
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "Speech.WAV").touch()
    make(tmp_path / "capture", "transforms_train.json")
    make(tmp_path / "begun", "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=f"{name}: expected a run folder or a checkpoint, {text}") as caught:
        RunFolder.find(tmp_path / name)
    assert "\n" not in str(caught.value)
