"""Selection of frames, compared with what ER-NeRF's loader does with the same folder."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ernerf_ti.cli.train import main as train
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import CaptureError
from ernerf_ti.data.frame_selection import FrameSelection
from ernerf_ti.portrait.camera import SCENE_SCALE, scene_from_capture
from ernerf_ti.synthesis.driving import ping_pong
from ernerf_ti.train.training_frames import TrainingFrames


def frames_of(capture, **options):
    opened = open_capture(capture.folder, frames=FrameSelection(**options))
    return opened.train.frame_ids.tolist(), opened.val.frame_ids.tolist()


@pytest.fixture
def official(make_official_capture):
    """46 frames, 41 of them for training."""
    return make_official_capture(n_frames=46)


def test_all_frames(official):
    assert frames_of(official) == (list(range(41)), list(range(41, 46)))


def test_every_most_and_range(official):
    assert frames_of(official, every=10) == ([0, 10, 20, 30, 40], list(range(41, 46)))  # --part
    assert frames_of(official, most=4) == ([0, 1, 2, 3], list(range(41, 46)))  # as --part2, of 375
    assert frames_of(official, data_range=(1, 4)) == ([1, 2, 3], [42, 43, 44])  # each split
    assert frames_of(official, data_range=(3, -1)) == (list(range(3, 41)), [44, 45])
    assert frames_of(official, data_range=(2, 100), every=10) == ([2, 12, 22, 32], [43, 44, 45])  # the range first


def test_audio_and_poses_stay_with_their_frames(official):
    opened = open_capture(official.folder, frames=FrameSelection(every=10))
    assert opened.train.audio_ids.tolist() == [0, 10, 20, 30, 40]
    assert np.array_equal(opened.train.poses, official.poses[:41:10])
    frames = TrainingFrames(opened, opened.train)
    # The neighbors of a frame come from the recording, 40 ms apart; ER-NeRF takes every tenth of those too.
    window = frames.inputs(2).audio_window
    assert torch.equal(window, torch.from_numpy(official.windows[16:24]).transpose(1, 2))


def test_files_of_other_frames_may_be_missing(official):
    official.paths.image(11).unlink()
    official.paths.torso(45).unlink()
    assert frames_of(official, data_range=(0, 4))[0] == [0, 1, 2, 3]
    with pytest.raises(CaptureError, match="2 problems with this capture"):
        open_capture(official.folder)


def test_frames_without_an_image_can_be_skipped(official):
    for k in (3, 10, 45):
        official.paths.image(k).unlink()
    train, val = frames_of(official, skip_missing=True)
    assert train == [k for k in range(41) if k not in (3, 10)] and val == [41, 42, 43, 44]
    assert frames_of(official, every=10, skip_missing=True)[0] == [0, 20, 30, 40]  # after the selection, as in ER-NeRF


def test_smooth_path_as_in_er_nerf(official):
    window = 7
    opened = open_capture(official.folder, frames=FrameSelection(smooth_path=window))
    for split, poses in ((opened.train, official.poses[:41]), (opened.val, official.poses[41:])):
        scene = scene_from_capture(torch.from_numpy(poses)).numpy()
        found = scene_from_capture(torch.from_numpy(split.poses)).numpy()
        for i in range(len(poses)):
            near = scene[max(0, i - window // 2) : i + window // 2 + 1]
            np.testing.assert_allclose(found[i, :3, 3], near[:, :3, 3].mean(0), atol=1e-12)
            mean = Rotation.from_matrix(near[:, :3, :3]).mean().as_matrix()
            np.testing.assert_allclose(found[i, :3, :3], mean, atol=1e-9)
    assert SCENE_SCALE == 4


def test_smooth_eyes_as_in_er_nerf(official):
    opened = open_capture(official.folder, frames=FrameSelection(smooth_eyes=True))
    raw = open_capture(official.folder).eye_closures
    for first, end in ((0, 41), (41, 46)):
        for i in range(first, end):
            near = raw[max(first, i - 1) : min(end, i + 2)]
            assert opened.eye_closures[i] == pytest.approx(near.mean(), abs=1e-6)
    assert opened.eye_closures.dtype == np.float32


def test_smooth_eyes_of_selected_frames(official):
    raw = open_capture(official.folder).eye_closures
    smooth = open_capture(official.folder, frames=FrameSelection(most=2, smooth_eyes=True)).eye_closures
    assert smooth[:2].tolist() == pytest.approx([raw[:2].mean()] * 2)
    assert np.array_equal(smooth[2:41], raw[2:41])


def test_ping_pong():
    # idx // n even: forward; odd: backward.
    assert ping_pong(9, 3).tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"data_range": (5, 5)},
            "data_range: expected 0 <= first < end, or an end of -1, got 5",
        ),
        ({"data_range": (-2, -1)}, "data_range: expected 0 <= first"),
        ({"every": 0}, "every and most: expected at least 1, got 0 and None"),
        ({"most": 0}, "every and most: expected at least 1, got 1 and 0"),
        ({"smooth_path": 4}, "smooth_path: expected an odd number of frames, got 4"),
        ({"smooth_path": -1}, "smooth_path: expected an odd number of frames, got -1"),
    ],
)
def test_invalid_options(options, text):
    with pytest.raises(ValueError, match=text):
        FrameSelection(**options)


def test_range_without_frames(official):
    with pytest.raises(CaptureError, match=r"no frame of transforms_val.json, which has 5, is left in the range 7"):
        frames_of(official, data_range=(7, 9))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], FrameSelection()),
        (["--data_range", "3", "-1", "--part"], FrameSelection((3, -1), every=10)),
        (["--part2", "--smooth_path"], FrameSelection(most=375, smooth_path=7)),
        (["--part", "--part2"], FrameSelection(every=10)),
        (["--smooth-path", "5", "--smooth_eye"], FrameSelection(smooth_path=5, smooth_eyes=True)),
        (["--data-range", "0", "9", "--skip-missing"], FrameSelection((0, 9), skip_missing=True)),
    ],
)
def test_options_of_a_command_line(arguments, expected):
    assert train.parse(["CAPTURE", "RUN", *arguments]).frames.selection() == expected
