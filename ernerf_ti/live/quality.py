"""Resolution that follows how long pictures take."""

SCALES = (1.0, 0.75, 0.5)
"""Of the sides of a rendered picture."""
_TOO_LONG, _SHORT = 0.9, 0.6  # of the time per frame
_WEIGHT = 0.3  # of the last picture in the mean
_PATIENCE = 50  # pictures at a resolution before a higher one is tried; doubled each time that it fails
_LONGEST_PATIENCE = 3200


class Quality:
    """Chooses the resolution of pictures, so that they take less than a time.

    Args:
        seconds: per picture.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._level = 0
        self._mean: float | None = None
        self._n = 0
        self._patience = _PATIENCE

    @property
    def scale(self) -> float:
        return SCALES[self._level]

    def add(self, seconds: float) -> None:
        """A picture took so long."""
        self._n += 1
        self._mean = seconds if self._mean is None else self._mean + _WEIGHT * (seconds - self._mean)
        if self._mean > _TOO_LONG * self._seconds:
            if self._level < len(SCALES) - 1:
                if self._n < _PATIENCE:  # soon after it was raised
                    self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
                self._change(1)
        elif self._level and self._n >= self._patience:
            expected = self._mean * (SCALES[self._level - 1] / SCALES[self._level]) ** 2
            if expected < _SHORT * self._seconds:
                self._change(-1)

    def _change(self, by: int) -> None:
        self._level += by
        self._mean, self._n = None, 0
