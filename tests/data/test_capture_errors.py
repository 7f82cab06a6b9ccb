"""What is said about a capture that is incomplete or inconsistent."""

import numpy as np
import pytest

from ernerf_ti.audio.ready_made import save_windows
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import (
    CaptureError,
    CapturePaths,
    read_landmarks,
    write_sound,
)
from ernerf_ti.media.images import write_image
from tests.media.sound_files import write_sound_file


def message_of(folder, *arguments):
    with pytest.raises(CaptureError) as error:
        open_capture(folder, *arguments)
    return str(error.value)


def test_no_folder(tmp_path):
    folder = tmp_path / "none"
    assert message_of(folder) == (
        f"{folder}: expected a capture folder, got no such folder; make one with `ernerf-ti preprocess VIDEO {folder}`"
    )


def test_a_file_for_a_folder(tmp_path):
    video = tmp_path / "speaker.mp4"
    video.write_bytes(b"video")
    assert message_of(video) == (
        f"{video}: expected a capture folder, got a file; run `ernerf-ti preprocess {video} CAPTURE` on a video first"
    )


def test_another_folder(tmp_path):
    advice = "; make one with `ernerf-ti preprocess VIDEO CAPTURE`"
    assert message_of(tmp_path) == f"{tmp_path}: expected a capture folder, got an empty folder{advice}"
    (tmp_path / "notes.txt").write_text("x")
    message = message_of(tmp_path)
    assert message == f"{tmp_path}: expected a capture folder, got a folder without transforms_train.json{advice}"


@pytest.mark.parametrize(
    ("what", "path", "words"),
    [
        ("images", CapturePaths.image, "gt_imgs"),
        ("torso layers", CapturePaths.torso, "torso_imgs"),
        ("landmarks", CapturePaths.landmarks, "ori_imgs"),
    ],
)
@pytest.mark.parametrize("k", [0, 4, 11])
def test_missing_file_of_a_frame(capture, what, path, words, k):
    missing = path(capture.paths, k)
    missing.unlink()
    message = message_of(capture.folder)
    assert f"{words}: expected {what} of 12 frames (from the transforms), got 11" in message
    assert f"(first missing: {missing.name}); preprocess again" in message


def test_missing_background(capture):
    capture.paths.background.unlink()
    message = message_of(capture.folder)
    assert f"{capture.paths.background}: expected the background image, got no such file" in message


def test_missing_transforms(capture):
    capture.paths.transforms("val").unlink()
    assert f"{capture.paths.transforms('val')}: expected a JSON file, got no such file" in message_of(capture.folder)


def test_missing_blinks(capture):
    capture.paths.blinks.unlink()
    message = message_of(capture.folder)
    assert f"{capture.paths.blinks}: expected eye closures for 12 frames, got no such file; preprocess" in message


def test_no_au45(capture):
    capture.paths.blinks.write_text("frame, AU01_r\n1, 0\n")
    message = message_of(capture.folder)
    assert "expected a column AU45_r, got frame, AU01_r; run OpenFace" in message
    capture.paths.blinks.write_text("")
    assert "got an empty file" in message_of(capture.folder)


@pytest.mark.parametrize(("cell", "shown"), [(" ", "''"), (" nan", "'nan'"), (" inf", "'inf'"), (" -", "'-'")])
def test_empty_cell(capture, cell, shown):
    lines = capture.paths.blinks.read_text().splitlines()
    lines[6] = "6, 0.20, 1," + cell
    capture.paths.blinks.write_text("\n".join(lines))
    message = message_of(capture.folder)
    assert f"au.csv: expected a number for AU45_r in row 6 (frame 5), got {shown}; fill in the value" in message


def test_row_without_the_column(capture):
    lines = capture.paths.blinks.read_text().splitlines()
    lines[3] = "3, 0.08"
    capture.paths.blinks.write_text("\n".join(lines))
    assert "expected a number for AU45_r in row 3 (frame 2), got ''" in message_of(capture.folder)


