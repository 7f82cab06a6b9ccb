"""No-reference measure of image blur."""

import cv2
import numpy as np

_TAPS = 9


def blur(gray: np.ndarray) -> float:
    """Fraction of the variation between neighboring pixels that further blurring preserves: 0 sharp, 1 blurred.

    The maximum over both directions. [Crete et al., "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric", 2007]

    Args:
        gray: [H, W] uint8.
    """
    image = gray.astype(np.float32)
    return max(_blur_along(image, axis) for axis in (0, 1))


def _blur_along(image: np.ndarray, axis: int) -> float:
    size = (1, _TAPS) if axis == 0 else (_TAPS, 1)
    blurred = cv2.blur(image, size, borderType=cv2.BORDER_REPLICATE)
    variation = np.abs(np.diff(image, axis=axis))
    lost = np.maximum(0, variation - np.abs(np.diff(blurred, axis=axis)))
    total = float(variation.sum())
    return (total - float(lost.sum())) / total if total > 0 else 1.0
