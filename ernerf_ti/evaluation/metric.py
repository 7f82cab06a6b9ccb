"""What a metric is: it has a name, says how it is computed, and gives a value or the reason why there is none."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ernerf_ti.evaluation.statistics import mean_interval


class ImageSequence:
    """Images that are read when they are accessed.

    Args:
        n: number of images.
        read: index -> [H, W, 3] uint8 RGB.
    """

    def __init__(self, n: int, read: Callable[[int], np.ndarray]):
        self._n, self._read = n, read
        self._cache: dict[Any, Any] = {}

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < self._n:
            raise IndexError(i)
        return self._read(i)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._read, range(self._n))

    def cached(self, key: Any, compute: Callable[["ImageSequence"], Any]) -> Any:
        """Result of `compute` on these images; computed once per key, so that metrics share it."""
        if key not in self._cache:
            self._cache[key] = compute(self)
        return self._cache[key]


@dataclass(frozen=True)
class Setting:
    """Images to evaluate, and what they are compared with."""

    name: str
    description: str
    """How the images were made, and what they are compared with."""
    images: ImageSequence
    truth: ImageSequence | None
    """Ground truth; None where there is none."""
    landmarks: Callable[[int], np.ndarray]
    """Index -> [68, 2] x, y in pixels: landmarks of the true frame, which place the crops; of the image without one."""
    times: np.ndarray
    """[n] int, index at 25 fps into the sound of each image."""
    samples: np.ndarray | None
    """[S] mono 16 kHz sound in [-1, 1]; None without sound."""
    windows: np.ndarray
    """[n, steps, C] audio windows of the images; no windows for metrics that hear the sound alone."""
    is_special: bool = False
    """Made for the metrics that name it; others are not computed."""
    problem: "NotComputed | None" = None
    """Why there are no images, if there are none."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class NotComputed:
    """Why a metric has no value."""

    reason: str
    file: str | None = None
    """File of weights that is missing."""
    folder: str | None = None
    """Folder in which that file is expected."""


@dataclass(frozen=True)
class MetricValue:
    """Value of a metric in a setting."""

    value: float
    interval: tuple[float, float] | None
    """95 % confidence interval; None for too few frames, or for a metric without one."""
    per_frame: np.ndarray | None
    """[n] values, NaN for frames without one; None for a metric of the whole sequence."""
    n_frames: int
    """Number of frames that the value is computed from."""
    note: str = ""
    curves: dict[str, np.ndarray] | None = None
    """Quantities that the metric compares, by name, [n] each, NaN where unknown."""


class Metric(ABC):
    """A metric of rendered images."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    description: str
    """How it is computed: crop, weights, formula."""
    needs_truth = True
    settings: tuple[str, ...] | None = None
    """Names of the settings that it is computed in; None for all that are not special."""

    def applies_to(self, setting: Setting) -> bool:
        """Whether it is computed in a setting."""
        if self.settings is not None:
            return setting.name in self.settings
        return not setting.is_special and (setting.truth is not None or not self.needs_truth)

    def missing(self) -> NotComputed | None:
        """What this machine lacks to compute it, if anything; asked before anything is rendered."""
        return None


class FrameMetric(Metric):
    """A metric of single frames."""

    @abstractmethod
    def of_frame(self, image: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        """Value of a frame, NaN for none.

        Args:
            image, truth: [H, W, 3] uint8 RGB.
            landmarks: [68, 2] of the true frame, in pixels.
        """


class SequenceMetric(Metric):
    """A metric of a sequence of images."""

    @abstractmethod
    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        """Value in a setting; `seed` is that of the bootstrap."""


def mean_over_frames(
    values: np.ndarray, times: np.ndarray, seed: int, note: str = "", **curves: np.ndarray
) -> MetricValue | NotComputed:
    """Mean of per-frame values with its confidence interval.

    Args:
        values: [n], NaN for frames without a value.
        times: [n] int, at 25 fps.
        seed: seed of the bootstrap.
        note: note for the result.
        curves: [n] quantities to plot, by name.

    Returns:
        MetricValue, or NotComputed if no frame has a value.
    """
    known = np.isfinite(values)
    if not known.any():
        return NotComputed("no frame has a value")
    interval = mean_interval(values[known], times[known], seed)
    return MetricValue(float(values[known].mean()), interval, values, int(known.sum()), note, curves or None)
