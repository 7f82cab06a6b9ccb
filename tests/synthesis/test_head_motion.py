"""Motion of the head on new sound: forward and backward in turn, at rest where it turns around and at cuts."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.synthesis.driving import blinks
from ernerf_ti.synthesis.head_motion import RAMP, HeadMotion

SPEED = 0.0004  # capture units per frame


def take(*cuts, n=120, jump=0.02):
    """[n, 4, 4] a head that moves sideways at constant speed, and jumps after the frames `cuts`."""
    x = SPEED * np.arange(n)
    for cut in cuts:
        x[cut + 1 :] += jump
    poses = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    poses[:, 0, 3], poses[:, 2, 3] = torch.from_numpy(x), 0.8
    return scene_from_capture(poses)


def sideways(motion, times):
    """[m] position of the head in units of the usual speed."""
    poses = motion.poses(motion.places(times), smoothing=7)
    return poses[:, 2, 3].double().numpy() / (4 * SPEED)


def test_the_start_is_the_take_itself():
    places = HeadMotion(take()).places(np.arange(108.0))
    assert (places == np.arange(108)).all()


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 90),
    cuts=st.sets(st.integers(0, 88), max_size=3),
    interval=st.sampled_from([1.0, 0.5, 25 / 24, 0.2]),
)
def test_motion_has_no_jumps_and_no_kinks(n, cuts, interval):
    motion = HeadMotion(take(*(cut for cut in cuts if cut < n - 1), n=n))
    places = motion.places(np.arange(6 * n + 100) * interval)
    assert ((places >= 0) & (places <= n - 1)).all()
    assert np.abs(np.diff(places)).max() <= 1.5 * interval + 1e-9  # 1.5 within a crossing of one frame
    if n > 4 * RAMP and not len(motion.cuts):
        assert np.abs(np.diff(places, 2)).max() <= interval**2 / RAMP + 1e-9
        assert places.max() >= n - 1 - 0.05


def test_motion_at_twice_the_rate_is_the_same():
    motion = HeadMotion(take(40, 80))
    assert (motion.places(np.arange(800) / 2)[::2] == motion.places(np.arange(400.0))).all()


def test_the_way_back_is_the_way_there():
    motion = HeadMotion(take(40, n=90))
    turn = next(k for k in range(400) if motion.places(np.array([k / 2]))[0] == 89) / 2
    there, back = (motion.places(turn + sign * np.arange(100) / 2) for sign in (-1, 1))
    np.testing.assert_allclose(there, back, atol=1e-9)


def test_cuts_are_found():
    assert HeadMotion(take(40, 80)).cuts.tolist() == [40, 80]
    assert not len(HeadMotion(take(40, jump=1.5 * SPEED)).cuts)  # a quick movement
    shaky = take()
    shaky[:, 2, 3] += 0.002 * torch.from_numpy(np.random.default_rng(0).standard_normal(120))
    assert not len(HeadMotion(shaky).cuts)
    assert not len(HeadMotion(take(n=1)).cuts) and not len(HeadMotion(take(n=2)).cuts)


def test_a_cut_is_crossed_no_faster_than_the_head_moves_elsewhere():
    """It jumps by 26 times the distance that it moves from frame to frame."""
    motion = HeadMotion(take(60, jump=25 * SPEED))
    moved = np.diff(sideways(motion, np.arange(300.0)))
    assert np.abs(moved).max() < 1.15  # averaging leaves out three frames at either side of the cut
    before, after = sideways(motion, np.array([55.0])), sideways(motion, np.array([180.0]))
    assert after - before > 60  # the rest of the take follows


def test_poses_are_not_averaged_over_a_cut():
    motion = HeadMotion(take(60))
    found = motion.poses(np.array([60.0, 61.0]), smoothing=7)[:, 2, 3] / (4 * SPEED)
    assert found.tolist() == pytest.approx([58.5, 112.5], abs=1e-3)  # means of 57 to 60, and of 61 to 64 and 50


def test_blinks_of_the_capture_do_not_last_longer_at_a_rest(trained_on):
    closures = torch.zeros(120)
    closures[30:34], closures[117:119] = 1.0, 1.0  # the second one just before the end
    closed = blinks(trained_on(take(), closures), 240, "capture")
    assert (closed[30:34] == 1).all() and (closed[100:140] == 0).all()
    assert (closed > 0.5).sum() == 8  # the first one, forward and backward


def test_eyes_that_are_always_half_closed_stay_so(trained_on):
    closed = blinks(trained_on(take(), torch.full((120,), 0.4)), 240, "capture")
    np.testing.assert_allclose(closed, 0.4, atol=1e-6)


@pytest.fixture
def trained_on(trained):
    """The portrait with other poses and eye closures of its capture."""
    return lambda poses, closures: dataclasses.replace(trained, poses=poses.float(), eye_closures=closures)