def test_fewer_blinks_than_frames(capture):
    lines = capture.paths.blinks.read_text().splitlines()
    capture.paths.blinks.write_text("\n".join(lines[:10]))
    assert "expected a row for each of 12 frames, got 9; run the blink detection" in message_of(capture.folder)


def test_features_named_aud_npy(official):
    (official.folder / "aud_ds.npy").rename(official.folder / "aud.npy")
    message = message_of(official.folder)
    assert "aud_ds.npy: expected deepspeech features, got no such file" in message
    assert "aud.npy in the same folder has its shape: rename it to aud_ds.npy" in message


def test_no_features(capture):
    (capture.folder / "aud_ppg.npy").unlink()
    assert "aud_ppg.npy: expected ppg features, got no such file; extract" in message_of(capture.folder)


@pytest.mark.parametrize(
    ("name", "extractor", "shape", "wanted", "looks"),
    [
        ("aud_ds.npy", "deepspeech", (12, 16, 44), "[T, 16, 29]", "esperanto (aud_eo.npy)"),
        ("aud_eo.npy", "esperanto", (12, 16, 29), "[T, 16, 44]", "deepspeech (aud_ds.npy)"),
        ("aud_hu.npy", "hubert", (12, 16, 44), "[T, 2, 1024]", "esperanto (aud_eo.npy)"),
        ("aud_ds.npy", "deepspeech", (12, 2, 1024), "[T, 16, 29]", "hubert (aud_hu.npy)"),
    ],
)
def test_features_of_another_dimension(official, name, extractor, shape, wanted, looks):
    np.save(official.folder / name, np.zeros(shape))
    message = message_of(official.folder, extractor)
    assert f"{name}: expected {extractor} features of shape {wanted}, got {list(shape)}" in message
    assert f"which looks like {looks}" in message


def test_feature_dimension_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(feature_dimension=29))
    message = message_of(capture.folder)
    assert "capture.json: expected feature_dimension 42 (from the ppg features), got 29; extract" in message


@pytest.mark.parametrize("camera", [{"cx": 16.5, "w": 33}, {"cy": 16.5, "h": 33}])
def test_odd_size(capture, camera):
    capture.change_json(capture.paths.transforms("train"), lambda content: content.update(camera))
    message = message_of(capture.folder)
    size = f"{camera.get('w', 32)}x{camera.get('h', 32)}"
    assert f"transforms_train.json: expected an even width and height, got {size}; preprocess again" in message


@pytest.mark.parametrize("name", ["bc.jpg", "gt_imgs/0.jpg", "torso_imgs/0.png"])
def test_size_of_an_image(capture, name):
    write_image(capture.folder / name, np.zeros((33, 32, 4 if name.endswith("png") else 3), np.uint8))
    message = message_of(capture.folder)
    assert f"{capture.folder / name}: expected 32x32 pixels (from the transforms), got 32x33; trackers round" in message


def test_size_of_a_later_image(capture):
    write_image(capture.paths.image(7), np.zeros((32, 16, 3), np.uint8))
    opened = open_capture(capture.folder)
    with pytest.raises(CaptureError) as error:
        opened.image(7)
    assert (
        f"{capture.paths.image(7)}: expected 32x32 pixels with 3 channels (from the transforms), got 16x32 with 3"
        in str(error.value)
    )


def test_torso_without_alpha(capture):
    write_image(capture.paths.torso(3), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(CaptureError, match=r"expected 32x32 pixels with 4 channels .*, got 32x32 with 3"):
        open_capture(capture.folder).torso(3)


def test_file_that_is_not_an_image(capture):
    capture.paths.image(0).write_text("nothing")
    assert f"{capture.paths.image(0)}: not an image, or a damaged one; save" in message_of(capture.folder)


def test_size_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(width=64))
    assert "capture.json: expected 32x32 pixels (from transforms_train.json), got 64x32" in message_of(capture.folder)


def test_frames_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(n_frames=11))
    message = message_of(capture.folder)
    assert "capture.json: expected more than 11 frames (the largest img_id or aud_id), got n_frames 11" in message


