"""Means and correlations with intervals that know that neighboring frames are alike."""

import numpy as np

from ernerf_ti.data.capture_files import FPS

INTERVAL = (
    "95 %: percentiles of 1000 draws of a circular block bootstrap over the frames; a block is one second of them, "
    "or a quarter of all if that is less"
)
"""How intervals are computed, for reports."""

_RESAMPLES = 1000
_LEAST_FRAMES = 8  # for an interval
_LEAST_BLOCKS = 4


def correlation(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Pearson's r over the second last axis: [..., N, K] twice -> [..., K]; 0 where one of them is constant."""
    truth, predicted = (a - a.mean(-2, keepdims=True) for a in (truth, predicted))
    scale = np.sqrt((truth**2).sum(-2) * (predicted**2).sum(-2))
    return (truth * predicted).sum(-2) / np.where(scale > 1e-12, scale, np.inf)


def correlation_interval(truth: np.ndarray, predicted: np.ndarray, block: int, seed: int) -> np.ndarray:
    """The 95 % interval of each r: [N, K] twice -> [K, 2], by :func:`block_draws`."""
    chosen = block_draws(len(truth), block, seed)
    draws = [correlation(truth[chosen, k, None], predicted[chosen, k, None])[:, 0] for k in range(truth.shape[1])]
    return np.percentile(draws, (2.5, 97.5), axis=1).T


def mean_interval(values: np.ndarray, times: np.ndarray, seed: int) -> tuple[float, float] | None:
    """The 95 % interval of a mean, by :func:`block_draws`.

    Args:
        values: [N] of frames.
        times: [N] their numbers at 25 fps, ascending.
        seed: of the draws.

    Returns:
        Its ends; None for fewer than 8 frames, which say too little.
    """
    block = block_length(times)
    if block is None:
        return None
    low, high = np.percentile(values[block_draws(len(values), block, seed)].mean(1), (2.5, 97.5))
    return float(low), float(high)


def block_length(times: np.ndarray) -> int | None:
    """Frames of a block: one second of them, at most a quarter of them all; None for fewer than 8 frames.

    Args:
        times: [N] numbers of the frames at 25 fps, ascending; a few of many, or neighbors.
    """
    if len(times) < _LEAST_FRAMES:
        return None
    spacing = np.median(np.diff(times))
    return int(max(1, min(round(FPS / max(1, spacing)), len(times) // _LEAST_BLOCKS)))


def block_draws(n: int, block: int, seed: int) -> np.ndarray:
    """[1000, n] resampled places: blocks of neighbors, the end joined to the begin.

    [Politis and Romano 1992, the circular block bootstrap; its intervals here are percentiles]
    """
    begins = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, -(-n // block), 1))
    return ((begins + np.arange(block)) % n).reshape(_RESAMPLES, -1)[:, :n]
