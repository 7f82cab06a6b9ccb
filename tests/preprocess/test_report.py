"""Warnings give the measured values, and only appear for problems."""

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
    "face": {"height_px": 260.0, "height_in_source_px": 400.0, "blur": 0.4, "frames_at_image_border": 0.0},
    "head": {"cuts_at_s": [], "refined": {"nose": STEADY}},
    "background": {"moving": 0.0},
    "sound": {"notes": []},
}


def test_good_video_has_no_warnings():
    assert warnings(GOOD) == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (("frames", "seconds"), 12.0, "short video: 12.0 s; use at least 60 s"),
        (("frames", "with_pose"), 2400, "100 of 2500 frames have no head pose"),
        (("frames", "with_several_faces"), 7, "several faces in 7 of 250 searched frames"),
        (("frames", "gaps_in_source"), 3, "dropped frames: 3 gaps"),
        (("frames", "repeated_in_source"), 400, "frozen video: 400 of 2500 frames"),
        (("source", "rate"), 15.0, "low frame rate: 15 fps"),
        (("face", "height_px"), 100.0, "small face: 20% of the image height"),
        (("face", "height_in_source_px"), 90.0, "small face: 90 px high in the video"),
        (("face", "blur"), 0.7, "blurry face: 0.70"),
        (("face", "frames_at_image_border"), 0.1, "the head touches the image border in 10% of the frames"),
        (("head", "cuts_at_s"), [7.08], "the head jumps at 7.1 s (1 in total)"),
        (
            ("head", "refined"),
            {"nose": {"step_px": [0.1, 0.5]}},
            "unsteady tracking: the texture of the nose moves 0.50",
        ),
        (("background", "moving"), 0.4, "moving background: 40% of it"),
    ],
)
def test_warnings(key, value, text):
    figures = copy.deepcopy(GOOD)
    figures[key[0]][key[1]] = value
    found = warnings(figures)
    assert len(found) == 1
    assert text in found[0]


def test_what_was_converted_or_spoils_the_sound_is_said():
    figures = copy.deepcopy(GOOD)
    figures["source"]["notes"] = ["HDR (HLG, BT.2020) is converted to SDR in BT.709"]
    figures["sound"]["notes"] = ["quiet sound: speech at -50 dBFS; record from closer or at a higher level"]
    assert warnings(figures) == [
        "video: HDR (HLG, BT.2020) is converted to SDR in BT.709",
        "quiet sound: speech at -50 dBFS; record from closer or at a higher level",
    ]


@pytest.mark.parametrize(
    ("counts", "rate", "texts"),
    [
        # A recording of a screen with a new frame for each change is neither frozen nor has it lost frames.
        (
            {"repeated": 2100, "held": 2100, "standstills": 40, "longest_gap": 2.5},
            4.0,
            [
                "the picture stands still: 40 times there is no new frame for more than 0.2 s, at most 2.5 s",
                "low frame",
            ],
        ),
        # A browser's recording of a camera.
        (
            {"repeated": 120, "held": 118},
            27.0,
            ["uneven frame rate: 118 of 2500 frames repeat the previous one, since"],
        ),
        ({"repeated": 40, "held": 40}, 29.0, []),
        # A recorder that stores each of 15 pictures a second twice.
        ({"repeated": 1000, "held": 0}, 30.0, ["frozen video: 1000 of 2500 frames repeat the previous one"]),
        ({"repeated": 1500, "held": 500}, 20.0, ["frozen video: 1000 of 2500", "low frame rate: 20 fps"]),
        ({"gaps": 2}, 25.0, ["dropped frames: 2 gaps"]),
    ],
)
def test_rates_and_gaps(counts, rate, texts):
    figures = copy.deepcopy(GOOD)
    figures["frames"].update({f"{name}_in_source": value for name, value in counts.items()})
    figures["source"]["rate"] = rate
    found = warnings(figures)
    assert len(found) == len(texts)
    assert all(text.startswith(start) for text, start in zip(found, texts, strict=True)), found


def test_angles_of_the_head():
    def seen(axis: int, degrees: float) -> np.ndarray:
        """Pose of the camera for a head rotated about one of the camera's axes."""
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(np.radians(degrees))
        turn[b, a], turn[a, b] = np.sin(np.radians(degrees)), -np.sin(np.radians(degrees))
        pose = np.eye(4)
        pose[:3, :3] = turn.T
        return pose

    # About y to the right of the image, about x down, about z counterclockwise.
    poses = np.stack([seen(1, 10), seen(0, 10), seen(2, 10), np.full((4, 4), np.nan)])
    angles = head_angles(poses)
    assert np.allclose(angles[:3], [[10, 0, 0], [0, -10, 0], [0, 0, -10]], atol=1e-9)
    assert np.isnan(angles[3]).all()
