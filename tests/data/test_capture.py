import json
import math
import wave

import numpy as np
import pytest

from ernerf_ti.audio.ready_made import FORMATS, save_windows
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import (
    CaptureError,
    CapturePaths,
    Description,
    labels_of,
    read_blinks,
    read_description,
    read_landmarks,
    read_transforms,
    split_frames,
    write_blinks,
    write_description,
    write_labels,
    write_landmarks,
    write_sound,
    write_transforms,
)
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.train.training_frames import TrainingFrames


def message_of(folder, *arguments):
    with pytest.raises(CaptureError) as error:
        open_capture(folder, *arguments)
    return str(error.value)


# Round trips


def test_round_trip(capture):
    opened = open_capture(capture.folder)
    assert (opened.width, opened.height, opened.extractor) == (32, 32, "senone")
    assert opened.intrinsics.tolist() == [70, 70, 16, 16]
    assert opened.train.frame_ids.tolist() == list(range(10))
    assert opened.val.frame_ids.tolist() == opened.val.audio_ids.tolist() == [10, 11]
    assert (len(opened.train), len(opened.val)) == (10, 2)
    assert np.array_equal(np.concatenate((opened.train.poses, opened.val.poses)), capture.poses)
    assert opened.eye_closures.dtype == np.float32
    assert np.array_equal(opened.eye_closures, capture.eye_closures)
    assert opened.audio_windows.dtype == np.float32
    assert np.array_equal(opened.audio_windows, capture.windows)
    assert np.abs(opened.background.astype(int) - 90).max() <= 1
    for k in (0, 11):
        assert np.abs(opened.frame(k).astype(int) - capture.frames[k]).max() <= 1
        assert np.abs(opened.image(k).astype(int) - (255 - capture.frames[k])).max() <= 1
        assert np.array_equal(opened.torso(k), capture.torsos[k])
        assert np.array_equal(opened.labels(k), capture.labels[k])
        assert np.array_equal(opened.landmarks(k), capture.landmarks[k])
        assert opened.landmarks(k).dtype == np.float32
    assert opened.description == Description(32, 32, 12, "senone", 42)


def test_no_temporary_files_stay(capture):
    assert [path.name for path in capture.folder.rglob(".*")] == []


def test_description_round_trip(tmp_path):
    made = Description(48, 32, 7, "mel", 80, 25.0, {"x": 3}, {"sha256": "ab"}, {"torch": "2"})
    write_description(tmp_path / "capture.json", made)
    assert read_description(tmp_path / "capture.json") == made


@pytest.mark.parametrize(("n", "n_train"), [(2, 1), (11, 10), (12, 10), (1779, 1617)])
def test_split(n, n_train):
    assert split_frames(n) == n_train


def test_frames_without_a_pose_are_left_out(tmp_path):
    poses = np.tile(np.eye(4), (3, 1, 1))
    write_transforms(tmp_path, 50, (64, 48), [2, 5, 9], poses)
    intrinsics, size, train = read_transforms(tmp_path / "transforms_train.json")
    assert intrinsics.tolist() == [50, 50, 32, 24] and size == (64, 48)
    assert train.frame_ids.tolist() == train.audio_ids.tolist() == [2, 5]
    assert read_transforms(tmp_path / "transforms_val.json")[2].frame_ids.tolist() == [9]


def test_transforms_of_one_frame(tmp_path):
    with pytest.raises(ValueError, match=r"frame_ids: expected at least 2 frames with a pose, .* got 1; use a longer"):
        write_transforms(tmp_path, 50, (64, 48), [2], np.eye(4)[None])
    assert list(tmp_path.iterdir()) == []


