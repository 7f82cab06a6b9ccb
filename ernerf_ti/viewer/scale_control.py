"""How many pixels can be rendered in time."""

import math

_STEP = 1 / 16
_KEEP = 0.3  # weight of a new measurement
_MARGIN = 0.9  # of the budget that a larger scale may fill, so that it does not swing to and fro


class ScaleControl:
    """Finds the largest rendering scale that keeps a rate, from how long pictures took.

    Args:
        n_pixels: of a picture at scale 1.
        lowest: scale that is never gone below.
    """

    def __init__(self, n_pixels: int, lowest: float = 0.25):
        self.n_pixels, self.lowest = n_pixels, lowest
        self.scale = 0.5
        self._per_pixel: float | None = None
        self._around: float | None = None

    def observe(self, n_pixels: int, rendering: float, around: float) -> None:
        """Take in one picture.

        Args:
            n_pixels: of it.
            rendering: seconds that depend on the pixels.
            around: seconds of all else between two pictures.
        """
        self._per_pixel = _mean(self._per_pixel, rendering / n_pixels)
        self._around = _mean(self._around, around)

    def choose(self, rate: float) -> float:
        """The scale for a rate of pictures per second; changes by a step or more, or not at all."""
        if self._per_pixel is None:
            return self.scale
        budget = max(0.2 / rate, 1 / rate - self._around)
        fitting = math.sqrt(budget / (self._per_pixel * self.n_pixels))
        with_margin = math.sqrt(_MARGIN) * fitting
        if fitting < self.scale:
            self.scale = _STEP * math.floor(fitting / _STEP)
        elif with_margin >= self.scale + _STEP:
            self.scale = _STEP * math.floor(with_margin / _STEP)
        self.scale = min(max(self.scale, self.lowest), 1.0)
        return self.scale


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + _KEEP * (value - before)
