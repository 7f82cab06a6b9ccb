"""The command `evaluate --video`, with a tracker that reads the face from the brightness of a drawn frame."""

import json
import types

import cv2
import numpy as np
import pytest

from ernerf_ti.cli.main import main
from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.evaluation import mesh_metrics, video_evaluation
from ernerf_ti.evaluation.st_lpips_metric import StLpipsMetric
from ernerf_ti.evaluation.video_frames import VideoFrames
from ernerf_ti.media.images import write_image
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter
from ernerf_ti.preprocess.face_mesh import IBUG_POINTS, N_POINTS
from tests.evaluation.conftest import landmarks, smooth_noise

SIDE, N = 48, 52
RATE = 16_000


def face(brightness):
    """[478, 3] a face whose mouth is open by the brightness (0 to 255) and whose head moves with it."""
    points = np.random.default_rng(0).uniform(8, 40, (N_POINTS, 3))
    points[IBUG_POINTS, :2] = landmarks((24.0, 24.0), 14.0)
    points[[87, 14, 317], 1] += brightness / 50
    return points + brightness / 100


def track_face(images, n, progress):
    brightness = [image[: image.shape[0] // 8].mean() for image in images]
    if max(brightness) < 2:
        raise ValueError("video: no face found")
    points = np.stack([face(value) for value in brightness]).astype(np.float32)
    return types.SimpleNamespace(points=points, valid=np.ones(len(points), bool))


@pytest.fixture(autouse=True)
def tracker(monkeypatch, tmp_path):
    monkeypatch.setattr(mesh_metrics, "track_face", track_face)
    for module in (mesh_metrics, video_evaluation):
        monkeypatch.setattr(module, "tracker_problem", lambda: None)
    absent = mesh_metrics.NotComputed("takes long")
    monkeypatch.setattr(StLpipsMetric, "missing", lambda self: absent)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # no weights there


@pytest.fixture(scope="module")
def frames():
    """[52, 48, 48, 3] noise below a bar whose brightness is the motion."""
    rng = np.random.default_rng(1)
    images = rng.integers(60, 200, (N, SIDE, SIDE, 3), np.uint8)
    images[:, : SIDE // 6] = np.clip(120 + 50 * smooth_noise(N, 4, rng), 10, 240).astype(np.uint8)[:, None, None, None]
    return images


def folder(path, images):
    path.mkdir()
    for k, image in enumerate(images):
        write_image(path / f"{k}.png", image)
    return str(path)


def evaluate(*arguments, output):
    status = main(["evaluate", *arguments, "--device", "cpu", "--output", str(output)])
    found = output / "metrics.json"
    return json.loads(found.read_text()) if status == 0 else status


def test_frames_against_their_truth(frames, tmp_path, capsys):
    shown = frames.copy()
    shown[40, SIDE // 6 :] ^= 8
    write_sound(tmp_path / "speech.wav", 0.3 * np.sin(np.arange(N * 640) * 0.05))
    paths = folder(tmp_path / "theirs", shown), folder(tmp_path / "truth", frames)
    options = ("--video", paths[0], "--reference", paths[1], "--audio", str(tmp_path / "speech.wav"))
    content = evaluate(*options, output=tmp_path / "out")
    found = content["settings"]["video"]["metrics"]
    assert set(content["settings"]) == {"video", "reference"}
    per_frame = found["PSNR frame"]["per_frame"]
    assert len(per_frame) == N and int(np.argmin(per_frame)) == 40
    assert found["LMD"]["value"] == 0
    assert found["mouth-opening correlation"]["value"] == pytest.approx(1)
    assert found["mouth lag"]["value"] == pytest.approx(0, abs=0.05)
    for name in ("PSNR eyes", "SSIM lips", "mesh AUE lower", "head drift"):
        assert found[name]["interval_95"][0] <= found[name]["value"] <= found[name]["interval_95"][1]
    for name in ("CSIM", "SyncNet confidence", "LPIPS alex"):
        assert found[name]["folder"] == str(tmp_path / "torch" / "hub" / "checkpoints")
    reference = content["settings"]["reference"]["metrics"]
    assert "PSNR frame" not in reference and reference["wobble"]["value"] == found["wobble"]["value"]
    assert "opening in silence: no silence" in capsys.readouterr().out
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert page.index("video, frame at 1.60 s: PSNR face") < page.index("video, frame at 1.60 s: PSNR lips")
    assert "fits the motion of the head to" in page


def test_a_video_alone(frames, tmp_path):
    content = evaluate("--video", folder(tmp_path / "theirs", frames), "--max-seconds", "1.6", output=tmp_path / "out")
    found = content["settings"]["video"]["metrics"]
    assert content["reference"] is None and content["comparison"]["frames"] == 40
    assert set(found) == {
        *("SyncNet confidence", "SyncNet distance", "wobble", "head jitter", "least lip opening"),
        *("opening in silence", "loudness-to-mouth correlation"),
    }
    assert found["least lip opening"]["n_frames"] == 40
    assert "The frames." in (tmp_path / "out" / "evaluation.html").read_text()


def test_an_offset_is_measured_and_corrected_on_demand(frames, tmp_path):
    paths = "--video", folder(tmp_path / "late", frames[:-4]), "--reference", folder(tmp_path / "truth", frames[4:])
    content = evaluate(*paths, output=tmp_path / "out")
    found = content["settings"]["video"]["metrics"]
    assert found["head lag"]["value"] == pytest.approx(4, abs=0.1)
    assert "frames too late" in content["comparison"]["notes"]["offset"]
    assert "pass --offset 4" in content["comparison"]["notes"]["offset"]
    assert found["PSNR frame"]["value"] < 20
    content = evaluate(*paths, "--offset", "4", output=tmp_path / "out")
    found = content["settings"]["video"]["metrics"]
    assert content["comparison"]["frames"] == N - 8
    assert found["PSNR frame"]["value"] > 90  # equal
    assert content["settings"]["video"]["times"][0] == 4
    assert "fits the motion of the head" in content["comparison"]["notes"]["offset"]
    content = evaluate(paths[0], paths[3], paths[2], paths[1], "--offset", "-4", output=tmp_path / "out")
    assert content["settings"]["video"]["metrics"]["PSNR frame"]["value"] > 90


def test_size_rate_and_length_are_brought_together(frames, tmp_path):
    # 30 frames per second, half the size and longer, with sound.
    n_frames = round((N / 25 + 0.2) * 30)
    times = np.minimum(np.round(np.arange(n_frames) * 25 / 30).astype(int), N - 1)
    sound = VideoSound.of_samples(0.3 * np.sin(np.arange(n_frames / 30 * RATE) * 0.05).astype(np.float32), RATE)
    writer = VideoWriter(tmp_path / "theirs.mp4", 30, sound)
    for k in times:
        writer.write(cv2.resize(frames[k], (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA))
    writer.finish()
    truth = folder(tmp_path / "truth", frames)
    content = evaluate("--video", str(tmp_path / "theirs.mp4"), "--reference", truth, output=tmp_path / "out")
    notes, found = content["comparison"]["notes"], content["settings"]["video"]["metrics"]
    said = notes["how the video is read"]
    assert "30.00 frames per second, read at 25" in said and f"scaled from {SIDE // 2}x{SIDE // 2} to {SIDE}x" in said
    assert "the last 0.19 s have no counterpart" in said  # 68 frames at 30 per second
    assert notes["sound"] == "of the video"
    assert content["comparison"]["frames"] == N
    assert found["mouth-opening correlation"]["value"] > 0.9
    assert found["loudness-to-mouth correlation"]["n_frames"] == N


def test_another_framing_is_refused_or_said(frames, tmp_path, capsys, monkeypatch):
    paths = folder(tmp_path / "wide", frames[:, 12:36]), folder(tmp_path / "truth", frames)
    arguments = ("--video", paths[0], "--reference", paths[1])
    assert evaluate(*arguments, output=tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "expected pictures of the shape of the reference" in error and "got 48x24; crop both videos" in error

    def track_larger(images, n, progress):
        found = track_face(images, n, progress)
        if images[0][-1].max() == 0:  # theirs
            found.points = (1.5 * (found.points - 24) + 24).astype(np.float32)
        return found

    monkeypatch.setattr(mesh_metrics, "track_face", track_larger)
    larger = frames.copy()
    larger[:, -1] = 0
    arguments = ("--video", folder(tmp_path / "larger", larger), "--reference", paths[1])
    content = evaluate(*arguments, output=tmp_path / "out")
    found = content["settings"]["video"]["metrics"]
    for name in ("PSNR frame", "SSIM lips", "LMD"):
        assert "1.500 times as large" in found[name]["not_computed"]
    assert found["mouth-opening correlation"]["value"] > 0.99


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "expected a run folder or --video, got neither"),
        (["RUN", "--video", "v.mp4"], 2, "expected a run folder or --video, got both"),
        (["RUN", "--reference", "v.mp4"], 2, "--reference belongs to --video, got a run"),
        (["--video", "v.mp4", "--keep-frames"], 2, "--keep-frames belongs to a run, got --video"),
        (["--video", "v.mp4"], 1, "v.mp4: expected a video, or a folder of its frames, got no such file"),
        (["--video", "theirs", "--audio", "none.wav"], 1, "none.wav: expected a sound file, got no such file"),
        (["--video", "theirs", "--reference", "."], 1, "expected a video, or a folder of its frames, got a folder"),
        (["--video", "theirs", "--max-seconds", "0"], 2, "max-seconds: expected at least 0.04, got 0"),
        (["--video", "theirs", "--folder-rate", "0"], 2, "folder-rate: expected 1 to 1000 frames per second, got 0"),
        (["--video", "theirs", "--seed", "-1"], 2, "--seed: expected 0 or more, below 2^62, got -1"),
        (["--video", "theirs", "--offset", "9"], 1, "expected less than the length of the videos, got 9 frames"),
        (["--video", "dark"], 1, "dark: expected a face, found none in 3 frames"),
    ],
)
def test_wrong_input(frames, tmp_path, capsys, monkeypatch, options, status, message):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "theirs", frames[:3])
    folder(tmp_path / "dark", 0 * frames[:3])
    assert evaluate(*options, output=tmp_path / "out") == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_tracker(frames, tmp_path, capsys, monkeypatch):
    problem = mesh_metrics.NotComputed("needs the package mediapipe")
    monkeypatch.setattr(video_evaluation, "tracker_problem", lambda: problem)
    assert evaluate("--video", folder(tmp_path / "theirs", frames[:3]), output=tmp_path / "out") == 1
    assert "evaluating a video needs the package mediapipe" in capsys.readouterr().err


def test_frames_are_decoded_once_in_ascending_order(frames, tmp_path, monkeypatch):
    path, opened = tmp_path / "theirs", []
    folder(path, frames[:20])
    read = VideoFrames.__init__.__globals__["read_frames"]

    def counting(*arguments, **keywords):
        opened.append(arguments)
        return read(*arguments, **keywords)

    monkeypatch.setitem(VideoFrames.__init__.__globals__, "read_frames", counting)
    video = VideoFrames(path, 18, start=2)
    for i in (0, 0, 3, 9, 5, 9, 17):  # a few back are still there
        np.testing.assert_array_equal(video[i], frames[i + 2])
    assert len(opened) == 1
    np.testing.assert_array_equal(video[3], frames[5])
    assert len(opened) == 2
    with pytest.raises(IndexError):
        video[18]