def test_frame_rate_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(fps=30.0))
    message = message_of(capture.folder)
    assert "capture.json: expected 25 frames per second, got 30; preprocess the video again" in message


def test_splits_with_different_cameras(capture):
    capture.change_json(capture.paths.transforms("val"), lambda content: content.update(focal_len=75))
    message = message_of(capture.folder)
    assert "transforms_val.json: expected the camera of transforms_train.json, 32x32 with focal length 70" in message
    assert "got 32x32 with focal length 75; track again" in message


@pytest.mark.parametrize(("n", "which"), [(18, "more, for 18 (0.72 s)"), (6, "less, for 6 (0.24 s)")])
def test_features_of_another_length(capture, n, which):
    save_windows(capture.folder, "ppg", np.zeros((n, 16, 42)))
    message = message_of(capture.folder)
    assert f"the ppg features: expected sound for 12 frames at 25 fps (0.48 s), got {which}; " in message
    assert "take frames and sound from the same video at 25 fps" in message


@pytest.mark.parametrize(("n", "which"), [(18, "more, for 18 (0.72 s)"), (6, "less, for 6 (0.24 s)")])
def test_sound_of_another_length(capture, n, which):
    write_sound(capture.paths.sound, np.zeros(n * 640))
    message = message_of(capture.folder)
    assert f"aud.wav: expected sound for 12 frames at 25 fps (0.48 s), got {which}; " in message


@pytest.mark.parametrize("n", [7, 17])
def test_a_few_frames_of_sound_do_not_matter(capture, n):
    save_windows(capture.folder, "ppg", np.zeros((n, 16, 42)))
    write_sound(capture.paths.sound, np.zeros(n * 640))
    assert len(open_capture(capture.folder).audio_windows) == n


@pytest.mark.parametrize(("rate", "n_frames"), [(30, 72), (60, 72), (50, 72), (24, 144)])
def test_sound_of_a_video_at_another_rate(make_capture, rate, n_frames):
    made = make_capture(n_frames)
    save_windows(made.folder, "ppg", np.zeros((n_frames * 25 // rate, 16, 42)))
    message = message_of(made.folder)
    assert f"the frames seem to have been extracted at {rate} fps: take frames and sound from the same" in message


def test_broken_sound(capture):
    capture.paths.sound.write_bytes(b"no sound")
    assert f"{capture.paths.sound}: ffmpeg can't read this as video or sound (" in message_of(capture.folder)


@pytest.mark.parametrize("codec", ["pcm_s24le", "pcm_f32le"])
def test_sound_as_editors_save_it(capture, codec):
    samples = np.zeros(12 * 640 * 3, np.float32)
    write_sound_file(capture.paths.sound, codec, samples, 48_000)
    assert len(open_capture(capture.folder).train) == 10


@pytest.mark.parametrize("name", ["transforms_train.json", "transforms_val.json", "capture.json"])
def test_broken_json(capture, name):
    (capture.folder / name).write_text('{"frames": [')
    message = message_of(capture.folder)
    assert f"{capture.folder / name}: not valid JSON (Expecting" in message
    assert message.endswith("; create the file again")


@pytest.mark.parametrize(("version", "shown"), [(2, "2"), (None, "None"), ("1", "1")])
def test_another_format_version(capture, version, shown):
    capture.change_json(capture.paths.description, lambda content: content.update(format_version=version))
    message = message_of(capture.folder)
    assert f"capture.json: expected format_version 1, got {shown}; use the version of ernerf-ti" in message


@pytest.mark.parametrize("content", ["[1]", "7", "null"])
def test_content_that_is_not_a_description(capture, content):
    capture.paths.description.write_text(content)
    assert "capture.json: expected format_version 1, got None" in message_of(capture.folder)


def test_fields_of_the_description(capture):
    def change(content):
        content.pop("n_frames")
        content["color"] = "red"

    capture.change_json(capture.paths.description, change)
    message = message_of(capture.folder)
    assert "capture.json: expected the fields crop, extractor, feature_dimension," in message
    assert "got unknown or missing ones (color, n_frames); preprocess" in message


@pytest.mark.parametrize(("name", "value"), [("width", "32"), ("n_frames", 1.5), ("fps", "25"), ("extractor", None)])
def test_types_of_the_description(capture, name, value):
    capture.change_json(capture.paths.description, lambda content: content.update({name: value}))
    kind = "text" if name == "extractor" else "number"
    assert f"capture.json: expected {name} to be a {kind}, got {value!r}; preprocess" in message_of(capture.folder)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("crop", None, "crop to be a record, got None"),
        ("source", "take.mp4", "source to be a record, got 'take.mp4'"),
        ("versions", [], "versions to be a record, got []"),
        ("crop", {"x": "3", "y": 0, "side": 32}, "crop.x to be a number, got '3'"),
        ("crop", {"x": 0, "y": 0, "side": 1e400}, "crop.side to be a number, got inf"),
        ("crop", {"x": 0, "y": False, "side": 32}, "crop.y to be a number, got False"),
        ("source", {"sha256": 5}, "source.sha256 to be a text, got 5"),
        ("source", {"rate": None}, "source.rate to be a number, got None"),
        ("source", {"rate": 10**400}, "source.rate above 0, got 1000"),
        ("source", {"rate": -25.0}, "source.rate above 0, got -25.0"),
    ],
)
def test_records_of_the_description(capture, name, value, text):
    capture.change_json(capture.paths.description, lambda content: content.update({name: value}))
    message = message_of(capture.folder)
    assert f"capture.json: expected {text}" in message and "; preprocess the video again" in message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"frame, AU45_r\n1, " + b"1" * 200_000])
