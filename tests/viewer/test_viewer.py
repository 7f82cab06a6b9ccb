"""The viewer without a window: what changes the screen, what does not, and the files it writes."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import read_transforms, write_sound
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import probe, read_frames
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.viewer.drawing import ACCENT
from ernerf_ti.viewer.scale_control import ScaleControl
from ernerf_ti.viewer.screen import Layout
from ernerf_ti.viewer.sound import SilentOutput
from ernerf_ti.viewer.state import DIALS, MODES
from ernerf_ti.viewer.viewer import RuntimeOptions, Viewer


def run(viewer, time, n: int) -> list[int]:
    """Ticks at 25 Hz; the frame that each showed."""
    frames = []
    for _ in range(n):
        viewer.tick()
        viewer.shown()
        frames.append(viewer.view.request.frame)
        time.frame += 1
    return frames


def picture(viewer) -> np.ndarray:
    """The screen without the strip."""
    return viewer.tick()[:160].copy()


def test_plays_in_step_with_the_clock(viewer, time):
    assert run(viewer, time, 2) == [0, 0]
    viewer.act({"key": "space"})
    assert run(viewer, time, 8) == [0, 1, 2, 3, 4, 5, 0, 1]
    assert viewer.n_shown >= 7 and max(viewer.offsets) < 0.04
    viewer.act({"key": "space"})
    assert run(viewer, time, 2) == [2, 2]
    viewer.act({"key": "right"})
    assert run(viewer, time, 1) == [3]
    viewer.act({"do": "seek", "fraction": 0.99})
    assert run(viewer, time, 1) == [5]


def test_slow_ticks_drop_pictures(viewer, time):
    viewer.act({"key": "space"})
    shown = []
    for _ in range(3):
        shown += run(viewer, time, 1)
        time.frame += 1
    assert shown == [0, 2, 4]


def test_plays_once(viewer, time):
    viewer.act({"key": "l"})
    viewer.act({"key": "space"})
    assert run(viewer, time, 9)[-2:] == [5, 5]
    assert not viewer.state.playing
    assert not viewer.clock.playing


@pytest.mark.parametrize(
    "action",
    [{"set": {"mode": mode}} for mode in MODES[1:]]
    + [
        {"drag": [0.1, 0.0]},
        {"drag": [0.1, 0.0], "button": "middle"},
        {"key": "up"},
        {"key": "t"},
        {"key": "a"},
        {"set": {"eyes": "slider", "eye": 1.0}},
        {"set": {"background": "none"}},
        {"set": {"appearance": 2}},
        {"set": {"comparison": "side"}},
        {"set": {"comparison": "difference"}},
        {"key": "q"},
        {"do": "seek", "seconds": 0.1},
    ],
    ids=str,
)
def test_what_changes_the_picture(viewer, action):
    before = picture(viewer)
    assert np.array_equal(picture(viewer), before)
    viewer.act(action)
    assert np.abs(picture(viewer).astype(int) - before).max() > 5


@pytest.mark.parametrize(
    "action", [{"key": "l"}, {"key": "v"}, {"set": {"target_rate": 5}}, {"key": "r"}, {"key": "~"}]
)
def test_what_does_not(viewer, action):
    before = picture(viewer)
    view = viewer.view
    viewer.act(action)
    assert np.array_equal(picture(viewer), before)
    assert viewer.view is view  # nothing was rendered again


@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_the_gain_that_a_portrait_is_opened_with_can_be_changed(trained, clip, time, tmp_path, gain):
    portrait = copy.deepcopy(trained.portrait)
    encoder = portrait.head.audio_encoder
    encoder.code_mean.fill_(0.3)
    encoder.gain = gain

    def opened(**more):
        own = replace(trained, portrait=portrait)
        return Viewer(own, clip, SilentOutput(time=time), RuntimeOptions(tmp_path, Layout(200, 220)), time, **more)

    viewer = opened()
    assert viewer.state.mouth_gain == viewer.state.own_mouth_gain == gain
    assert viewer.state.lacking == set(DIALS)
    viewer.act({"set": {"auto_scale": False}})
    before = picture(viewer)
    viewer.act({"set": {"mouth_gain": 1.5}})
    assert np.array_equal(picture(viewer), before) == (gain == 1.5)
    viewer.act({"set": {"mouth_gain": 0}})
    assert np.abs(picture(viewer).astype(int) - before).max() > 5
    viewer.act({"do": "neutral"})
    assert np.array_equal(picture(viewer), before)
    viewer.close()
    assert encoder.gain == gain  # whoever else renders the portrait keeps it
    training = opened(training=SimpleNamespace(weights_version=0, close=lambda: None))
    assert "mouth_gain" in training.state.lacking
    training.close()


def test_back_home_is_the_same_picture(viewer):
    before = picture(viewer)
    for action in ({"drag": [0.2, 0.1]}, {"set": {"field_of_view": 30}}, {"drag": [0.1, 0], "button": "right"}):
        viewer.act(action)
    assert not np.array_equal(picture(viewer), before)
    viewer.act({"key": "r"})
    assert np.array_equal(picture(viewer), before)


def warned(viewer) -> bool:
    """Whether there is text in the warning's color at the top."""
    return bool((np.abs(viewer.tick()[:40].astype(int) - ACCENT) < 40).all(-1).any())


