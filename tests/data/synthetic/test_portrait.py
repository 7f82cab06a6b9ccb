import dataclasses

import numpy as np
import pytest

from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait

HEAD, NECK, TORSO = 1, 2, 3


def inner(mask: np.ndarray) -> np.ndarray:
    """The mask without its outermost pixels."""
    padded = np.pad(mask, 1)
    n, m = mask.shape
    return np.logical_and.reduce([padded[i : i + n, j : j + m] for i in range(3) for j in range(3)])


def test_sound_and_tracks_are_as_long_as_the_video(portrait):
    assert portrait.samples.shape == (125 * 640,) and portrait.samples.dtype == np.float32
    assert portrait.poses.shape == (125, 4, 4) and portrait.poses.dtype == np.float64
    assert portrait.blinks.shape == (125,) and portrait.mouths.shape == (125, 3)
    assert portrait.intrinsics == (153.6, 153.6, 32, 32)
    assert portrait.background().shape == (64, 64, 3) and portrait.background().dtype == np.uint8


def test_frames_are_those_of_the_arguments(portrait, device):
    again = SyntheticPortrait(n_frames=125, size=64, seed=3, voice="alto", device=device)
    other = SyntheticPortrait(n_frames=125, size=64, seed=4, voice="alto", device=device)
    for field in dataclasses.fields(portrait.render(7)):
        first, second = (getattr(p.render(7), field.name) for p in (portrait, again))
        assert first.tobytes() == second.tobytes(), field.name
    assert portrait.samples.tobytes() == again.samples.tobytes()
    assert np.mean(portrait.render(7).image != other.render(7).image) > 0.5


def test_the_person_fills_the_picture(portrait):
    frame = portrait.render(0)
    shares = np.bincount(frame.labels.ravel(), minlength=4) / frame.labels.size
    assert shares[0] > 0.4 and 0.15 < shares[HEAD] < 0.3 and 0.02 < shares[NECK] < 0.1 and shares[TORSO] > 0.12
    rows = np.flatnonzero((frame.labels == HEAD).any(1))
    assert rows[0] > 2 and rows[-1] < 56
    assert (frame.labels[-1, 8:-8] == TORSO).all()


def test_background_shows_where_nobody_is(portrait):
    frame = portrait.render(3)
    empty = inner(inner(frame.labels == 0))
    assert empty.sum() > 500
    assert (frame.image[empty] == portrait.background()[empty]).all()
    assert (frame.torso[inner(frame.labels == 0) & (frame.torso[..., 3] == 0)] == 0).all()


def test_the_torso_layer_is_the_picture_where_it_is_seen(portrait):
    for k in (0, 60):
        frame = portrait.render(k)
        worn = inner((frame.labels == TORSO) | (frame.labels == NECK)) & (frame.torso[..., 3] == 255)
        assert worn.sum() > 300
        difference = np.abs(frame.torso[..., :3].astype(int) - frame.image)[worn]
        assert difference.max() <= 1
        # Over the background it makes up the picture wherever the head is not.
        alpha = frame.torso[..., 3:] / 255
        composite = frame.torso[..., :3] * alpha + portrait.background() * (1 - alpha)
        away = inner(frame.labels != HEAD)
        assert np.abs(composite - frame.image)[away].max() <= 2


def test_the_neck_goes_on_behind_the_head(portrait):
    frame = portrait.render(0)
    hidden = (frame.labels == HEAD) & (frame.torso[..., 3] == 255)
    assert hidden.sum() > 40


def test_landmarks_lie_on_the_head_in_their_order(portrait):
    for k in (0, 40, 90):
        frame = portrait.render(k)
        marks = frame.landmarks
        assert marks.shape == (68, 2) and marks.dtype == np.float32
        column, row = np.floor(marks[17:]).astype(int).T
        assert (frame.labels[row, column] == HEAD).all()
        # The contour of the jaw lies at the edge of the head.
        column, row = np.floor(0.85 * marks[:17] + 0.15 * marks[30]).astype(int).T
        assert (frame.labels[row, column] == HEAD).all()
        assert (np.diff(marks[:17, 0]) > -0.1).all()  # its ends run nearly straight down
        assert marks[36, 0] < marks[39, 0] < marks[42, 0] < marks[45, 0]
        assert marks[27, 1] < marks[30, 1] < marks[33, 1] < marks[51, 1] < marks[57, 1] < marks[8, 1]


