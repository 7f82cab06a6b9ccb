"""Choose the rendering scale that keeps a frame rate."""

import math

_STEP = 1 / 16
_KEEP = 0.3  # weight of a new measurement
_MARGIN = 0.9  # of the budget that a larger scale may use, so that it does not oscillate


class ScaleControl:
    """Finds the largest rendering scale that keeps a frame rate, from measured times.

    Args:
        n_pixels: of an image at scale 1.
        lowest: smallest scale to choose.
        scale: until the first measurement.
    """

    def __init__(self, n_pixels: int, lowest: float = 0.25, scale: float = 0.5):
        self.n_pixels, self.lowest, self.scale = n_pixels, lowest, scale
        self._per_pixel: float | None = None
        self._around: float | None = None

    def observe(self, n_pixels: int, rendering: float, around: float) -> None:
        """Add the measurement of one image.

        Args:
            n_pixels: in the image.
            rendering: seconds that depend on the number of pixels.
            around: seconds of everything else between two images.
        """
        self._per_pixel = _mean(self._per_pixel, rendering / n_pixels)
        self._around = _mean(self._around, around)

    def choose(self, rate: float) -> float:
        """The scale for a rate in images per second; it changes by at least a step of 1/16."""
        if self._per_pixel is None or self._around is None:
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
