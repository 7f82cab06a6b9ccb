"""Means and correlations with confidence intervals for time series, in which neighboring frames are alike."""

import numpy as np

from ernerf_ti.data.capture_files import FPS

INTERVAL = (
    "95 % confidence interval: percentiles of 1000 resamples of a circular block bootstrap over the frames, in blocks "
    "of one second, or of a quarter of the frames if that is shorter"
)
"""How intervals are computed, for reports."""

_RESAMPLES = 1000
_MIN_FRAMES = 8  # for an interval
_MIN_BLOCKS = 4


def correlation(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Pearson's r over the second to last axis: [..., N, K] twice -> [..., K]; 0 where one of them is constant."""
    truth, predicted = (a - a.mean(-2, keepdims=True) for a in (truth, predicted))
    scale = np.sqrt((truth**2).sum(-2) * (predicted**2).sum(-2))
    return (truth * predicted).sum(-2) / np.where(scale > 1e-12, scale, np.inf)


def correlation_interval(truth: np.ndarray, predicted: np.ndarray, block: int, seed: int) -> np.ndarray:
    """95 % confidence interval of each r, by :func:`block_resamples`: [N, K] twice -> [K, 2]."""
    resamples = block_resamples(len(truth), block, seed)
    draws = [correlation(truth[resamples, k, None], predicted[resamples, k, None])[:, 0] for k in range(truth.shape[1])]
    return np.percentile(draws, (2.5, 97.5), axis=1).T


def mean_interval(values: np.ndarray, times: np.ndarray, seed: int) -> tuple[float, float] | None:
    """95 % confidence interval of a mean, by :func:`block_resamples`.

    Args:
        values: [N], one per frame.
        times: [N] int, frame numbers at 25 fps, ascending.
        seed: seed of the resamples.

    Returns:
        Its ends; None for fewer than 8 frames, which say too little.
    """
    block = block_length(times)
    if block is None:
        return None
    low, high = np.percentile(values[block_resamples(len(values), block, seed)].mean(1), (2.5, 97.5))
    return float(low), float(high)


def block_length(times: np.ndarray) -> int | None:
    """Number of frames in a block: one second, at most a quarter of all frames; None for fewer than 8 frames.

    Args:
        times: [N] int, frame numbers at 25 fps, ascending, consecutive or spaced.
    """
    if len(times) < _MIN_FRAMES:
        return None
    spacing = np.median(np.diff(times))
    return int(max(1, min(round(FPS / max(1, spacing)), len(times) // _MIN_BLOCKS)))


def block_resamples(n: int, block: int, seed: int) -> np.ndarray:
    """[1000, n] resampled indices: blocks of neighbors, with the end joined to the start.

    Circular block bootstrap [Politis and Romano 1992]; intervals here are percentiles of it.
    """
    starts = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, -(-n // block), 1))
    return ((starts + np.arange(block)) % n).reshape(_RESAMPLES, -1)[:, :n]
