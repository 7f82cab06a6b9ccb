import numpy as np
import pytest

from ernerf_ti.evaluation.mouth_series import (
    frame_loudness,
    heard_loudness,
    in_pauses,
    in_silence,
    least_opening,
    speech_level,
)

RATE, FRAME = 16_000, 640


def tone(n_frames, amplitude):
    return amplitude * np.sin(2 * np.pi * 200 * np.arange(n_frames * FRAME) / RATE)


def test_loudness_by_hand():
    sound = np.concatenate((tone(3, 0.5), tone(3, 0.005), np.zeros(2 * FRAME)))
    found = frame_loudness(sound, np.arange(-1, 9))
    assert np.isnan(found[[0, -1]]).all()  # before and after the sound
    np.testing.assert_allclose(found[1:7], np.repeat([20 * np.log10(0.5 / 2**0.5), 20 * np.log10(0.005 / 2**0.5)], 3))
    np.testing.assert_allclose(found[7:9], -120)
    assert speech_level(found) == pytest.approx(found[1])
    np.testing.assert_allclose(heard_loudness(found)[1:9], [40, 40, 40, 0, 0, 0, 0, 0], atol=1e-6)


def test_silence_begins_after_a_third_of_a_second_and_ends_before_the_next_sound():
    loudness = np.concatenate((np.full(20, -20.0), np.full(30, -55.0), np.full(20, -20.0)))
    assert np.flatnonzero(in_silence(loudness)).tolist() == list(range(28, 45))


def test_noise_near_speech_is_no_silence():
    loudness = np.concatenate((np.full(20, -20.0), np.full(30, -45.0), np.full(20, -20.0)))
    assert not in_silence(loudness).any()


def test_a_sound_of_nothing_is_silent():
    silent = in_silence(np.full(40, -120.0))
    assert silent[8:-5].all() and not silent[:8].any() and not silent[-5:].any()
    assert not in_silence(np.full(40, np.nan)).any()  # unknown
    assert np.isnan(speech_level(np.full(40, -120.0)))


@pytest.mark.parametrize(
    ("level", "n", "is_pause"), [(-41, 5, True), (-39, 5, False), (-41, 4, False), (-120, 9, True)]
)
def test_pauses_are_faint_and_last(level, n, is_pause):
    loudness = np.concatenate((np.full(30, -20.0), np.full(n, float(level)), np.full(30, -20.0)))
    assert np.flatnonzero(in_pauses(loudness)).tolist() == (list(range(30, 30 + n)) if is_pause else [])


def test_pauses_at_the_ends_and_sounds_without_speech():
    loudness = np.concatenate((np.full(6, -60.0), np.full(30, -20.0), [np.nan], np.full(5, -60.0)))
    assert np.flatnonzero(in_pauses(loudness)).tolist() == [*range(6), *range(37, 42)]
    assert not in_pauses(np.full(40, -120.0)).any() and not in_pauses(np.full(40, np.nan)).any()
    assert in_pauses(np.zeros(0)).shape == (0,)


def test_least_opening_leaves_out_the_smallest():
    assert least_opening(np.append(np.linspace(5, 10, 200), 0.0)) == pytest.approx(5, abs=0.1)
