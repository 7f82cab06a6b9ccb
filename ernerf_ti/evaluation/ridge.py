"""Ridge regression from windows of audio features."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ernerf_ti.audio.windows import STEPS_PER_FRAME, WINDOW

Predictor = Callable[[np.ndarray], np.ndarray]
"""Windows [N, steps, C] -> targets [N, K]."""

_TRAINING_FRACTION = 0.8
_GAP = WINDOW // STEPS_PER_FRAME  # frames left out between the two parts, so that no sound is in windows of both
_MIN_DEVIATION = 0.01  # of a feature's standard deviation, relative to the root mean square over all features
_PENALTIES = 10.0 ** np.arange(-2, 3.5, 0.5)


@dataclass(frozen=True)
class Standardization:
    """Mean and standard deviation per feature; applying it gives zero mean and unit variance."""

    mean: np.ndarray
    """[C]"""
    deviation: np.ndarray
    """[C]"""

    @staticmethod
    def of(windows: np.ndarray) -> "Standardization":
        """From windows [N, steps, C]."""
        mean, deviation = windows.mean((0, 1), np.float64), windows.std((0, 1), np.float64)
        # A sound that this speaker hardly makes must not be amplified when another speaker makes it.
        least = _MIN_DEVIATION * math.sqrt((deviation**2).mean()) or 1.0
        return Standardization(mean, np.maximum(deviation, least))

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        return (windows - self.mean) / self.deviation


def split_in_time(n: int) -> tuple[slice, slice]:
    """The first 80 % of n frames except the last few of them, and the last 20 %; no sound is in windows of both."""
    cut = math.floor(_TRAINING_FRACTION * n)
    return slice(0, cut - _GAP), slice(cut, n)


def blocks_in_time(n: int, n_blocks: int) -> list[tuple[np.ndarray, slice]]:
    """n frames in blocks, each with the indices of the frames of all others, except those close to it."""
    edges = np.linspace(0, n, n_blocks + 1).astype(int)
    frames = np.arange(n)
    return [
        (np.concatenate((frames[: max(0, begin - _GAP)], frames[end + _GAP :])), slice(int(begin), int(end)))
        for begin, end in itertools.pairwise(edges)
    ]


def fit_ridge(windows: np.ndarray, targets: np.ndarray, seed: int = 0) -> Predictor:
    """Linear regression with a penalty on the squared weights.

    The penalty is selected per target: the one with the smallest error on the last 20 % of the data when fitted on
    the rest.

    Args:
        windows: [N, steps, C] features.
        targets: [N, K].
        seed: unused, because nothing is random; it makes all predictors interchangeable.
    """
    fit_part, check_part = split_in_time(len(windows))
    trials = _ridges(windows[fit_part], targets[fit_part], _PENALTIES)
    errors = [((trial(windows[check_part]) - targets[check_part]) ** 2).mean(0) for trial in trials]
    (chosen,) = _ridges(windows, targets, [_PENALTIES[np.argmin(errors, 0)]])
    return chosen


def _ridges(windows: np.ndarray, targets: np.ndarray, penalties: Iterable[float | np.ndarray]) -> list[Predictor]:
    """One regression per penalty, a number or [K], relative to the mean squared error over frames."""
    standardize = Standardization.of(windows)
    inputs = standardize(windows).reshape(len(windows), -1)
    bias = targets.mean(0)
    left, values, right = np.linalg.svd(inputs, full_matrices=False)
    projected = values[:, None] * (left.T @ (targets - bias))

    def predictor(penalty: float | np.ndarray) -> Predictor:
        weights = right.T @ (projected / (values[:, None] ** 2 + len(inputs) * penalty))
        return lambda others: standardize(others).reshape(len(others), -1) @ weights + bias

    return [predictor(penalty) for penalty in penalties]
