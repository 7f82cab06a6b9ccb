"""Resolution that follows how long pictures take."""

import itertools
import math
from collections import deque
from statistics import median

SCALES = (1.0, 0.75, 0.5)
"""Of the sides of a rendered picture."""
SCALES_OF_KNOWN_POSES = (1.0, 0.7, 0.5)
"""Where poses are kept: all, a half and a quarter of the pixels that move."""
MOST_LATE = 3
"""Frames, for which what is said later can still be known."""
_TOO_LONG, _SHORT = 0.9, 0.8  # of the time per frame
_RECENT, _MOST_TOO_LONG = 5, 2
"""Pictures, and how many of them may take too long: other programs take time now and then."""
_LEARNED_AFTER = 25  # pictures at a resolution that tell how much less time they take
_PATIENCE = 50  # pictures at a resolution before a higher one is tried; doubled each time that it fails
_LONGEST_PATIENCE = 3200


class Quality:
    """Chooses the resolution of pictures, so that they take less than a time.

    Args:
        seconds: per picture.
        scales: of the sides, from 1 down.
    """

    def __init__(self, seconds: float, scales: tuple[float, ...] = SCALES):
        self._seconds, self._scales = seconds, scales
        self._level = 0
        self._times: deque[float] = deque(maxlen=_PATIENCE)
        """Of the last pictures at this resolution."""
        self._n = 0  # pictures at this resolution
        self._patience, self._was_raised = _PATIENCE, False
        # How much more time a picture takes at each resolution than at the next one: as many times as it has more
        # pixels, until it is known better, for not all that a picture takes depends on its pixels.
        self._ratios = [(a / b) ** 2 for a, b in itertools.pairwise(scales)]
        self._before = math.inf
        """Seconds of a picture at the higher resolution that was left for this one; infinite after a lower one."""

    @property
    def n_late(self) -> int:
        """Frames by which the next picture is expected to be late."""
        return min(MOST_LATE, max(0, math.ceil(self._recent / self._seconds) - 1))

    @property
    def scale(self) -> float:
        return self._scales[self._level]

    def add(self, seconds: float) -> None:
        """A picture took so long."""
        self._n += 1
        if self._n == 1 and self._level:
            return  # the first one at another resolution makes what later ones use again
        self._times.append(seconds)
        n_too_long = sum(time > _TOO_LONG * self._seconds for time in self._last)
        if n_too_long > _MOST_TOO_LONG:
            if self._level < len(self._scales) - 1:
                if self._was_raised and self._n < _PATIENCE:
                    self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
                self._before = median(self._times)
                self._change(1)
        elif self._level:
            typical = median(self._times)
            if self._n == _LEARNED_AFTER and self._before < math.inf:
                larger = (self._scales[self._level - 1] / self._scales[self._level]) ** 2
                self._ratios[self._level - 1] = min(max(self._before / typical, 1.0), larger)
            if self._n >= self._patience and typical * self._ratios[self._level - 1] < _SHORT * self._seconds:
                self._before = math.inf
                self._change(-1)

    @property
    def _last(self) -> list[float]:
        return list(self._times)[-_RECENT:]

    @property
    def _recent(self) -> float:
        """Seconds that a picture takes now, 0 if nothing is known."""
        return median(self._last) if self._times else 0.0

    def _change(self, by: int) -> None:
        self._level += by
        self._was_raised = by < 0
        self._n = 0
        self._times.clear()
