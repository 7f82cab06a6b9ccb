"""The square crop around head and shoulders, the same for the whole clip so that the background stays still."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Crop:
    """A square in pixels of the upright source video."""

    x: int
    y: int
    side: int

    def __call__(self, frame: np.ndarray, size: int) -> np.ndarray:
        """Crop [H, W, 3] and resize to [size, size, 3]."""
        cut = frame[self.y : self.y + self.side, self.x : self.x + self.side]
        if self.side == size:
            return np.ascontiguousarray(cut)
        return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if self.side > size else cv2.INTER_CUBIC)
