"""Mel-frequency cepstra of 16 kHz speech, computed as in SyncNet's training.

Pre-emphasis, rectangular windows of 25 ms every 10 ms, power spectrum, 26 mel filters from 0 to 8 kHz with corners at
bins of the spectrum, logarithm, cosine transform, liftering; the first cepstrum is replaced by the log energy.
"""

import functools

import numpy as np

from ernerf_ti.audio.frame_features import HOP, SAMPLE_RATE

N_CEPSTRA = 13

_WINDOW = 400
_N_FFT = 512
_N_FILTERS = 26
_PREEMPHASIS = 0.97
_LIFTER = 22


def cepstra(samples: np.ndarray) -> np.ndarray:
    """Cepstra every 10 ms; the last window is padded with zeros.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1], S > 0.

    Returns:
        [T, 13] float64 with T = 1 + ceil((S - 400) / 160), at least 1.
    """
    samples = np.asarray(samples, np.float64) * 32768
    emphasized = np.concatenate((samples[:1], samples[1:] - _PREEMPHASIS * samples[:-1]))
    n = 1 + max(0, -(-(len(samples) - _WINDOW) // HOP))
    padded = np.pad(emphasized, (0, (n - 1) * HOP + _WINDOW - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(windows, _N_FFT)) ** 2 / _N_FFT
    energies = power @ _mel_filters().T
    values = _log(energies) @ _transform().T
    values[:, 0] = _log(power.sum(1))
    return values


def _log(values: np.ndarray) -> np.ndarray:
    """Logarithm; of the machine epsilon for zeros."""
    return np.log(np.where(values == 0, np.finfo(float).eps, values))


@functools.cache
def _transform() -> np.ndarray:
    """[13, 26] orthonormal cosine transform followed by liftering; the first row is unused."""
    order = np.arange(N_CEPSTRA)[:, None]
    cosines = np.cos(np.pi * order * (np.arange(_N_FILTERS) + 0.5) / _N_FILTERS) * np.sqrt(2 / _N_FILTERS)
    return cosines * (1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER))


@functools.cache
def _mel_filters() -> np.ndarray:
    """[26, 257] triangles of height 1."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hz = 700 * (10 ** (np.linspace(0, highest, _N_FILTERS + 2) / 2595) - 1)
    corners = np.floor((_N_FFT + 1) * hz / SAMPLE_RATE)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(_N_FFT // 2 + 1)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    # A bin at a filter's upper corner lies outside of the filter.
    return np.where((bins >= low) & (bins < middle), rising, np.where((bins >= middle) & (bins < high), falling, 0))
