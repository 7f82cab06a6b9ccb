"""A synthetic portrait as a capture and as a video."""

import numpy as np
import pytest

from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture, write_portrait_video
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import probe, read_frames

N_FRAMES, SIZE = 12, 64


@pytest.fixture(scope="module")
def portrait() -> SyntheticPortrait:
    return SyntheticPortrait(N_FRAMES, SIZE, seed=2)


@pytest.fixture(scope="module")
def folder(portrait, tmp_path_factory):
    folder = tmp_path_factory.mktemp("capture") / "synthetic"
    write_portrait_capture(portrait, folder)
    return folder


def test_capture_comes_back_exactly(portrait, folder):
    capture = open_capture(folder)
    assert capture.intrinsics.tolist() == list(portrait.intrinsics)
    assert np.array_equal(np.concatenate((capture.train.poses, capture.val.poses)), portrait.poses)
    assert np.array_equal(capture.eye_closures, portrait.blinks)
    for k in range(N_FRAMES):
        frame = portrait.render(k)
        assert np.array_equal(capture.labels(k), frame.labels)
        assert np.array_equal(capture.torso(k), frame.torso)
        assert np.array_equal(capture.landmarks(k), frame.landmarks)
        # JPEG, which the layout asks for, is the one lossy part.
        assert np.abs(capture.image(k).astype(int) - frame.image).mean() < 1.5
    assert capture.extractor == "ppg"
    assert capture.audio_windows.shape == (N_FRAMES, 16, 42)
    assert capture.description.source == {"name": "synthetic portrait", "seed": 2, "voice": "tenor"}


def test_sound_is_as_long_as_the_frames(portrait, folder):
    sound = read_sound(folder / "aud.wav")
    assert len(sound) == N_FRAMES * 640
    assert np.abs(sound - portrait.samples).max() <= 1 / 32767


def test_video_has_frames_and_sound(portrait, tmp_path):
    write_portrait_video(portrait, tmp_path / "talking.mp4")
    info = probe(tmp_path / "talking.mp4")
    assert (info.width, info.height, info.rate, info.sound_rate) == (SIZE, SIZE, 25, 16_000)
    frames = list(read_frames(tmp_path / "talking.mp4", 25))
    assert len(frames) == N_FRAMES
    assert np.abs(frames[5].astype(int) - portrait.render(5).image).mean() < 6
    assert np.corrcoef(read_sound(tmp_path / "talking.mp4")[: len(portrait.samples)], portrait.samples)[0, 1] > 0.95


def test_unknown_extractor_is_refused_before_rendering(portrait, tmp_path):
    with pytest.raises(ValueError, match="extractor: expected one of"):
        write_portrait_capture(portrait, tmp_path / "out", "deepspeech")
    assert not (tmp_path / "out").exists()


def test_one_frame_is_too_few(tmp_path):
    with pytest.raises(ValueError, match="expected at least 2 frames with a pose"):
        write_portrait_capture(SyntheticPortrait(1, SIZE), tmp_path / "out")
