"""The command `evaluate`, on a tiny capture."""

import json
import shutil
import types

import numpy as np
import pytest

from ernerf_ti.cli.main import main
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.evaluation import mesh_metrics, video_evaluation
from ernerf_ti.preprocess.face_mesh import IBUG_POINTS, N_POINTS
from tests.quick_training import options


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    write_portrait_capture(SyntheticPortrait(22, 32, seed=4), folder / "capture")
    assert main(["train", str(folder / "capture"), str(folder / "run"), *options(2, 0, 2)]) == 0
    return folder / "capture", folder / "run"


def evaluate(arguments):
    return main(["evaluate", *arguments])


def test_everything_is_evaluated(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # no weights there
    capture, run = folders
    write_sound(tmp_path / "speech.wav", np.sin(np.arange(1_900) * 0.05) * 0.3)
    arguments = [str(run), "--capture", str(capture), "--cross-speaker-audio", str(tmp_path / "speech.wav")]
    assert evaluate([*arguments, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    folder = run / "evaluation"
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "evaluation.html"}
    content = json.loads((folder / "metrics.json").read_text())
    settings = content["settings"]
    assert set(settings) == {
        *("head", "head_only", "portrait", "nearest_pose", "mean_frame", "truth"),
        *("cross_speaker", "cross_speaker_nearest_pose", "closures", "silence", "cross_speaker_silence"),
        *("other_sound", "other_eyes"),
    }
    head = settings["head"]["metrics"]
    for name in ("PSNR frame", "PSNR face", "PSNR lips", "SSIM frame"):
        assert len(head[name]["per_frame"]) == 2
        assert head[name]["value"] == pytest.approx(np.mean(head[name]["per_frame"]))
    for name in ("head", "portrait"):
        assert settings[name]["metrics"]["seam"]["value"] > 0
    # An untrained head is worse than a frame of the person.
    assert head["PSNR face"]["value"] < settings["nearest_pose"]["metrics"]["PSNR face"]["value"]
    assert len(settings["cross_speaker"]["times"]) == 3
    assert set(settings["cross_speaker"]["metrics"]) == {
        "SyncNet confidence",
        "SyncNet distance",
        "sound-to-mouth correlation",
        *("mouth opening at p, b, m", "closed at p, b, m"),
    }
    assert set(settings["silence"]["metrics"]) == {"mouth opening in silence"}
    assert set(settings["other_eyes"]["metrics"]) == {"leak forehead", "leak hair", "leak ears"}
    assert "no p, b or m is heard" in settings["closures"]["metrics"]["closed at p, b, m"]["not_computed"]
    for name in ("LPIPS alex", "LPIPS vgg", "FID", "SyncNet confidence"):
        assert head[name]["folder"] == str(tmp_path / "torch" / "hub" / "checkpoints")
        assert f"not computed: {name}: " in shown
        assert head[name]["file"] in shown
    assert content["capture"]["held_out_frames"] == content["capture"]["evaluated_frames"] == 2
    assert (content["run"]["stage"], content["run"]["mouth gain"]) == ("torso", 1.15)
    assert set(content["speed"]) == {"head, rendering only", "portrait, rendering only", "end to end"}
    assert all(figure["frames_per_second"] > 0 for figure in content["speed"].values())
    assert content["model"]["parameters"]["all"] > 1000
    assert "PSNR frame (dB) ^" in shown
    page = (folder / "evaluation.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "<h2>Worst frames</h2>" in page


def test_a_video_of_the_held_out_frames_has_the_same_values(folders, tmp_path, monkeypatch):
    folder, run = folders
    capture = open_capture(folder)
    held_out = capture.val.frame_ids
    points = np.random.default_rng(0).uniform(4, 28, (len(held_out), N_POINTS, 3))
    points[:, IBUG_POINTS, :2] = [capture.landmarks(k) for k in held_out]

    def track_face(images, n, progress):
        """The capture's landmarks, and lids that open with the brightness."""
        shown = points.copy()
        shown[:, 159, 1] += [image.mean() / 50 for image in images]
        return types.SimpleNamespace(points=shown.astype(np.float32), valid=np.ones(n, bool))

    monkeypatch.setattr(mesh_metrics, "track_face", track_face)
    for module in (mesh_metrics, video_evaluation):
        monkeypatch.setattr(module, "tracker_problem", lambda: None)
    output = ("--device", "cpu", "--output")
    assert evaluate([str(run), "--capture", str(folder), "--keep-frames", *output, str(tmp_path / "of_run")]) == 0
    for i, k in enumerate(held_out):
        (tmp_path / "truth").mkdir(exist_ok=True)
        shutil.copy(capture.paths.image(k), tmp_path / "truth" / f"{i:05d}.jpg")
    rendered = tmp_path / "of_run" / "frames" / "head"
    arguments = ["--video", str(rendered), "--reference", str(tmp_path / "truth"), *output, str(tmp_path / "of_video")]
    assert evaluate(arguments) == 0
    expected, found = (
        json.loads((tmp_path / name / "metrics.json").read_text())["settings"][setting]["metrics"]
        for name, setting in (("of_run", "head"), ("of_video", "video"))
    )
    # The seam needs a capture's labels, and a folder of pictures has no sound.
    compared = {name for name in expected if "value" in expected[name] and not name.endswith("in speech")} - {"seam"}
    assert {"PSNR lips in speech", "LMD in speech"} <= expected.keys()
    assert {"PSNR frame", "PSNR lips", "PSNR eyes", "SSIM face", "LMD", "mesh AUE upper"} <= compared
    for name in compared:
        assert found[name]["value"] == pytest.approx(expected[name]["value"], rel=1e-9), name
    assert expected["mesh AUE upper"]["value"] > 0


def test_some_frames_elsewhere(folders, tmp_path):
    capture, run = folders
    arguments = [str(run), "--capture", str(capture), "--output", str(tmp_path), "--device", "cpu", "--keep-frames"]
    assert evaluate([*arguments, "--frames", "2"]) == 0
    assert evaluate([*arguments, "--frames", "1"]) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert (content["capture"]["held_out_frames"], content["capture"]["evaluated_frames"]) == (2, 1)
    assert {path.name for path in (tmp_path / "frames").glob("[!.]*")} == {"head", "head_only", "portrait", "silence"}
    assert len(list((tmp_path / "frames" / "head").iterdir())) == 1
    shutil.copytree(capture, tmp_path / "other")
    (tmp_path / "other" / "bc.jpg").write_bytes(b"")
    failing = [str(run), "--capture", str(tmp_path / "other"), "--output", str(tmp_path), "--device", "cpu"]
    assert evaluate(failing) == 1
    assert (tmp_path / "frames" / "head" / "00000.png").is_file()  # they go with the results that are there still


def test_with_a_gain_of_the_mouth(folders, tmp_path):
    capture, run = folders
    arguments = [str(run), "--capture", str(capture), "--frames", "1", "--mouth-gain", "1.5", "-o", str(tmp_path)]
    assert evaluate(arguments) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["run"]["mouth gain"] == 1.5


def test_a_portrait_file_has_results_of_its_own(folders, tmp_path):
    capture, run = folders
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "metrics.json").write_text("of a run")
    shutil.copy(run / "checkpoint.pt", tmp_path / "anna.pt")
    assert evaluate([str(tmp_path / "anna.pt"), "--capture", str(capture), "--device", "cpu", "--frames", "1"]) == 0
    assert {path.name for path in (tmp_path / "anna_evaluation").iterdir()} == {"metrics.json", "evaluation.html"}
    assert (tmp_path / "evaluation" / "metrics.json").read_text() == "of a run"


def test_another_capture(folders, tmp_path, capsys):
    write_portrait_capture(SyntheticPortrait(11, 32, seed=5), tmp_path / "other")
    assert evaluate([str(folders[1]), "--capture", str(tmp_path / "other"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "checkpoint.pt: expected the capture of the run, with n_train 20, got 10 in" in error
    assert "pass the capture that the run was trained on" in error


@pytest.mark.parametrize(
    ("option", "status", "message"),
    [
        (["--frames", "0"], 2, "frames: expected at least 1, got 0"),
        (["--max-seconds", "0"], 2, "max-seconds: expected at least 0.04, got 0"),
        (["--cross-speaker-audio", "none.wav"], 1, "none.wav: expected a video or sound file, got no such file"),
    ],
)
def test_wrong_input(folders, tmp_path, capsys, option, status, message):
    capture, run = folders
    arguments = [str(run), "--capture", str(capture), "--output", str(tmp_path / "out"), "--device", "cpu", *option]
    assert evaluate(arguments) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_run(folders, tmp_path, capsys):
    assert evaluate([str(tmp_path), "--capture", str(folders[0])]) == 1
    assert "expected a run folder or a checkpoint, got a folder without checkpoint.pt" in capsys.readouterr().err


@pytest.mark.parametrize("has_run", [True, False])
def test_frames_of_the_user_are_not_removed(folders, tmp_path, capsys, has_run):
    capture, run = folders
    mine = tmp_path / "frames" / "00000.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    arguments = [str(run if has_run else tmp_path / "none"), "--capture", str(capture), "--output", str(tmp_path)]
    assert evaluate([*arguments, "--frames", "1", "--device", "cpu"]) == 1
    expected = "frames: expected no such folder or one made by an evaluation" if has_run else "expected a run folder"
    assert expected in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_a_video_takes_one_process(folders, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert evaluate(["--video", str(folders[0] / "gt_imgs")]) == 2
    assert "--video: expected one process" in capsys.readouterr().err