def test_label_colors_are_those_of_er_nerf(tmp_path):
    # OpenCV reads its files as B, G, R: white, (255, 0, 0) head, (0, 255, 0) neck, (0, 0, 255) torso.
    write_labels(tmp_path / "a.png", np.array([[0, 1], [2, 3]], np.uint8))
    stored = read_image(tmp_path / "a.png")[..., ::-1].reshape(4, 3)
    assert stored.tolist() == [[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    with pytest.raises(CaptureError, match="labels: expected the four colors of ER-NeRF, got others"):
        labels_of(np.full((1, 1, 3), 7, np.uint8))


def test_blinks_are_written_as_openface_does(tmp_path):
    write_blinks(tmp_path / "au.csv", np.array([0, 0.5, 1]), np.array([True, False, True]))
    lines = (tmp_path / "au.csv").read_text().splitlines()
    assert lines[0] == "frame, timestamp, success, AU45_r"
    assert [[float(cell) for cell in line.split(",")] for line in lines[1:]] == [
        [1, 0, 1, 0],
        [2, 0.04, 0, 1],
        [3, 0.08, 1, 2],
    ]
    assert read_blinks(tmp_path / "au.csv", 3).tolist() == [0, 0.5, 1]


def test_blinks_are_clipped_and_cut(tmp_path):
    (tmp_path / "au.csv").write_text("frame, AU45_r, AU45_c\n1, -1, 0\n2, 0.3, 0\n\n3, 4.7, 1\n4, 1, 1\n")
    np.testing.assert_allclose(read_blinks(tmp_path / "au.csv", 3), [0, 0.15, 1], rtol=1e-6)


def test_sound_round_trip(tmp_path):
    samples = np.random.default_rng(0).uniform(-1.2, 1.2, 999)
    write_sound(tmp_path / "aud.wav", samples)
    with wave.open(str(tmp_path / "aud.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, 999)
        found = np.frombuffer(file.readframes(999), "<i2") / 32767
    np.testing.assert_allclose(found, np.clip(samples, -1, 1), atol=0.5001 / 32767)


# Captures of ER-NeRF's tools


@pytest.fixture
def theirs(make_official_capture):
    return make_official_capture()


# All kinds of features that the public loader knows, as far as they have a name here.
PUBLIC = [f for f in FORMATS if f.extractor in ("esperanto", "deepspeech", "hubert", "other")]


@pytest.mark.parametrize("form", PUBLIC, ids=lambda form: form.extractor)
def test_er_nerf_capture(make_official_capture, form):
    theirs = make_official_capture(extractor=form.extractor)
    opened = open_capture(theirs.folder, form.extractor)
    assert opened.description is None
    assert opened.extractor == form.extractor
    assert (opened.width, opened.height) == (32, 32)
    assert opened.audio_windows.dtype == np.float32
    np.testing.assert_allclose(opened.audio_windows, theirs.windows)
    assert opened.audio_windows.shape == (12, form.window, form.dimension)
    np.testing.assert_allclose(opened.eye_closures, theirs.eye_closures, rtol=1e-6)
    assert np.array_equal(opened.train.poses, theirs.poses[:10])
    np.testing.assert_allclose(opened.landmarks(3), theirs.landmarks[3], atol=1e-6)
    if form.file_name != "aud.npy":  # which is taken only when it is asked for by name
        assert open_capture(theirs.folder).extractor == form.extractor


def test_poses_of_an_er_nerf_capture_as_its_loader_has_them(theirs):
    """Row i of theirs is row (i + 1) mod 3 of the file, camera y and z turned round, 4 scene units to the metre."""
    opened = open_capture(theirs.folder)
    poses = TrainingFrames(opened, opened.train).poses.numpy()
    for pose, source in zip(poses, theirs.poses, strict=False):
        for row, origin in enumerate((1, 2, 0)):
            a, b, c, t = source[origin]
            np.testing.assert_allclose(pose[row], [a, -b, -c, 4 * t], rtol=1e-6)


def test_what_training_does_not_read_may_be_missing(theirs):
    theirs.paths.sound.unlink()
    for k in range(12):
        theirs.paths.labels(k).unlink()
        theirs.paths.frame(k).unlink()
    assert len(open_capture(theirs.folder).train) == 10


@pytest.mark.parametrize("header", ["frame,success,AU45_r", "frame, success, AU45_r", "frame,success,  AU45_r "])
def test_blank_before_au45(theirs, header):
    theirs.paths.blinks.write_text(header + "\n" + "".join(f"{k},1,0.5\n" for k in range(12)))
    assert open_capture(theirs.folder).eye_closures.tolist() == [0.25] * 12


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ({"focal_len": 80}, (80, 80)),
        ({"focal_len": 80, "fl_x": 90, "camera_angle_x": 1}, (80, 80)),
        ({"fl_x": 90, "fl_y": 95}, (90, 95)),
        ({"fl_x": 90}, (90, 90)),
        ({"fl_y": 95, "camera_angle_x": 1}, (95, 95)),
        ({"camera_angle_x": 2 * math.atan(0.25)}, (64, 64)),
        ({"camera_angle_x": 2 * math.atan(0.25), "camera_angle_y": 2 * math.atan(0.5)}, (64, 32)),
        ({"camera_angle_y": 2 * math.atan(0.5)}, (32, 32)),
    ],
)
def test_focal_length(theirs, camera, expected):
    for split in ("train", "val"):
        theirs.change_json(
            theirs.paths.transforms(split), lambda content: (content.pop("focal_len"), content.update(camera))
        )
    np.testing.assert_allclose(open_capture(theirs.folder).intrinsics, [*expected, 16, 16])


@pytest.mark.parametrize(
    "camera", [{"w": 32, "h": 32}, {"w": 32, "h": 32, "cx": 15, "cy": 17.5}, {"cx": 16.5, "cy": 16}]
)
def test_size(theirs, camera):
    for split in ("train", "val"):
        theirs.change_json(
            theirs.paths.transforms(split),
            lambda content: (content.pop("cx"), content.pop("cy"), content.update(camera)),
        )
    opened = open_capture(theirs.folder)
    assert (opened.width, opened.height) == (32, 32)
    assert opened.intrinsics[2:].tolist() == [camera.get("cx", 16), camera.get("cy", 16)]


def test_rows_of_the_audio_of_their_own(theirs):
    def shift(content):
        for frame in content["frames"]:
            frame["aud_id"] = frame["img_id"] // 2

    theirs.change_json(theirs.paths.transforms("train"), shift)
    theirs.change_json(theirs.paths.transforms("val"), lambda content: [f.pop("aud_id") for f in content["frames"]])
    opened = open_capture(theirs.folder)
    assert opened.train.audio_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert opened.val.audio_ids.tolist() == [10, 11]


def test_extractor_is_the_one_that_was_asked_for(theirs):
    windows = np.ones((12, 2, 1024), np.float32)
    save_windows(theirs.folder, "hubert", windows)
    assert open_capture(theirs.folder).extractor == "deepspeech"
    assert np.array_equal(open_capture(theirs.folder, "hubert").audio_windows, windows)


# Errors


def test_no_folder(tmp_path):
    message = message_of(tmp_path / "none")
    assert message == (
        f"{tmp_path / 'none'}: expected a capture folder, got no such folder; make one with preprocess_video.py"
    )


@pytest.mark.parametrize(
    ("what", "path", "words"),
    [
        ("pictures", CapturePaths.image, "gt_imgs"),
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


def test_missing_plate(capture):
    capture.paths.background.unlink()
    message = message_of(capture.folder)
    assert f"{capture.paths.background}: expected the background plate, got no such file" in message


def test_missing_transforms(capture):
    capture.paths.transforms("val").unlink()
    assert f"{capture.paths.transforms('val')}: expected a JSON file, got no such file" in message_of(capture.folder)


def test_missing_blinks(capture):
    capture.paths.blinks.unlink()
    message = message_of(capture.folder)
    assert f"{capture.paths.blinks}: expected the blinks of 12 frames, got no such file; preprocess" in message


def test_no_au45(capture):
    capture.paths.blinks.write_text("frame, AU01_r\n1, 0\n")
    message = message_of(capture.folder)
    assert "expected a column AU45_r (a blank before it may be left out), got frame, AU01_r; run OpenFace" in message
    capture.paths.blinks.write_text("")
    assert "got an empty file" in message_of(capture.folder)


@pytest.mark.parametrize(("cell", "shown"), [(" ", "''"), (" nan", "'nan'"), (" inf", "'inf'"), (" -", "'-'")])
def test_blank_cell(capture, cell, shown):
    lines = capture.paths.blinks.read_text().splitlines()
    lines[6] = "6, 0.20, 1," + cell
    capture.paths.blinks.write_text("\n".join(lines))
    message = message_of(capture.folder)
    assert f"au.csv: expected a number for AU45_r in row 6 (frame 5), got {shown}; fill the blank" in message


def test_row_without_the_column(capture):
    lines = capture.paths.blinks.read_text().splitlines()
    lines[3] = "3, 0.08"
    capture.paths.blinks.write_text("\n".join(lines))
    assert "expected a number for AU45_r in row 3 (frame 2), got ''" in message_of(capture.folder)


def test_fewer_blinks_than_frames(capture):
    lines = capture.paths.blinks.read_text().splitlines()
    capture.paths.blinks.write_text("\n".join(lines[:10]))
    assert "expected a row for each of 12 frames, got 9; run the blink detection" in message_of(capture.folder)


def test_features_are_called_aud_npy(theirs):
    (theirs.folder / "aud_ds.npy").rename(theirs.folder / "aud.npy")
    message = message_of(theirs.folder)
    assert "aud_ds.npy: expected deepspeech features, got no such file" in message
    assert "aud.npy in the same folder has its shape: rename it to aud_ds.npy" in message


def test_no_features(capture):
    (capture.folder / "aud_senone.npy").unlink()
    assert "aud_senone.npy: expected senone features, got no such file; extract" in message_of(capture.folder)


@pytest.mark.parametrize(
    ("name", "extractor", "shape", "wanted", "looks"),
    [
        ("aud_ds.npy", "deepspeech", (12, 16, 44), "[T, 16, 29]", "esperanto (aud_eo.npy)"),
        ("aud_eo.npy", "esperanto", (12, 16, 29), "[T, 16, 44]", "deepspeech (aud_ds.npy)"),
        ("aud_hu.npy", "hubert", (12, 16, 44), "[T, 2, 1024]", "esperanto (aud_eo.npy)"),
        ("aud_ds.npy", "deepspeech", (12, 2, 1024), "[T, 16, 29]", "hubert (aud_hu.npy)"),
    ],
)
def test_features_of_another_dimension(theirs, name, extractor, shape, wanted, looks):
    np.save(theirs.folder / name, np.zeros(shape))
    message = message_of(theirs.folder, extractor)
    assert f"{name}: expected {extractor} features of shape {wanted}, got {list(shape)}" in message
    assert f"which looks like {looks}" in message


def test_feature_dimension_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(feature_dimension=29))
    message = message_of(capture.folder)
    assert "capture.json: expected feature_dimension 42 (from the senone features), got 29; extract" in message


@pytest.mark.parametrize("camera", [{"cx": 16.5, "w": 33}, {"cy": 16.5, "h": 33}])
def test_odd_size(capture, camera):
    capture.change_json(capture.paths.transforms("train"), lambda content: content.update(camera))
    message = message_of(capture.folder)
    size = f"{camera.get('w', 32)}x{camera.get('h', 32)}"
    assert f"transforms_train.json: expected an even width and height, got {size}; preprocess again" in message


@pytest.mark.parametrize("name", ["bc.jpg", "gt_imgs/0.jpg", "torso_imgs/0.png"])
def test_size_of_a_picture(capture, name):
    write_image(capture.folder / name, np.zeros((33, 32, 4 if name.endswith("png") else 3), np.uint8))
    message = message_of(capture.folder)
    assert f"{capture.folder / name}: expected 32x32 pixels (from the transforms), got 32x33; an odd size" in message


def test_size_of_a_later_picture(capture):
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


def test_picture_that_is_none(capture):
    capture.paths.image(0).write_text("nothing")
    assert f"{capture.paths.image(0)}: expected a picture of 8 bits a channel, got" in message_of(capture.folder)


def test_size_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(width=64))
    assert "capture.json: expected 32x32 pixels (from transforms_train.json), got 64x32" in message_of(capture.folder)


def test_frames_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(n_frames=11))
    message = message_of(capture.folder)
    assert "capture.json: expected more than 11 frames (the largest img_id), got n_frames 11" in message


def test_frame_rate_of_the_description(capture):
    capture.change_json(capture.paths.description, lambda content: content.update(fps=30.0))
    message = message_of(capture.folder)
    assert "capture.json: expected 25 frames per second, got 30; preprocess the video again" in message


def test_splits_of_two_cameras(capture):
    capture.change_json(capture.paths.transforms("val"), lambda content: content.update(focal_len=75))
    message = message_of(capture.folder)
    assert "transforms_val.json: expected the camera of transforms_train.json, 32x32 with focal length 70" in message
    assert "got 32x32 with focal length 75; track again" in message


@pytest.mark.parametrize(("n", "which"), [(18, "more, for 18 (0.72 s)"), (6, "less, for 6 (0.24 s)")])
def test_features_of_another_length(capture, n, which):
    save_windows(capture.folder, "senone", np.zeros((n, 16, 42)))
    message = message_of(capture.folder)
    assert f"the senone features: expected sound for 12 frames at 25 fps (0.48 s), got {which}; " in message
    assert "take frames and sound from the same video at 25 fps" in message


@pytest.mark.parametrize(("n", "which"), [(18, "more, for 18 (0.72 s)"), (6, "less, for 6 (0.24 s)")])
def test_sound_of_another_length(capture, n, which):
    write_sound(capture.paths.sound, np.zeros(n * 640))
    message = message_of(capture.folder)
    assert f"aud.wav: expected sound for 12 frames at 25 fps (0.48 s), got {which}; " in message


@pytest.mark.parametrize("n", [7, 17])
def test_a_few_frames_of_sound_do_not_matter(capture, n):
    save_windows(capture.folder, "senone", np.zeros((n, 16, 42)))
    write_sound(capture.paths.sound, np.zeros(n * 640))
    assert len(open_capture(capture.folder).audio_windows) == n


@pytest.mark.parametrize(("rate", "n_frames"), [(30, 72), (60, 72), (50, 72), (24, 144)])
def test_sound_of_a_video_at_another_rate(make_capture, rate, n_frames):
    made = make_capture(n_frames)
    save_windows(made.folder, "senone", np.zeros((n_frames * 25 // rate, 16, 42)))
    message = message_of(made.folder)
    assert f"the frames look as if they were taken at {rate} fps: take frames and sound from the same" in message


def test_broken_sound(capture):
    capture.paths.sound.write_bytes(b"no sound")
    assert f"{capture.paths.sound}: expected a WAV file, got" in message_of(capture.folder)


@pytest.mark.parametrize("name", ["transforms_train.json", "transforms_val.json", "capture.json"])
def test_broken_json(capture, name):
    (capture.folder / name).write_text('{"frames": [')
    message = message_of(capture.folder)
    assert f"{capture.folder / name}: expected JSON, got Expecting" in message
    assert message.endswith("; write the file again")


@pytest.mark.parametrize("content", ["[]", "{}", '{"frames": []}', "3"])
def test_transforms_without_frames(capture, content):
    capture.paths.transforms("train").write_text(content)
    assert "transforms_train.json: expected a list of frames, got none; track" in message_of(capture.folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.pop("img_id"), "got KeyError('img_id')"),
        (lambda frame: frame.pop("transform_matrix"), "got KeyError('transform_matrix')"),
        (lambda frame: frame["transform_matrix"].pop(), "expected img_id, aud_id and a 4x4 transform_matrix"),
    ],
)
def test_frame_without_what_it_needs(capture, change, words):
    capture.change_json(capture.paths.transforms("train"), lambda content: change(content["frames"][3]))
    message = message_of(capture.folder)
    assert "transforms_train.json: expected img_id, aud_id and a 4x4 transform_matrix in each frame, got" in message
    assert words in message


def test_poses_of_another_shape(capture):
    def cut(content):
        for frame in content["frames"]:
            frame["transform_matrix"].pop()

    capture.change_json(capture.paths.transforms("train"), cut)
    assert "expected a 4x4 transform_matrix in each frame, got [3, 4]; track" in message_of(capture.folder)


@pytest.mark.parametrize("value", [1.5, math.nan])
def test_no_rotation(capture, value):
    def spoil(content):
        for k in (4, 6):
            content["frames"][k]["transform_matrix"][0][0] = value

    capture.change_json(capture.paths.transforms("train"), spoil)
    message = message_of(capture.folder)
    assert "expected a rotation in each transform_matrix, got none in 2 of 10 frames (first: img_id 4)" in message


def test_mirrored_pose(capture):
    def mirror(content):
        for row in content["frames"][2]["transform_matrix"][:3]:
            row[0] = -row[0]

    capture.change_json(capture.paths.transforms("train"), mirror)
    assert "expected a rotation in each transform_matrix, got none in 1 of 10 frames" in message_of(capture.folder)


@pytest.mark.parametrize("focal", [None, 0, -3])
def test_no_focal_length(capture, focal):
    capture.change_json(capture.paths.transforms("train"), lambda content: content.update(focal_len=focal))
    assert "expected a focal length (focal_len, fl_x or camera_angle_x), got none" in message_of(capture.folder)


def test_no_size(capture):
    def strip(content):
        for key in ("cx", "w"):
            content.pop(key)

    capture.change_json(capture.paths.transforms("train"), strip)
    assert "expected cx and cy, or w and h, got neither; track" in message_of(capture.folder)


@pytest.mark.parametrize(("version", "shown"), [(2, "2"), (None, "None"), ("1", "1")])
def test_another_format_version(capture, version, shown):
    capture.change_json(capture.paths.description, lambda content: content.update(format_version=version))
    message = message_of(capture.folder)
    assert f"capture.json: expected format_version 1, got {shown}; use the version of ernerf-ti" in message


@pytest.mark.parametrize("content", ["[1]", "7", "null"])
def test_description_that_is_none(capture, content):
    capture.paths.description.write_text(content)
    assert "capture.json: expected format_version 1, got None" in message_of(capture.folder)


def test_fields_of_the_description(capture):
    def change(content):
        content.pop("n_frames")
        content["color"] = "red"

    capture.change_json(capture.paths.description, change)
    message = message_of(capture.folder)
    assert "capture.json: expected the fields crop, extractor, feature_dimension," in message
    assert "got others or too few (color, n_frames); preprocess" in message


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


def test_landmarks_round_trip(tmp_path):
    points = np.random.default_rng(0).uniform(0, 512, (68, 2)).astype(np.float32)
    write_landmarks(tmp_path / "0.lms", points)
    assert np.array_equal(read_landmarks(tmp_path / "0.lms"), points)


def test_several_problems_in_one_message(capture):
    capture.paths.image(3).unlink()
    capture.paths.blinks.unlink()
    capture.change_json(capture.paths.description, lambda content: content.update(fps=30))
    save_windows(capture.folder, "senone", np.zeros((40, 16, 42)))
    lines = message_of(capture.folder).splitlines()
    assert lines[0] == f"{capture.folder}: 4 things are wrong with this capture:"
    assert all(line.startswith("- ") for line in lines[1:]) and len(lines) == 5
    text = "\n".join(lines)
    for words in ("got 30;", "got 11 (first missing: 3.jpg)", "expected the blinks of 12 frames", "more, for 40"):
        assert words in text


def test_both_transforms_are_judged(capture):
    for split in ("train", "val"):
        capture.paths.transforms(split).write_text(json.dumps({"frames": []}))
    message = message_of(capture.folder)
    assert "2 things are wrong" in message
    assert message.count("expected a list of frames, got none") == 2
