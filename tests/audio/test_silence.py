"""The sound and the windows of silence."""

import numpy as np
import pytest

from ernerf_ti.audio.extractors import extract_windows
from ernerf_ti.audio.silence import SAMPLES_PER_FRAME, noise, pause_windows
from ernerf_ti.audio.windows import audio_windows


def loudness(samples, n_frames):
    """Windows of the largest sample of each step."""
    return audio_windows(np.abs(samples).reshape(-1, 320).max(1)[:, None], n_frames)


def test_noise_has_60_db_less_than_full_scale():
    samples = noise(160_000, seed=1)
    assert 20 * np.log10(samples.std()) == pytest.approx(-60, abs=0.1) and np.abs(samples).max() < 0.01
    np.testing.assert_array_equal(samples, noise(160_000, seed=1))


@pytest.mark.parametrize("n_samples", [0, 500, 25 * SAMPLES_PER_FRAME, 25 * SAMPLES_PER_FRAME + 100])
def test_windows_hold_nothing_but_noise(n_samples):
    windows = pause_windows(np.full(n_samples, 0.9), loudness, 12, seed=0)
    assert windows.shape == (12, 16, 1)
    assert 0 < windows.min() and windows.max() < 0.01  # neither speech nor the zeros before and after the sound


def test_the_first_window_is_that_of_160_ms_after_the_speech():
    speech = np.full(10 * SAMPLES_PER_FRAME, 0.9)
    whole = []

    def extract(samples, n_frames):
        whole.append(loudness(samples, n_frames))
        return whole[0]

    windows = pause_windows(speech, extract, 12, seed=0)
    np.testing.assert_array_equal(windows, whole[0][14:26])
    assert whole[0][13].max() == 0.9 and len(whole[0]) == 30


def test_silence_depends_on_the_speech_before_it():
    rng = np.random.default_rng(0)

    def extract(samples, n_frames):
        return extract_windows(samples, "mel", n_frames)

    speech = 0.1 * rng.standard_normal(25 * SAMPLES_PER_FRAME)
    in_a_pause, alone = (pause_windows(before, extract, 8, seed=0) for before in (speech, np.zeros(0)))
    assert in_a_pause.shape == alone.shape == (8, 16, 80)
    assert np.abs(in_a_pause.mean() - alone.mean()) > 0.5  # features are relative to the whole recording
