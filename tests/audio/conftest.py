"""A sound for testing the extractors."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def speech():
    """Three seconds of vowel-like and hiss-like sounds, in [-1, 1]."""
    rng = np.random.default_rng(0)
    time = np.arange(48_000) / 16_000
    pulses = (np.diff(np.floor(time * (110 + 15 * np.sin(3 * time))), prepend=0) > 0).astype(float)
    sound = np.zeros_like(time)
    for begin, formants in ((0.1, (730, 1090)), (0.8, (270, 2290)), (1.5, (300, 870)), (2.2, (530, 1840))):
        source = pulses * ((time >= begin) & (time < begin + 0.5))
        for hz in formants:
            ring = np.exp(-300 * np.arange(800) / 16_000) * np.sin(2 * np.pi * hz * np.arange(800) / 16_000)
            sound += np.convolve(source, ring)[: len(time)]
    sound += 0.3 * rng.standard_normal(len(time)) * ((time > 0.62) & (time < 0.75))
    return 0.3 * sound / np.abs(sound).max() + 1e-4 * rng.standard_normal(len(time))
