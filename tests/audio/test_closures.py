"""Frames at which p, b or m is heard."""

from types import SimpleNamespace

import numpy as np
import pytest

from ernerf_ti.audio import closures as module
from ernerf_ti.audio.closures import heard_closures

PHONES = ("AA", "B", "M", "P", "SIL")


@pytest.fixture
def hear(monkeypatch):
    """Probabilities [T, 5] of the steps, heard in any sound."""

    def hear(probabilities):
        class Posteriors:
            model = SimpleNamespace(phones=PHONES)

            def __call__(self, samples):
                return np.sqrt(probabilities)

        monkeypatch.setattr(module, "PhonePosteriors", Posteriors)
        return heard_closures(np.zeros(1)).tolist()

    return hear


def steps(n_frames, peaks):
    """[2 n, 5] with P, B or M at frames, by frame and name."""
    probabilities = np.zeros((2 * n_frames, len(PHONES)))
    for frame, values in peaks.items():
        for name, value in values.items():
            probabilities[2 * frame : 2 * frame + 2, PHONES.index(name)] = value
    return probabilities


def test_peaks_of_the_three_together(hear):
    found = hear(steps(30, {3: {"P": 0.3}, 9: {"B": 0.1, "M": 0.11}, 15: {"M": 0.19}, 20: {"AA": 0.9, "SIL": 0.9}}))
    assert found == [3, 9]


def test_one_of_neighbors(hear):
    assert hear(steps(30, {7: {"P": 0.3}, 8: {"P": 0.5}, 10: {"B": 0.4}, 11: {"M": 0.35}, 14: {"M": 0.3}})) == [8, 14]


def test_at_the_ends_and_in_short_sounds(hear):
    assert hear(steps(5, {0: {"M": 0.4}, 4: {"P": 0.6}})) == [0, 4]
    assert hear(steps(1, {0: {"M": 0.4}})) == [0]
    assert hear(steps(2, {1: {"M": 0.4}})[:3]) == []  # half a frame
    assert hear(np.zeros((0, 5))) == []


def test_noise_has_no_closures_by_the_recognizer_itself():
    hum = 0.3 * np.sin(np.arange(16_000) * 0.1)
    assert all(0 <= t < 25 for t in heard_closures(hum))
    assert heard_closures(np.zeros(0)).tolist() == []
