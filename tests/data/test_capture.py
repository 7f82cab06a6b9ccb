"""Captures of this package: what is written comes back."""

import wave

import numpy as np
import pytest

from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import (
    CaptureError,
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
from ernerf_ti.media.images import read_image


def test_round_trip(capture):
    opened = open_capture(capture.folder)
    assert (opened.width, opened.height, opened.extractor) == (32, 32, "ppg")
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
    assert opened.description == Description(32, 32, 12, "ppg", 42)


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


def test_landmarks_round_trip(tmp_path):
    points = np.random.default_rng(0).uniform(0, 512, (68, 2)).astype(np.float32)
    write_landmarks(tmp_path / "0.lms", points)
    assert np.array_equal(read_landmarks(tmp_path / "0.lms"), points)
