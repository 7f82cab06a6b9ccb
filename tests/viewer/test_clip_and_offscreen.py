"""Clips, and scripts that run the viewer without a window."""

import dataclasses
import json

import numpy as np
import pytest

from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.viewer.clip import capture_clip, silent_clip, sound_clip
from ernerf_ti.viewer.offscreen import read_script, run_script
from ernerf_ti.viewer.state import KEYS
from ernerf_ti.viewer.viewer import RuntimeOptions, Viewer
from tests.train.conftest import capture  # noqa: F401
from tests.viewer.conftest import Layout


@pytest.fixture
def fitting(trained, capture):  # noqa: F811
    return dataclasses.replace(trained, size=(capture.width, capture.height))


def test_clip_of_a_capture(fitting, capture):  # noqa: F811
    clip = capture_clip(fitting, capture)
    n = len(capture.audio_windows)
    assert len(clip) == len(clip.poses) == len(clip.eye_closures) == n and len(clip.samples) == 640 * n
    assert np.abs(clip.samples).max() > 0.05
    for k in (0, 13, 21):
        assert np.array_equal(clip.true_frame(k), capture.image(k))
        assert clip.eye_closures[k] == capture.eye_closures[k]
    assert not np.array_equal(clip.true_frame(0), clip.true_frame(21))


def test_clip_of_another_capture(trained, capture):  # noqa: F811
    with pytest.raises(ValueError, match=r"expected the capture of this portrait .*32.*got .*48"):
        capture_clip(trained, capture)


def test_clip_of_a_sound(trained, tmp_path):
    write_sound(tmp_path / "speech.wav", 0.3 * np.sin(np.arange(10 * 640 + 5) * 0.1))
    clip = sound_clip(trained, tmp_path / "speech.wav")
    assert (len(clip), len(clip.samples), clip.true_frame) == (11, 11 * 640, None)
    assert not clip.samples[10 * 640 + 5 :].any()


def test_clip_without_a_capture(trained):
    clip = silent_clip(trained)
    assert len(clip) == len(trained.poses) and not clip.samples.any()
    other = dataclasses.replace(trained, extractor="hubert", feature_dimension=1024)
    assert silent_clip(other).windows.shape == (len(trained.poses), 2, 1024)


def script(tmp_path, content):
    path = tmp_path / "actions.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def make_viewer(trained, clip, tmp_path):
    options = RuntimeOptions(tmp_path / "out", Layout(200, 220), refine_seconds=float("inf"), wait_for_sound=True)
    return lambda output, time: Viewer(trained, clip, output, options, time, own_clip=clip)


ACTIONS = [
    {"at": 0.12, "key": "space"},
    {"at": 0.04, "key": "space"},
    {"at": 0.16, "set": {"mode": "depth"}},
]


def test_script_makes_a_video(make_viewer, clip, tmp_path):
    read = read_script(script(tmp_path, {"seconds": 0.28, "actions": ACTIONS}))
    assert [at for at, _ in read.actions] == [0.04, 0.12, 0.16]
    for name in ("a.mp4", "b.mp4"):
        assert run_script(make_viewer, read, tmp_path / name) == 7
    a, b = (np.stack(list(read_frames(tmp_path / name, 25))) for name in ("a.mp4", "b.mp4"))
    assert a.shape == (7, 220, 200, 3)
    pictures = (slice(None), slice(60, 150))
    assert np.array_equal(a[pictures], b[pictures])
    change = np.abs(np.diff(a[pictures].astype(int), axis=0)).mean((1, 2, 3))
    assert change[1:4].min() > 3 > 20 * change[[0, 4, 5]].max()
    sound = read_sound(tmp_path / "a.mp4")
    assert np.abs(sound[:400]).max() < 0.05 < np.abs(sound[800:1800]).max()


def test_scripts_of_earlier_versions_are_understood(tmp_path):
    old = [{"at": 0, "set": {"mode": "colour", "background": "colour", "colour": [1, 0, 0]}}, {"at": 1, "key": "1"}]
    read = read_script(script(tmp_path, {"seconds": 1, "actions": old}))
    (_, settings), (_, key) = read.actions
    assert settings == {"set": {"mode": "color", "background": "color", "color": [1, 0, 0]}}
    assert KEYS[key["key"]].action == {"set": {"mode": "color"}}


def test_script_can_leave(make_viewer, tmp_path):
    read = read_script(script(tmp_path, {"seconds": 9, "actions": [{"at": 0.08, "do": "quit"}]}))
    assert run_script(make_viewer, read, tmp_path / "a.mp4") == 2


def test_a_wrong_action_leaves_no_file(make_viewer, tmp_path):
    read = read_script(script(tmp_path, {"seconds": 1, "actions": [{"at": 0.04, "do": "dance"}]}))
    with pytest.raises(ValueError, match="got 'dance'"):
        run_script(make_viewer, read, tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["actions.json"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], "expected the fields seconds and actions, got a list"),
        ({"seconds": 1, "key": "a"}, "expected the fields seconds and actions, got seconds, key"),
        ({"seconds": 1, "actions": 3}, "expected a list of actions, got int"),
        ({"seconds": 0, "actions": []}, "expected seconds > 0, got 0"),
        ({"seconds": 1, "actions": [{"key": "a"}]}, 'expected a time >= 0 in "at" of action 0, got None'),
    ],
)
def test_invalid_scripts(tmp_path, content, text):
    with pytest.raises(ValueError, match=text):
        read_script(script(tmp_path, content))