def test_landmarks_move_with_the_pose(portrait):
    """A shift of the camera by a known step moves points by focal * step / depth."""
    state = portrait.state(0)
    step = 0.01
    pose = state.pose_world_from_camera.copy()
    pose[:3, 3] += step * pose[:3, 0]
    before = portrait.render_state(state).landmarks
    after = portrait.render_state(dataclasses.replace(state, pose_world_from_camera=pose)).landmarks
    moved = before - after
    assert np.abs(moved[:, 1]).max() < 1e-3
    depths = portrait.intrinsics.fx * step / moved[:, 0]
    distance = np.linalg.norm(pose[:3, 3])
    assert (distance - 0.12 < depths).all() and (depths < distance + 0.03).all()
    assert depths[30] == depths.min()  # the tip of the nose


def test_landmarks_show_mouth_and_lids(portrait):
    state = portrait.state(0)
    wide = dataclasses.replace(state, opening=0.012, width=0.05, blink=0.0)
    marks = portrait.render_state(wide).landmarks
    pixels_per_metre = portrait.intrinsics.fx / np.linalg.norm(state.pose_world_from_camera[:3, 3] - (0, -0.04, 0.06))
    assert np.linalg.norm(marks[66] - marks[62]) == pytest.approx(0.012 * pixels_per_metre, rel=0.1)
    assert np.linalg.norm(marks[54] - marks[48]) == pytest.approx(0.05 * pixels_per_metre, rel=0.1)
    shut = portrait.render_state(dataclasses.replace(state, opening=0.0, blink=1.0)).landmarks
    assert np.linalg.norm(shut[66] - shut[62]) < 0.01
    assert np.linalg.norm(shut[37] - shut[41]) < 0.15 < 0.5 < np.linalg.norm(marks[37] - marks[41])


def test_a_blink_hides_the_eyes(portrait, device):
    large = SyntheticPortrait(n_frames=1, size=192, seed=3, device=device)
    state = dataclasses.replace(large.state(0), blink=0.0)
    opened = large.render_state(state)
    shut = large.render_state(dataclasses.replace(state, blink=1.0))
    marks = slice(36, 42)
    low = np.floor(opened.landmarks[marks].min(0)).astype(int)
    high = np.ceil(opened.landmarks[marks].max(0)).astype(int)

    def n_grey(frame) -> int:
        eye = frame.image[low[1] : high[1], low[0] : high[0]].astype(int)
        return int((eye[..., 0] - eye[..., 2] < 40).sum())  # white and iris; skin is much redder

    assert n_grey(opened) > 25
    assert n_grey(shut) < 0.3 * n_grey(opened)


def test_detail_is_sampled_as_finely_as_in_a_frame_with_many_rays(device):
    """Pixels that get one ray alone look like those of a frame with 16 rays per pixel."""
    few, many = (SyntheticPortrait(1, 128, seed=3, n_samples=n, device=device).render(0) for n in (4, 16))
    difference = np.abs(few.image.astype(int) - many.image)
    assert difference.mean() < 1.5
    assert np.mean(difference.max(2) > 24) < 0.03
    assert np.mean(few.labels != many.labels) < 0.02


def test_an_open_mouth_is_dark_inside_and_a_shut_one_is_not(portrait):
    state = portrait.state(0)
    opened = portrait.render_state(dataclasses.replace(state, opening=0.016))
    column, row = np.floor(0.5 * (opened.landmarks[62] + opened.landmarks[66])).astype(int)
    shut = portrait.render_state(dataclasses.replace(state, opening=0.0))
    assert opened.image[row, column].mean() < 0.6 * shut.image[row, column].mean()


def test_only_the_mouth_changes_with_the_mouth(portrait):
    state = portrait.state(0)
    first = portrait.render_state(dataclasses.replace(state, opening=0.0))
    second = portrait.render_state(dataclasses.replace(state, opening=0.012))
    changed = np.abs(first.image.astype(int) - second.image).max(2) > 8
    rows, _ = np.nonzero(changed)
    assert len(rows) > 15
    assert rows.min() > first.landmarks[30, 1]  # below the tip of the nose


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_frames": 0}, "n_frames: expected a number > 0, got 0; ask for at least one frame"),
        ({"size": 63}, "size: expected an even number >= 16, got 63; choose for example 256"),
        ({"size": 8}, "size: expected an even number >= 16, got 8; choose for example 256"),
        ({"seed": -1}, "seed: expected a number >= 0, got -1; choose for example 0"),
        ({"n_samples": 1}, "n_samples: expected 4, 9 or 16, got 1; choose one of these"),
        ({"voice": "cat"}, "voice: expected one of bass, tenor, alto, varied, got 'cat'; choose one of these"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as caught:
        SyntheticPortrait(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("k", [-1, 125])
def test_frames_that_do_not_exist(portrait, k):
    with pytest.raises(IndexError) as caught:
        portrait.render(k)
    assert str(caught.value) == f"k: expected a frame in 0 ... 124, got {k}; frames count from 0"
