import wave
from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.media.video_writer import write_video
from tests.media.clips import SOUND_RATE, beeps, encode, onsets_of_beeps, onsets_of_flashes, picture


def test_gaps_in_the_sound_are_silence(tmp_path):
    pieces = [(0, beeps([0.2], 0.5)), (1.5, beeps([0.25], 1))]
    path = encode(tmp_path / "a.mkv", np.arange(50) / 25, [picture(20)] * 50, pieces, ("libx264", "pcm_s16le"))
    assert onsets_of_beeps(read_sound(path)) == pytest.approx([0.2, 1.75], abs=0.003)


def test_sound_alone(tmp_path):
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(2).uniform(-0.5, 0.5, 8000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.round(samples * 32768).astype("<i2").tobytes())
    found = read_sound(path)
    assert found.dtype == np.float32 and found.shape == (8000,)
    np.testing.assert_allclose(found, samples, atol=1 / 32768)


def test_sound_is_resampled(tmp_path):
    write_video(tmp_path / "a.mp4", [picture(20)] * 25, 25, beeps([0.1], 1), SOUND_RATE)
    for rate in (16_000, 48_000):
        sound = read_sound(tmp_path / "a.mp4", rate)
        assert sound.dtype == np.float32
        assert len(sound) / rate == pytest.approx(1, abs=0.05)
        tone = sound[round(0.12 * rate) : round(0.18 * rate)]
        crossings = np.count_nonzero(np.diff(tone > 0))
        assert crossings / 2 / 0.06 == pytest.approx(1000, rel=0.02)
        assert np.abs(tone).max() == pytest.approx(0.5, rel=0.1)


def test_no_sound_track(tmp_path):
    write_video(tmp_path / "a.mp4", [picture(20)] * 3, 25)
    with pytest.raises(ValueError) as error:
        read_sound(tmp_path / "a.mp4")
    assert f"{tmp_path / 'a.mp4'}: no audio track; use a recording" in str(error.value)


@pytest.mark.parametrize("shift", [0.5, -0.5])
def test_sound_that_begins_later_or_earlier_than_the_pictures(shift, tmp_path):
    pictures_from, sound_from = max(0, -shift), max(0, shift)
    times = pictures_from + np.arange(50) / 25
    frames = [picture(230 if 25 <= k < 30 else 20) for k in range(50)]
    beep = pictures_from + 1.0  # when frame 25 is shown, on the clock of both
    encode(tmp_path / "a.mp4", times, frames, [(sound_from, beeps([beep - sound_from], 2.6 - sound_from))])
    flashes = onsets_of_flashes(read_frames(tmp_path / "a.mp4", 25))
    sound = read_sound(tmp_path / "a.mp4")
    assert flashes == pytest.approx([1.0])
    assert onsets_of_beeps(sound) == pytest.approx([1.0], abs=0.005)
    if shift > 0:
        assert np.abs(sound[: round(0.45 * 16_000)]).max() < 1e-3


def wav(path, rate, n):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(2 * n))
    return path


def test_a_sample_rate_that_can_not_be(tmp_path):
    with pytest.raises(ValueError, match=r"a\.wav: expected a sample rate of 1000 to 1536000 Hz, got 1; convert"):
        read_sound(wav(tmp_path / "a.wav", 1, 100_000))


def test_no_samples(tmp_path):
    with pytest.raises(ValueError, match=r"a\.wav: the audio track is empty; use"):
        read_sound(wav(tmp_path / "a.wav", 16_000, 0))


def test_a_gap_of_hours_is_an_error(tmp_path):
    pieces = [(0, beeps([0.2], 0.5)), (36_000, beeps([0.25], 1))]
    path = encode(tmp_path / "a.mkv", [0, 0.04], [picture(20)] * 2, pieces, ("libx264", "pcm_s16le"))
    with pytest.raises(ValueError, match=r"a\.mkv: no sound from 0\.\d+ to 36000\.\d+ s; the time stamps are damaged"):
        read_sound(path)


def test_colon_in_a_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = wav(Path("take:1.wav"), 16_000, 1600)
    assert read_sound(path).shape == (1600,)