def test_not_a_csv(capture, content):
    capture.paths.blinks.write_bytes(content)
    assert f"{capture.paths.blinks}: not a CSV file (" in message_of(capture.folder)


def test_labels_in_other_colors_name_the_file(capture):
    write_image(capture.paths.labels(5), np.full((32, 32, 3), 7, np.uint8))
    with pytest.raises(CaptureError) as error:
        open_capture(capture.folder).labels(5)
    assert str(error.value).startswith(f"{capture.paths.labels(5)}: labels: expected the four colors of ER-NeRF")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2\n" * 67, "68 lines of 2 finite numbers, got shape [67, 2]"),
        ("1 2 3\n" * 68, "68 lines of 2 finite numbers, got shape [68, 3]"),
        ("1 nan\n" * 68, "68 lines of 2 finite numbers, got"),
        ("1 x\n" * 68, "68 lines `x y`, got"),
        ("1 2\n" * 67 + "1\n", "68 lines `x y`, got"),
    ],
)
def test_bad_landmarks(capture, text, words):
    capture.paths.landmarks(5).write_text(text)
    with pytest.raises(CaptureError) as error:
        open_capture(capture.folder).landmarks(5)
    assert f"{capture.paths.landmarks(5)}: expected {words}" in str(error.value)
    assert str(error.value).endswith("; track the video again")


def test_empty_landmarks(capture):
    capture.paths.landmarks(5).write_text("")
    with pytest.raises(CaptureError, match="expected 68 lines"):
        read_landmarks(capture.paths.landmarks(5))


def test_several_problems_in_one_message(capture):
    capture.paths.image(3).unlink()
    capture.paths.blinks.unlink()
    capture.change_json(capture.paths.description, lambda content: content.update(fps=30))
    save_windows(capture.folder, "ppg", np.zeros((40, 16, 42)))
    lines = message_of(capture.folder).splitlines()
    assert lines[0] == f"{capture.folder}: 4 problems with this capture:"
    assert all(line.startswith("- ") for line in lines[1:]) and len(lines) == 5
    text = "\n".join(lines)
    for words in ("got 30;", "got 11 (first missing: 3.jpg)", "expected eye closures for 12 frames", "more, for 40"):
        assert words in text
