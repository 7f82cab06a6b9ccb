"""All stages on a clip of 32 frames of the synthetic portrait, and errors on the way."""

import dataclasses
import hashlib
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import HEAD, NECK, TORSO, CapturePaths
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_video
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.preprocess import stages
from ernerf_ti.preprocess.pipeline import StageError
from ernerf_ti.preprocess.report import head_angles
from ernerf_ti.preprocess.settings import Settings
from ernerf_ti.preprocess.stages import capture_pipeline
from tests.audio.whisper_files import openai_tensors, write_ctranslate2

pytest.importorskip("mediapipe")
SIZE, N_FRAMES = 192, 32


@pytest.fixture(scope="module")
def portrait() -> SyntheticPortrait:
    return SyntheticPortrait(N_FRAMES, SIZE, seed=1)


@pytest.fixture(scope="module")
def video(portrait, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "portrait.mp4"
    write_portrait_video(portrait, path)
    return path


@pytest.fixture(scope="module")
def folder(video, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captures") / "portrait"
    run(folder, video)
    return folder


def run(folder: Path, video: Path, only: str | None = None, **options) -> list[str]:
    said = []
    capture_pipeline(folder, Settings(video, SIZE, **options)).run(only, said.append)
    return said


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_capture_opens_and_is_complete(folder, portrait):
    capture = open_capture(folder)
    assert (capture.width, capture.height, capture.extractor) == (SIZE, SIZE, "ppg")
    assert len(capture.train) + len(capture.val) == N_FRAMES
    assert capture.audio_windows.shape == (N_FRAMES, 16, 42)
    assert capture.description.crop == {"x": 0, "y": 0, "side": SIZE}
    assert capture.description.source["name"] == "portrait.mp4"


def test_poses_follow_the_truth(folder, portrait):
    capture = open_capture(folder)
    found = np.concatenate((capture.train.poses, capture.val.poses))
    true = portrait.poses
    # The rotations depend on the depth that the mesh assigns to the face: yaw and pitch are 0.7 to 1 of the truth
    # here, in frames of 192 pixels.
    yaw, true_yaw = head_angles(found)[:, 0], head_angles(true)[:, 0]
    assert np.corrcoef(yaw, true_yaw)[0, 1] > 0.97
    assert 0.6 < np.polyfit(true_yaw, yaw, 1)[0] < 1.1
    turned, truly = (poses[:, :3, :3].swapaxes(1, 2) @ poses[0, :3, :3] for poses in (found, true))
    cosine = (np.einsum("fij,fij->f", turned, truly) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 5
    distance = np.linalg.norm(found[:, :3, 3], axis=1) / capture.intrinsics[0]
    true_distance = np.linalg.norm(true[:, :3, 3], axis=1) / portrait.intrinsics.fx
    assert np.abs(distance / distance.mean() / (true_distance / true_distance.mean()) - 1).max() < 0.02


def test_masks_are_close_to_the_truth(folder, portrait):
    capture = open_capture(folder)
    for k in (0, N_FRAMES // 2):
        found, true = capture.labels(k), portrait.render(k).labels
        for kind in (found > 0, true > 0), (found == HEAD, true == HEAD):
            overlap = (kind[0] & kind[1]).sum() / (kind[0] | kind[1]).sum()
            assert overlap > 0.85
        body = np.isin(found, (NECK, TORSO)), np.isin(true, (NECK, TORSO))
        assert (body[0] & body[1]).sum() / (body[0] | body[1]).sum() > 0.7


def test_layers_compose_to_the_frame(folder):
    capture = open_capture(folder)
    image, frame, labels = (read(0).astype(float) for read in (capture.image, capture.frame, capture.labels))
    assert np.abs(image - frame)[labels > 0].mean() < 3  # the person is unchanged
    torso = capture.torso(0).astype(float)
    alpha = torso[..., 3:] / 255
    composed = torso[..., :3] * alpha + capture.background * (1 - alpha)
    assert np.abs(composed - image)[np.isin(labels, (NECK, TORSO))].mean() < 6
    assert (torso[..., 3] > 0)[: SIZE // 8].sum() == 0  # nothing above the head


def test_report(folder):
    figures = json.loads((folder / "report.json").read_text())
    assert figures["frames"]["with_pose"] == N_FRAMES
    assert any("short video: 1.3 s" in text for text in figures["warnings"])
    page = (folder / "report.html").read_text()
    assert "data:image/jpeg;base64," in page and "<svg" in page and "://" not in page.split("<svg")[0]


def test_second_run_does_nothing(folder, video):
    before = contents(folder)
    assert all(text.endswith("up to date") for text in run(folder, video))
    assert contents(folder) == before


def test_interrupted_in_each_stage_gives_the_same_bytes(folder, video, tmp_path):
    other = tmp_path / "portrait"
    names = [stage.name for stage in capture_pipeline(folder, Settings(video, SIZE)).stages]
    for name in names:
        pipeline = capture_pipeline(other, Settings(video, SIZE))
        stage = next(stage for stage in pipeline.stages if stage.name == name)

        def stop_half_way(stage=stage, pipeline=pipeline):
            stage.run()
            written = [path for artifact in stage.outputs for path in pipeline.paths(artifact)]
            for path in written[: len(written) // 2]:
                path.unlink()
            raise KeyboardInterrupt

        changed = [dataclasses.replace(s, run=stop_half_way) if s is stage else s for s in pipeline.stages]
        with pytest.raises(KeyboardInterrupt):
            dataclasses.replace(pipeline, stages=changed).run(log=lambda text: None)
    run(other, video)
    assert contents(other) == contents(folder)


@pytest.mark.parametrize("name", ["mesh.npz", "background.npz"])
def test_truncated_intermediate_files_are_recreated(folder, video, tmp_path, name):
    other = tmp_path / "portrait"
    shutil.copytree(folder, other)
    path = other / "preprocess" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = run(other, video)
    assert sum(not text.endswith("up to date") for text in said) == 1
    assert contents(other) == contents(folder)


def test_former_name_of_the_features(video):
    assert Settings(video, features="senone") == Settings(video, features="ppg") == Settings(video)


def test_changed_option_runs_dependent_stages(folder, video, tmp_path):
    other = tmp_path / "portrait"
    shutil.copytree(folder, other)
    said = run(other, video, features="mel")
    assert [text.split(":")[0] for text in said if not text.endswith("up to date")] == ["features", "capture", "report"]
    assert open_capture(other).extractor == "mel"


def test_features_of_several_extractors(folder, video, tmp_path):
    other, model = tmp_path / "portrait", write_ctranslate2(tmp_path / "model.bin", openai_tensors())
    shutil.copytree(folder, other)
    options = {"features": "whisper", "speech_model": model, "speech_layer": 2, "more_features": ("mel", "senone")}
    said = run(other, video, **options)
    changed = ["features", "features-mel", "features-ppg", "capture", "report"]
    assert [text.split(":")[0] for text in said if not text.endswith("up to date")] == changed
    capture = open_capture(other)
    assert (capture.extractor, capture.audio_windows.shape) == ("whisper", (N_FRAMES, 16, 106))
    assert (capture.projection.layer, capture.projection.look_ahead) == (2, None)
    assert [open_capture(other, name).audio_windows.shape[2] for name in ("mel", "ppg")] == [80, 42]
    assert np.array_equal(open_capture(other, "ppg").audio_windows, capture.audio_windows[..., :42])
    assert open_capture(other, "ppg").projection is None
    said = run(other, video, **{**options, "look_ahead": 0.2})
    assert [text.split(":")[0] for text in said if not text.endswith("up to date")] == ["features", "capture"]
    assert open_capture(other).projection.look_ahead == 0.2
    assert all(text.endswith("up to date") for text in run(other, video, **{**options, "look_ahead": 0.2}))


def test_features_and_blinks_from_files(folder, video, tmp_path):
    other = tmp_path / "portrait"
    shutil.copytree(folder, other)
    windows = np.random.default_rng(0).normal(size=(N_FRAMES, 16, 29))
    np.save(tmp_path / "aud.npy", windows)
    rows = "\n".join(f"{k + 1}, {2 if k == 7 else 0}" for k in range(N_FRAMES))
    (tmp_path / "openface.csv").write_text(f"frame, AU45_r\n{rows}\n")
    run(other, video, features=str(tmp_path / "aud.npy"), blinks=tmp_path / "openface.csv")
    capture = open_capture(other)
    assert capture.extractor == "deepspeech"
    assert np.array_equal(capture.audio_windows, windows.astype(np.float32))
    assert capture.eye_closures.tolist() == [float(k == 7) for k in range(N_FRAMES)]


def test_another_folder_is_not_touched(video, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="expected a new folder or one of an earlier run, got one with other files"):
        run(tmp_path, video)
    assert contents(tmp_path).keys() == {"thesis.tex"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 255}, "size: expected an even number of pixels from 64 to 4096, got 255"),
        ({"size": 1000000}, "size: expected an even number of pixels from 64 to 4096, got 1000000"),
        ({"features": "deepspeech"}, "features: expected one of ppg, whisper, mel, esperanto, hubert, or an .npy file"),
    ],
)
def test_invalid_options(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        Settings(tmp_path / "video.mp4", **options)


def test_video_without_a_face_stops_the_first_stage(tmp_path):
    gray = np.full((128, 128, 3), 90, np.uint8)
    write_video(tmp_path / "gray.mp4", [gray] * 25, 25, np.zeros(16_000, np.float32))
    with pytest.raises(StageError, match="stage crop: video: no face found"):
        run(tmp_path / "out", tmp_path / "gray.mp4")


def test_video_without_sound_is_refused_before_any_work(portrait, tmp_path):
    frame = portrait.render(0).image
    write_video(tmp_path / "mute.mp4", [frame] * 5, 25)
    with pytest.raises(ValueError, match=r"mute\.mp4: no audio track that can be decoded; use a recording with the"):
        run(tmp_path / "out", tmp_path / "mute.mp4")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"crop": "0,0,200"},
            "crop: expected X,Y,SIDE of a square of 32 pixels or more inside the 192x192 video, got '0,0,200'",
        ),
        ({"audio": "mute.mp4"}, r"mute\.mp4: no audio track; use a recording"),
        ({"audio": "text.wav"}, r"text\.wav: ffmpeg can't read this as video or sound"),
    ],
)
@pytest.mark.parametrize("only", [None, "crop", "sound"])
def test_wrong_inputs_leave_an_earlier_capture_as_it_is(folder, video, tmp_path, options, text, only):
    write_video(tmp_path / "mute.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25)
    (tmp_path / "text.wav").write_text("no sound")
    given = {name: tmp_path / value if name == "audio" else value for name, value in options.items()}
    before = contents(folder)
    with pytest.raises(ValueError, match=text):
        run(folder, video, only, **given)
    assert contents(folder) == before
    with pytest.raises(ValueError, match=text):
        run(tmp_path / "out", video, only, **given)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_frames_with_its_sound(portrait, tmp_path):
    frames, other = tmp_path / "frames", tmp_path / "other"
    for folder in (frames, other):
        folder.mkdir()
    for k in range(12):
        write_image(frames / f"{k + 1}.png", portrait.render(k).image)
    write_wav(tmp_path / "voice.wav", portrait.samples)
    with pytest.raises(ValueError, match=r"frames: a folder of pictures has no sound; pass the speaker's voice with"):
        capture_pipeline(tmp_path / "out", Settings(frames, SIZE))
    with pytest.raises(FileNotFoundError, match=r"none\.wav: expected a sound file, got no such file"):
        capture_pipeline(tmp_path / "out", Settings(frames, SIZE, audio=tmp_path / "none.wav"))
    with pytest.raises(IsADirectoryError, match="other: expected a video, got a folder; pass the path of a file"):
        capture_pipeline(tmp_path / "out", Settings(other, SIZE, audio=tmp_path / "voice.wav"))
    assert not (tmp_path / "out").exists()
    settings = Settings(frames, SIZE, audio=tmp_path / "voice.wav", crop=f"0,0,{SIZE}")
    pipeline = capture_pipeline(tmp_path / "out", settings)
    for stage in ("crop", "frames", "sound"):
        pipeline.run(stage)
    paths = CapturePaths(tmp_path / "out")
    for k in (0, 1, 9, 11):
        assert np.abs(read_image(paths.frame(k)).astype(int) - portrait.render(k).image).mean() < 2
    assert np.abs(read_sound(paths.sound) - portrait.samples[: 12 * 640]).max() < 1e-3
    source = json.loads((tmp_path / "out" / "preprocess" / "crop.json").read_text())["source"]
    assert (source["name"], source["rate"], source["codec"]) == ("frames", 25, "pictures")
    (frames / "7.png").unlink()
    said = []
    pipeline.run("crop", said.append)
    changed = json.loads((tmp_path / "out" / "preprocess" / "crop.json").read_text())["source"]
    assert changed["sha256"] != source["sha256"]


def test_a_mute_video_with_sound_from_a_file(portrait, tmp_path):
    write_video(tmp_path / "mute.mp4", [portrait.render(k).image for k in range(5)], 25)
    write_wav(tmp_path / "voice.wav", portrait.samples)
    settings = Settings(tmp_path / "mute.mp4", SIZE, audio=tmp_path / "voice.wav", crop=f"0,0,{SIZE}")
    pipeline = capture_pipeline(tmp_path / "out", settings)
    for stage in ("crop", "frames", "sound"):
        pipeline.run(stage)
    sound = read_sound(CapturePaths(tmp_path / "out").sound)
    assert len(sound) == 5 * 640 and np.abs(sound - portrait.samples[: 5 * 640]).max() < 1e-3


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.round(32767 * samples).astype("<i2").tobytes())


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("page.mp4", b"<!DOCTYPE html>", r"page\.mp4: expected a video or sound file, got a web page; download"),
        ("archive.mp4", b"PK\x03\x04", r"archive\.mp4: expected a video or sound file, got a ZIP archive; unpack"),
        ("text.mp4", b"no video", r"text\.mp4: ffmpeg can't read this as video or sound"),
        ("folder", None, "folder: expected a video, got a folder; pass the path of a file"),
        ("none.mp4", None, r"none\.mp4: expected a video, got no such file; check the path"),
    ],
)
def test_not_a_video(name, content, text, tmp_path):
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=text):
        run(tmp_path / "out", tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_a_capture_for_a_video(folder, tmp_path):
    with pytest.raises(ValueError, match="expected a video, got a capture, which is already preprocessed; pass the"):
        run(tmp_path / "out", folder)


def test_a_file_for_the_capture(video, tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(ValueError, match="out: expected a folder for the capture, got a file; choose another name"):
        run(tmp_path / "out", video)


@pytest.mark.parametrize(("option", "what"), [("blinks", "a CSV of OpenFace"), ("face_parser", "BiSeNet's weights")])
def test_missing_input_files_are_found_before_any_work(option, what, video, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"none: expected {what}.*, got no such file; check the path, or omit"):
        run(tmp_path / "out", video, **{option: tmp_path / "none"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [("blinks", "damaged: expected a column AU45_r, got mine"), ("face_parser", "damaged: expected a state dict, got")],
)
def test_damaged_input_files_are_found_before_any_work(option, message, video, tmp_path):
    (tmp_path / "damaged").write_text("mine")
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", video, **{option: tmp_path / "damaged"})
    assert not (tmp_path / "out").exists()


def record_source(path: Path, digest: str) -> None:
    path.write_text(json.dumps({"source": {"name": "other.mp4", "sha256": digest}}))


@pytest.fixture
def begun(tmp_path) -> Path:
    """A capture that was begun: its folders, and files that stages make, with other content."""
    folder = tmp_path / "begun"
    (folder / "preprocess").mkdir(parents=True)
    CapturePaths(folder).make_folders()
    np.save(folder / "aud_mel.npy", np.zeros((N_FRAMES, 16, 80), np.float32))
    write_wav(folder / "aud.wav", np.zeros(16_000))
    write_image(folder / "ori_imgs" / "0.jpg", np.zeros((SIZE, SIZE, 3), np.uint8))
    for name in ("au.csv", "report.pth"):
        (folder / name).write_text("mine")
    record_source(folder / "preprocess" / "crop.json", "0" * 64)
    return folder


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("blinks", "au.csv"),
        ("audio", "aud.wav"),
        ("video", "ori_imgs"),
        ("features", "aud_mel.npy"),
        ("face_parser", "report.pth"),
        ("speech_model", "report.pth"),
    ],
)
def test_inputs_that_would_be_replaced_are_refused(option, name, video, begun, tmp_path):
    before = contents(begun)
    path = begun / name
    options = {"video": video, "features": "mel", option: str(path) if option == "features" else path}
    if option == "video":
        write_wav(tmp_path / "voice.wav", np.zeros(16_000))
        options["audio"] = tmp_path / "voice.wav"
    with pytest.raises(ValueError, match=f"begun/{name}: expected an input that is only read, got "):
        capture_pipeline(begun, Settings(size=SIZE, **options)).run()
    assert contents(begun) == before


@pytest.mark.parametrize("name", ["preprocess/crop.json", "capture.json"])
def test_a_capture_of_another_video_is_kept(name, video, begun):
    (begun / "preprocess" / "crop.json").rename(begun / name)
    before = contents(begun)
    with pytest.raises(
        ValueError, match=r"begun: expected a new folder or the capture of .*portrait\.mp4, got the capt"
    ):
        capture_pipeline(begun, Settings(video, SIZE))
    assert contents(begun) == before
    record_source(begun / name, hashlib.sha256(video.read_bytes()).hexdigest())
    capture_pipeline(begun, Settings(video, 64))
    (begun / name).write_text("{")  # damaged, it is made again
    capture_pipeline(begun, Settings(video, SIZE))


def test_frames_without_a_face_keep_their_numbers(portrait, tmp_path):
    # The speaker is gone for ten frames in the middle.
    frames = [portrait.render(k).image if not 12 <= k < 22 else portrait.background() for k in range(N_FRAMES)]
    write_video(tmp_path / "gone.mp4", frames, 25, portrait.samples)
    run(tmp_path / "out", tmp_path / "gone.mp4")
    capture = open_capture(tmp_path / "out")
    ids = np.concatenate((capture.train.frame_ids, capture.val.frame_ids))
    assert set(range(N_FRAMES)) - set(ids.tolist()) == set(range(12, 22))
    assert len(capture.eye_closures) == len(capture.audio_windows) == N_FRAMES
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["frames"]["without_pose"] == {"no face": 10}
    assert any("10 of 32 frames have no head pose" in text for text in figures["warnings"])


def test_two_faces(portrait, tmp_path):
    # A second person at half the size, beside the speaker.
    frames = []
    for k in range(N_FRAMES // 2):
        image = portrait.render(k).image
        wide = np.concatenate((image, np.full_like(image, 120)), 1)
        wide[SIZE // 4 : SIZE // 4 + SIZE // 2, SIZE + SIZE // 4 : SIZE + SIZE // 4 + SIZE // 2] = image[::2, ::2]
        frames.append(wide)
    write_video(tmp_path / "two.mp4", frames, 25, portrait.samples[: N_FRAMES // 2 * 640])
    run(tmp_path / "out", tmp_path / "two.mp4")
    found = json.loads((tmp_path / "out" / "preprocess" / "crop.json").read_text())
    assert found["with_several_faces"] > 0
    assert found["crop"]["x"] < SIZE // 4  # the larger one
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any(text.startswith("several faces in") for text in report["warnings"])
    assert open_capture(tmp_path / "out").description.n_frames == N_FRAMES // 2


def test_missing_mediapipe_stops_the_first_stage(video, tmp_path, monkeypatch):
    def missing():
        raise ImportError("preprocessing needs the package mediapipe 0.10.21")

    monkeypatch.setattr("ernerf_ti.preprocess.face_detection.solutions", missing)
    with pytest.raises(StageError, match="stage crop: preprocessing needs the package mediapipe"):
        run(tmp_path / "out", video)


def test_every_artifact_has_one_stage(folder, video):
    pipeline = capture_pipeline(folder, Settings(video, SIZE))
    made = [artifact for stage in pipeline.stages for artifact in stage.outputs]
    assert len(made) == len(set(made))
    known = {"video"}
    for stage in pipeline.stages:
        assert set(stage.inputs) <= known, stage.name
        known |= set(stage.outputs)
    assert known == set(stages._CaptureStages(folder, Settings(video, SIZE)).artifacts())
