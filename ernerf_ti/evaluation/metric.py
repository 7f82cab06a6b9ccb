"""What a metric is: it names itself, says how it is computed, and gives a value or the reason why there is none."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ernerf_ti.evaluation.statistics import mean_interval


class Pictures:
    """A row of pictures that are read when they are asked for.

    Args:
        n: how many.
        read: place -> [H, W, 3] uint8 RGB.
    """

    def __init__(self, n: int, read: Callable[[int], np.ndarray]):
        self._n, self._read = n, read
        self._found: dict[Any, Any] = {}

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < self._n:
            raise IndexError(i)
        return self._read(i)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._read, range(self._n))

    def once(self, name: Any, find: Callable[["Pictures"], Any]) -> Any:
        """What is found in these pictures, looked for the first time only: metrics share it."""
        if name not in self._found:
            self._found[name] = find(self)
        return self._found[name]


@dataclass(frozen=True)
class Setting:
    """A row of pictures to be judged."""

    name: str
    what: str
    """How the pictures were made, and what they are compared with."""
    pictures: Pictures
    truth: Pictures | None
    """What they should look like; None where nobody knows."""
    landmarks: Callable[[int], np.ndarray]
    """Place -> [68, 2] x, y in pixels, of the capture: where the crops are."""
    times: np.ndarray
    """[n] int: 25 fps frame of the sound that goes with each picture."""
    samples: np.ndarray | None
    """[S] mono 16 kHz sound in [-1, 1]; None without sound."""
    windows: np.ndarray
    """[n, steps, C] audio windows of the pictures."""

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class NotComputed:
    """Why there is no value."""

    reason: str
    file: str | None = None
    """Weights that are missing."""
    place: str | None = None
    """Where they would be looked for."""


@dataclass(frozen=True)
class Measured:
    """A value of a metric."""

    value: float
    interval: tuple[float, float] | None
    """95 %; None where the frames are too few, or where the metric has none."""
    per_frame: np.ndarray | None
    """[n] NaN where there is no value; None for a metric of the whole."""
    n_frames: int
    """That the value is of."""
    note: str = ""
    motions: dict[str, np.ndarray] | None = None
    """What a correlation is of, [n] each, NaN where it is not known."""


class Metric(ABC):
    """Something that can be measured of pictures."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    how: str
    """How it is computed: the crop, the weights, the formula."""
    needs_truth = True

    def missing(self) -> NotComputed | None:
        """What this machine lacks for it; asked before anything is rendered."""
        return None


class FrameMetric(Metric):
    """A value per frame, that needs no other frame."""

    @abstractmethod
    def of_frame(self, picture: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        """Pictures [H, W, 3] uint8 RGB and the capture's landmarks [68, 2] -> the value, NaN for none."""


class SequenceMetric(Metric):
    """Values, or one value, of a row of pictures."""

    @abstractmethod
    def measure(self, setting: Setting, seed: int) -> Measured | NotComputed:
        """The value in a setting; the seed is that of the bootstrap."""


def measured_frames(values: np.ndarray, times: np.ndarray, seed: int, note: str = "") -> Measured | NotComputed:
    """The mean of values per frame, NaN ones left out, with its interval."""
    known = np.isfinite(values)
    if not known.any():
        return NotComputed("no frame has a value")
    interval = mean_interval(values[known], times[known], seed)
    return Measured(float(values[known].mean()), interval, values, int(known.sum()), note)
