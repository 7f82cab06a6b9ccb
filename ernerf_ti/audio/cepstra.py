"""Mel-frequency cepstra of 16 kHz speech, as the acoustic models of CMU Sphinx expect them.

Pre-emphasis, Hamming windows of 410 samples every 160 (10 ms), power spectrum, 25 mel filters from 130 to 6800 Hz,
logarithm, cosine transform, 13 cepstra, liftering.
"""

import functools

import numpy as np

from ernerf_ti.audio.frame_features import HOP, SAMPLE_RATE

WINDOW = 410
N_CEPSTRA = 13

_N_FFT = 512
_N_FILTERS = 25
_LOWEST_HZ, _HIGHEST_HZ = 130.0, 6800.0
_PREEMPHASIS = 0.97
_LIFTER = 22
_LOG_FLOOR = 1e-4  # added to the energies of samples on the int16 scale


def cepstra(samples: np.ndarray, before: float = 0.0) -> np.ndarray:
    """Cepstra of every complete window.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1], any real dtype.
        before: the preceding sample, for pre-emphasis.

    Returns:
        [T, 13] float64 with T = (S - 410) // 160 + 1, or 0 if S < 410.
    """
    samples = np.asarray(samples, np.float64)
    if len(samples) < WINDOW:
        return np.zeros((0, N_CEPSTRA))
    emphasized = samples - _PREEMPHASIS * np.concatenate(([before], samples[:-1]))
    windows = np.lib.stride_tricks.sliding_window_view(emphasized * 32768.0, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(windows * np.hamming(WINDOW), _N_FFT)) ** 2
    energies = np.log(power @ _mel_filters().T + _LOG_FLOOR)
    return energies @ _transform().T


@functools.cache
def _mel_filters() -> np.ndarray:
    """[25, 257] triangles of unit area with their corners at bins of the spectrum."""
    lowest, highest = 2595 * np.log10(1 + np.array([_LOWEST_HZ, _HIGHEST_HZ]) / 700)
    corners = 700 * (10 ** (np.linspace(lowest, highest, _N_FILTERS + 2) / 2595) - 1)
    bin_hz = SAMPLE_RATE / _N_FFT
    corners = np.floor(corners / bin_hz + 0.5) * bin_hz
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    hz = np.arange(_N_FFT // 2 + 1) * bin_hz
    triangles = np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle))
    return np.maximum(triangles, 0) * 2 / (high - low)


@functools.cache
def _transform() -> np.ndarray:
    """[13, 25] orthonormal cosine transform and lifter."""
    order = np.arange(N_CEPSTRA)[:, None]
    cosines = np.cos(np.pi * order * (np.arange(_N_FILTERS) + 0.5) / _N_FILTERS) * np.sqrt(2 / _N_FILTERS)
    cosines[0] /= np.sqrt(2)
    return cosines * (1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER))
