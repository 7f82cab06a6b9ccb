"""Frame rates other than that of the capture: sound, poses and blinks at the frames' own times."""

import math

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernerf_ti.audio.context import audio_context, audio_context_at
from ernerf_ti.audio.windows import audio_windows
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.portrait.camera import interpolate_poses, smooth_path
from ernerf_ti.run.trained_portrait import SMOOTHING
from ernerf_ti.synthesis import video as module
from ernerf_ti.synthesis.driving import blinks
from ernerf_ti.synthesis.head_motion import HeadMotion
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.video import synthesize


def turn(degrees, axis=(0.0, 0.6, 0.8)):
    """[3, 3] rotation about a unit axis."""
    x, y, z = axis
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(math.radians(degrees) * cross)


def path(*degrees):
    poses = torch.eye(4, dtype=torch.float64).repeat(len(degrees), 1, 1)
    for pose, angle in zip(poses, degrees, strict=True):
        pose[:3, :3] = turn(angle)
        pose[:3, 3] = torch.tensor([angle, 1.0, -angle])
    return poses


@pytest.mark.parametrize("silent_ends", [False, True])
@pytest.mark.parametrize("steps", [2, 16])
def test_contexts_at_whole_positions_are_those_of_the_frames(steps, silent_ends):
    windows = torch.rand(7, steps, 3)
    for k in range(7):
        assert torch.equal(audio_context_at(windows, float(k), silent_ends), audio_context(windows, k, silent_ends))


@settings(max_examples=40, deadline=None)
@given(position=st.floats(8, 40))
def test_contexts_between_frames_are_the_features_at_that_time(position):
    """Of features that grow with time, interpolation must find each time exactly."""
    features = np.stack((np.arange(100.0), 3 - 0.5 * np.arange(100.0)), 1)  # step s at 20 s ms
    windows = torch.from_numpy(audio_windows(features))
    context = audio_context_at(windows, position)
    steps = 2 * (position + np.arange(-4, 4)[:, None]) - 8 + np.arange(16)
    expected = np.stack((steps, 3 - 0.5 * steps), 1)
    np.testing.assert_allclose(context.numpy(), expected, atol=1e-9)


def test_contexts_at_the_ends_have_the_shape_of_others():
    windows = torch.rand(3, 16, 4)
    for position in (0.3, 1.99, 2.5):
        assert audio_context_at(windows, position).shape == (8, 4, 16)
        assert audio_context_at(windows, position, True).isfinite().all()


def test_poses_between_frames_turn_at_constant_speed():
    found = interpolate_poses(path(0, 30, 10), np.array([0, 0.25, 0.5, 1, 1.75, 2]))
    torch.testing.assert_close(found, path(0, 7.5, 15, 30, 15, 10), atol=1e-12, rtol=0)


def test_poses_at_whole_positions_are_the_same_bits():
    poses = smooth_path(path(*range(9)), 3).float()
    assert torch.equal(interpolate_poses(poses, np.arange(9.0)), poses)
    still = poses[:1].expand(4, 4, 4)
    torch.testing.assert_close(interpolate_poses(still, np.array([0.3, 2.9])), still[:2], atol=1e-7, rtol=0)


@settings(max_examples=30, deadline=None)
@given(angles=st.lists(st.floats(-80, 80), min_size=2, max_size=5), share=st.floats(0, 1), dtype=st.sampled_from("fd"))
def test_poses_between_frames_are_rotations(angles, share, dtype):
    poses = path(*angles).to(torch.float32 if dtype == "f" else torch.float64)
    found = interpolate_poses(poses, np.array([share * (len(angles) - 1)]))
    rotation = found[0, :3, :3].double()
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotation) > 0.99


def inputs_at(trained, speech, tmp_path, monkeypatch, **options):
    """Positional arguments of render_frames in a synthesis."""
    seen = []

    def frames(*arguments, only, with_attention, dials):
        seen.extend(arguments)
        assert only is None and not with_attention and dials is None
        return module_frames(*arguments)

    module_frames = module.render_frames
    monkeypatch.setattr(module, "render_frames", frames)
    out = tmp_path / "out.mp4"
    synthesize(trained, SynthesisOptions(speech, out, **options))
    return seen


@pytest.mark.parametrize("fps", [30.0, 12.5, 23.976, 60.0])
def test_frames_are_rendered_at_their_own_times(trained, speech, tmp_path, monkeypatch, fps):
    _, windows, poses, closures, _, _, torso_frames, positions = inputs_at(
        trained, speech, tmp_path, monkeypatch, fps=fps, blink="natural", seed=1
    )
    exact = 24_000 / 1001 if fps == 23.976 else fps
    seconds = len(read_sound(speech)) / 16_000
    n = math.ceil(seconds * exact)
    np.testing.assert_allclose(positions, np.arange(n) * 25 / exact)
    assert len(windows) == math.ceil(seconds * 25)
    motion = HeadMotion(trained.poses)
    assert (torso_frames == motion.places(positions)).all()
    assert torch.equal(poses, motion.poses(torso_frames, SMOOTHING))
    curve = blinks(trained, len(windows) + 1, "natural", 1)
    np.testing.assert_allclose(closures, np.interp(positions, np.arange(len(curve)), curve), atol=1e-6)
    with av.open(str(tmp_path / "out.mp4")) as file:
        stream = file.streams.video[0]
        times = [frame.time for frame in file.decode(stream)]
    assert times == pytest.approx(np.arange(n) / exact, abs=1e-4)
    assert len(read_sound(tmp_path / "out.mp4")) / 16_000 == pytest.approx(n / exact, abs=0.065)


def test_other_rates_show_the_same_motion(trained, speech, tmp_path):
    """Every second frame at 50 fps is a frame at 25 fps."""
    for fps in (25.0, 50.0):
        synthesize(trained, SynthesisOptions(speech, tmp_path / f"{fps:.0f}", background="none", fps=fps))
    slow, fast = (sorted((tmp_path / name).iterdir()) for name in ("25", "50"))
    assert len(fast) in (2 * len(slow) - 1, 2 * len(slow))
    for k, image in enumerate(slow):
        assert image.read_bytes() == fast[2 * k].read_bytes()
    assert fast[1].read_bytes() not in (fast[0].read_bytes(), fast[2].read_bytes())  # no repetition


def test_the_usual_rate_interpolates_nothing(trained, speech, tmp_path, monkeypatch):
    *_, positions = inputs_at(trained, speech, tmp_path, monkeypatch)
    assert positions is None
    assert len(list(read_frames(tmp_path / "out.mp4", 25))) == 13
