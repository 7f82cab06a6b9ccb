"""Warnings state what was measured, and only when something is wrong."""

import copy

import numpy as np
import pytest

from ernerf_ti.preprocess.report import head_angles, warnings

STEADY = {"deviation_px": [0.1, 0.1], "step_px": [0.05, 0.05]}
GOOD = {
    "frames": {
        "n": 2500,
        "seconds": 100.0,
        "with_pose": 2500,
        "without_pose": {},
        "searched": 250,
        "with_several_faces": 0,
        "gaps_in_source": 0,
        "repeated_in_source": 0,
    },
    "capture": {"width": 512, "height": 512},
    "source": {"rate": 25.0},
    "face": {"height_px": 260.0, "height_in_source_px": 400.0, "blur": 0.4, "frames_at_edge_of_picture": 0.0},
    "head": {"cuts_at_s": [], "refined": {"nose": STEADY}},
    "background": {"moving": 0.0},
    "sound": {"peak": 0.8, "speech_db": -18.0, "clipped": 0.0, "silent": 0.2},
}


def test_good_video_has_none():
    assert warnings(GOOD) == []


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("frames", "seconds"), 12.0, "short: 12.0 s of video"),
        (("frames", "with_pose"), 2400, "100 of 2500 frames have no head pose"),
        (("frames", "with_several_faces"), 7, "several faces in 7 of 250 searched frames"),
        (("frames", "gaps_in_source"), 3, "dropped frames: 3 gaps"),
        (("frames", "repeated_in_source"), 400, "frozen frames: 400 of 2500"),
        (("source", "rate"), 15.0, "low frame rate: 15 per second"),
        (("face", "height_px"), 100.0, "small face: 20% of the picture's height"),
        (("face", "height_in_source_px"), 90.0, "small face: 90 px high in the source"),
        (("face", "blur"), 0.7, "blurry face: 0.70"),
        (("face", "frames_at_edge_of_picture"), 0.1, "the head leaves the picture in 10% of the frames"),
        (("head", "cuts_at_s"), [7.08], "the head jumps 1 times (at 7.1 s)"),
        (("head", "refined"), {"nose": {"step_px": [0.1, 0.5]}}, "unsteady tracking: the nose's texture moves 0.50 px"),
        (("background", "moving"), 0.4, "moving background: 40% of it"),
        (("sound", "peak"), 0.0, "silent: the sound track is empty"),
        (("sound", "speech_db"), -50.0, "quiet sound: speech at -50 dB"),
        (("sound", "clipped"), 0.02, "clipped sound: 2.00% of the samples"),
        (("sound", "silent"), 0.8, "little speech: 80% of the time is silent"),
    ],
)
def test_each_fault_is_named_with_its_number(place, value, text):
    figures = copy.deepcopy(GOOD)
    figures[place[0]][place[1]] = value
    found = warnings(figures)
    assert len(found) == 1
    assert text in found[0]


def test_angles_of_the_head():
    def seen(axis: int, degrees: float) -> np.ndarray:
        """Pose of the camera when the head is turned about one of the camera's axes."""
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(np.radians(degrees))
        turn[b, a], turn[a, b] = np.sin(np.radians(degrees)), -np.sin(np.radians(degrees))
        pose = np.eye(4)
        pose[:3, :3] = turn.T
        return pose

    # About y to the right of the picture, about x downwards, about z counter-clockwise.
    poses = np.stack([seen(1, 10), seen(0, 10), seen(2, 10), np.full((4, 4), np.nan)])
    angles = head_angles(poses)
    assert np.allclose(angles[:3], [[10, 0, 0], [0, -10, 0], [0, 0, -10]], atol=1e-9)
    assert np.isnan(angles[3]).all()
