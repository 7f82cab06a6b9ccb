"""How much later one motion is than another."""

import numpy as np

from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.statistics import block_resamples

MAX_LAG = 10
"""Largest lag that is looked for, in frames of 25 fps, in either direction."""

_LOCAL, _STEP = 200, 50  # frames of a stretch whose lag is taken, and between the starts of stretches
_LEAST_R = 0.5  # of a stretch whose lag counts
_LEAST_STRETCHES = 6
_EVERY_RESAMPLE = 4  # of the bootstrap: a lag takes 21 correlations


def lag_correlations(later: np.ndarray, earlier: np.ndarray, max_lag: int = MAX_LAG) -> np.ndarray:
    """Pearson's r of two motions for each lag, over all K coordinates together.

    Args:
        later, earlier: [n, K], n > 2 max_lag + 1.
        max_lag: in frames.

    Returns:
        [2 max_lag + 1]: entry max_lag + k correlates later[t + k] with earlier[t], over the same t for all k.
    """
    n = len(earlier) - 2 * max_lag
    windows = [later[k : k + n] for k in range(2 * max_lag + 1)]
    return np.array([_r(window, earlier[max_lag : max_lag + n]) for window in windows])


def lag_of(correlations: np.ndarray) -> float:
    """Lag of the largest of the correlations [2 L + 1], with the peak of the parabola through it and its neighbors."""
    best = int(np.argmax(correlations))
    lag = float(best - len(correlations) // 2)
    if 0 < best < len(correlations) - 1:
        before, peak, after = correlations[best - 1 : best + 2]
        curvature = before - 2 * peak + after
        if curvature < 0:
            lag += 0.5 * (before - after) / curvature
    return lag


def lag_interval(later: np.ndarray, earlier: np.ndarray, block: int, seed: int) -> tuple[float, float]:
    """95 % confidence interval of a lag, by :func:`ernerf_ti.evaluation.statistics.block_resamples`.

    Args:
        later, earlier: [n, K] as of :func:`lag_correlations`.
        block: frames.
        seed: of the resamples.
    """
    n = len(earlier) - 2 * MAX_LAG
    fixed = earlier[MAX_LAG : MAX_LAG + n]
    windows = [later[k : k + n] for k in range(2 * MAX_LAG + 1)]
    lags = [
        lag_of(np.array([_r(window[resample], fixed[resample]) for window in windows]))
        for resample in block_resamples(n, block, seed)[::_EVERY_RESAMPLE]
    ]
    low, high = np.percentile(lags, (2.5, 97.5))
    return float(low), float(high)


def local_lags(later: np.ndarray, earlier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lags in stretches of 8 s, one every 2 s.

    Args:
        later, earlier: [n, K] as of :func:`lag_correlations`.

    Returns:
        [m] middle of each stretch in minutes, and [m] its lag in frames; only stretches with an r of .5 or more.
    """
    found = []
    for start in range(0, len(earlier) - _LOCAL + 1, _STEP):
        stretch = slice(start, start + _LOCAL)
        correlations = lag_correlations(later[stretch], earlier[stretch])
        if correlations.max() >= _LEAST_R:
            found.append(((start + _LOCAL / 2) / FPS / 60, lag_of(correlations)))
    minutes, lags = np.array(found).reshape(-1, 2).T
    return minutes, lags


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Median of the slopes between all pairs of points [m], which a few wrong ones do not move [Theil 1950, Sen 1968].

    NaN for fewer than 6 points.
    """
    if len(x) < _LEAST_STRETCHES:
        return float("nan")
    i, j = np.triu_indices(len(x), 1)
    apart = x[j] != x[i]
    return float(np.median((y[j] - y[i])[apart] / (x[j] - x[i])[apart])) if apart.any() else 0.0


def slope_interval(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % confidence interval of :func:`slope` for points [m], of which neighbors overlap."""
    block = _LOCAL // _STEP
    slopes = [slope(x[resample], y[resample]) for resample in block_resamples(len(x), block, seed)[::_EVERY_RESAMPLE]]
    low, high = np.percentile(slopes, (2.5, 97.5))
    return float(low), float(high)


def _r(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0