def test_orbit_beyond_the_captured_poses_is_reported(viewer):
    assert not warned(viewer)
    viewer.act({"set": {"yaw": 2.0}})
    assert not warned(viewer)
    viewer.act({"set": {"yaw": 30.0}})
    assert warned(viewer)
    viewer.act({"key": "r"})
    assert not warned(viewer)
    viewer.act({"set": {"head": "mouse", "head_pitch": -20.0}})
    assert warned(viewer)


def test_frame_rate_and_timings_are_shown_on_request(viewer):
    plain = viewer.tick()
    viewer.act({"key": "i"})
    assert not np.array_equal(viewer.tick()[:40], plain[:40])
    viewer.act({"key": "i"})
    assert np.array_equal(viewer.tick(), plain)


def test_a_background_picture_that_is_missing_is_reported(viewer, tmp_path):
    viewer.act({"set": {"background": "picture"}})
    assert viewer.message.startswith("no background image: ") and str(viewer.options.inbox) in viewer.message
    write_image(tmp_path / "red.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    viewer.say("")
    viewer.act({"do": "background", "path": tmp_path / "red.png"})
    viewer.act({"set": {"background": "none"}})
    viewer.act({"set": {"background": "picture"}})
    assert viewer.message == ""


def test_frozen_head_keeps_its_pose(viewer, time):
    viewer.act({"do": "seek", "seconds": 0.09})
    viewer.act({"set": {"head": "frozen"}})
    viewer.act({"key": "space"})
    run(viewer, time, 3)
    assert (viewer.view.request.frame, viewer.view.request.pose_frame) == (4, 2)
    viewer.act({"set": {"head": "capture"}})
    run(viewer, time, 1)
    assert viewer.view.request.pose_frame == viewer.view.request.frame


def test_scale_adapts_and_a_still_picture_is_refined(viewer, time):
    viewer.act({"set": {"auto_scale": True, "playing": True}})
    run(viewer, time, 1)
    assert viewer.view.request.size == (16, 16)  # before anything was measured
    viewer.act({"set": {"playing": False}})
    run(viewer, time, 3)
    assert viewer.view.request.size == (32, 32)
    viewer.maker.scale_control = ScaleControl(32 * 32, scale=0.25)
    viewer.act({"drag": [0.1, 0]})
    run(viewer, time, 1)
    assert viewer.view.request.size == (8, 8)


def test_compared_with_the_true_frame(viewer):
    viewer.act({"do": "seek", "seconds": 0.13})
    viewer.act({"set": {"comparison": "side"}})
    middle = picture(viewer)[82, 100]  # the true frame 3 is a gray of 120
    assert np.abs(middle.astype(int) - 120).max() <= 1
    assert "PSNR" in viewer.maker.legend and "differs" not in viewer.maker.legend
    viewer.act({"drag": [0.1, 0]})
    viewer.tick()
    assert viewer.maker.legend.endswith("(camera or head pose differs)")


def test_screenshots(viewer):
    viewer.act({"key": "s"})
    viewer.act({"set": {"background": "none"}})
    viewer.act({"key": "s"})
    viewer.act({"set": {"mode": "audio attention"}})
    viewer.act({"key": "s"})
    names = [path.name for path in viewer.written]
    assert names == ["color_000.png", "color_001.png", "audio_attention_000.png"]
    shapes = [read_image(path).shape for path in viewer.written]
    assert shapes == [(32, 32, 3), (32, 32, 4), (32, 32, 3)]


def test_recording_of_a_session(viewer, time):
    viewer.act({"key": "w"})
    viewer.act({"key": "space"})
    run(viewer, time, 3)
    time.frame += 2  # a slow tick: the last screen is repeated
    run(viewer, time, 2)
    viewer.act({"key": "space"})
    run(viewer, time, 2)
    viewer.act({"key": "w"})
    (path,) = viewer.written
    info = probe(path)
    assert (info.width, info.height) == (200, 220)
    assert len(list(read_frames(path, 25))) == 9
    sound = read_sound(path, SAMPLE_RATE)
    expected = np.concatenate((np.tile(viewer.clip.samples, 2)[: 7 * 640], np.zeros(2 * 640)))
    assert np.corrcoef(sound[: len(expected)], expected)[0, 1] > 0.99


def test_export_of_the_clip(viewer, time):
    viewer.act({"set": {"comparison": "side"}})
    viewer.act({"key": "x"})
    viewer.act({"set": {"comparison": "off"}})  # would change the size of the frames
    run(viewer, time, 10)
    (path,) = viewer.written
    assert (probe(path).width, probe(path).height) == (96, 32)
    assert len(list(read_frames(path, 25))) == 6
    assert np.corrcoef(read_sound(path)[: 6 * 640], viewer.clip.samples)[0, 1] > 0.99
    viewer.act({"key": "x"})
    viewer.tick()
    viewer.act({"key": "x"})
    assert len(viewer.written) == 1 and len(list(path.parent.iterdir())) == 1


def test_camera_path(viewer):
    viewer.act({"drag": [0.1, 0.05]})
    viewer.act({"key": "p"})
    intrinsics, size, split = read_transforms(viewer.written[0])
    assert size == (32, 32) and intrinsics[0] == pytest.approx(110, rel=1e-4)
    for k in (0, 5):
        viewer.act({"do": "seek", "seconds": k / 25 + 0.01})
        viewer.tick()
        expected = viewer.view.pose.numpy()
        got = scene_from_capture(torch.from_numpy(split.poses[k])).numpy()
        assert np.allclose(got, expected, atol=1e-5)


def test_audio_and_background_from_the_inbox(viewer, time):
    inbox = viewer.options.inbox
    run(viewer, time, 1)
    inbox.mkdir()
    write_sound(inbox / "speech.wav", 0.3 * np.sin(np.arange(9 * 640) * 0.1))
    write_image(inbox / "red.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    (inbox / "notes.txt").write_text("no sound")
    time.frame += 20
    run(viewer, time, 1)
    time.frame += 20  # complete once it has stopped growing
    run(viewer, time, 2)
    assert viewer.clip.name == "speech.wav" and len(viewer.clip) == 9
    assert viewer.state.playing and viewer.state.background == "picture"
    assert viewer.view.request.background_version == 1
    viewer.act({"key": "o"})
    assert viewer.clip.name == "tone"


def test_a_broken_file_in_the_inbox_is_reported(viewer, time):
    viewer.options.inbox.mkdir()
    (viewer.options.inbox / "broken.wav").write_text("nothing")
    for _ in range(3):
        time.frame += 20
        run(viewer, time, 1)
    assert "broken.wav: ffmpeg can't read this as video or sound" in viewer.message
    assert viewer.clip.name == "tone"


@pytest.mark.parametrize(
    ("action", "error", "text"),
    [
        (
            {"do": "load", "path": "none.wav"},
            FileNotFoundError,
            "none.wav: expected a video or sound file, got no such",
        ),
        ({"do": "background", "path": "none.png"}, FileNotFoundError, "none.png: expected an image, got no such file"),
        ({"do": "train_step"}, ValueError, "training: nothing is being trained; start the viewer with --train CAPTURE"),
        ({"do": "seek"}, ValueError, "seek: expected the value 'seconds', got"),
    ],
)
def test_what_can_not_be_done(viewer, action, error, text):
    before = picture(viewer)
    with pytest.raises(error, match=text):
        viewer.act(action)
    assert np.array_equal(picture(viewer), before)


def test_training_without_a_run_is_said(viewer):
    viewer.act({"key": "y"})
    assert not viewer.state.training and "--train CAPTURE" in viewer.message


def test_quit(viewer):
    viewer.act({"key": "escape"})
    assert not viewer.running
