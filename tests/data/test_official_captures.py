"""Captures made by the tools of ER-NeRF."""

import math

import numpy as np
import pytest

from ernerf_ti.audio.ready_made import FORMATS, save_windows
from ernerf_ti.data.capture import open_capture
from ernerf_ti.train.training_frames import TrainingFrames

# The kinds of features that the public loader knows.
PUBLIC = [f for f in FORMATS if f.extractor in ("esperanto", "deepspeech", "hubert", "other")]


@pytest.mark.parametrize("form", PUBLIC, ids=lambda form: form.extractor)
def test_er_nerf_capture(make_official_capture, form):
    official = make_official_capture(extractor=form.extractor)
    opened = open_capture(official.folder, form.extractor)
    assert opened.description is None
    assert opened.extractor == form.extractor
    assert (opened.width, opened.height) == (32, 32)
    assert opened.audio_windows.dtype == np.float32
    np.testing.assert_allclose(opened.audio_windows, official.windows)
    assert opened.audio_windows.shape == (12, form.window, form.dimension)
    np.testing.assert_allclose(opened.eye_closures, official.eye_closures, rtol=1e-6)
    assert np.array_equal(opened.train.poses, official.poses[:10])
    np.testing.assert_allclose(opened.landmarks(3), official.landmarks[3], atol=1e-6)
    if form.file_name != "aud.npy":  # which is used only if its extractor is given
        assert open_capture(official.folder).extractor == form.extractor


def test_poses_of_an_er_nerf_capture_as_its_loader_has_them(official):
    """Row i there is row (i + 1) mod 3 of the file, with camera y and z negated and 4 scene units per meter."""
    opened = open_capture(official.folder)
    poses = TrainingFrames(opened, opened.train).poses.numpy()
    for pose, source in zip(poses, official.poses, strict=False):
        for row, origin in enumerate((1, 2, 0)):
            a, b, c, t = source[origin]
            np.testing.assert_allclose(pose[row], [a, -b, -c, 4 * t], rtol=1e-6)


def test_files_that_training_does_not_read_may_be_missing(official):
    official.paths.sound.unlink()
    for k in range(12):
        official.paths.labels(k).unlink()
        official.paths.frame(k).unlink()
    assert len(open_capture(official.folder).train) == 10


@pytest.mark.parametrize("header", ["frame,success,AU45_r", "frame, success, AU45_r", "frame,success,  AU45_r "])
def test_space_before_au45(official, header):
    official.paths.blinks.write_text(header + "\n" + "".join(f"{k},1,0.5\n" for k in range(12)))
    assert open_capture(official.folder).eye_closures.tolist() == [0.25] * 12


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
def test_focal_length(official, camera, expected):
    for split in ("train", "val"):
        official.change_json(
            official.paths.transforms(split), lambda content: (content.pop("focal_len"), content.update(camera))
        )
    np.testing.assert_allclose(open_capture(official.folder).intrinsics, [*expected, 16, 16])


@pytest.mark.parametrize(
    "camera", [{"w": 32, "h": 32}, {"w": 32, "h": 32, "cx": 15, "cy": 17.5}, {"cx": 16.5, "cy": 16}]
)
def test_size(official, camera):
    for split in ("train", "val"):
        official.change_json(
            official.paths.transforms(split),
            lambda content: (content.pop("cx"), content.pop("cy"), content.update(camera)),
        )
    opened = open_capture(official.folder)
    assert (opened.width, opened.height) == (32, 32)
    assert opened.intrinsics[2:].tolist() == [camera.get("cx", 16), camera.get("cy", 16)]


def test_aud_id_differs_from_img_id(official):
    def shift(content):
        for frame in content["frames"]:
            frame["aud_id"] = frame["img_id"] // 2

    official.change_json(official.paths.transforms("train"), shift)
    official.change_json(official.paths.transforms("val"), lambda content: [f.pop("aud_id") for f in content["frames"]])
    opened = open_capture(official.folder)
    assert opened.train.audio_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert opened.val.audio_ids.tolist() == [10, 11]


def test_given_extractor(official):
    windows = np.ones((12, 2, 1024), np.float32)
    save_windows(official.folder, "hubert", windows)
    assert open_capture(official.folder).extractor == "deepspeech"
    assert np.array_equal(open_capture(official.folder, "hubert").audio_windows, windows)
