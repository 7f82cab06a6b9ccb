"""The background without the person, estimated from the frames in which each pixel is unoccluded."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

PERSON = 128
"""Threshold of uint8 masks: pixels with this value or more belong to the person."""

_MARGIN = 1 / 64  # of the shorter side; pixels this close to the person are not used (8 px at 512)
_MAX_FRAMES = 256  # for the median; bounds the memory


@dataclass(frozen=True)
class Background:
    """The background of a clip."""

    image: np.ndarray
    """[H, W, 3] uint8 RGB."""
    seen: np.ndarray
    """[H, W] bool, visible in some frame; the rest is filled in from its surroundings."""
    spread: np.ndarray
    """[H, W] float32 median absolute deviation over time in gray levels, large where the background moves."""


def estimate_background(frames: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Background:
    """The median over time of each pixel, in the frames in which the person is not close to it.

    Args:
        frames: [H, W, 3] uint8 RGB each; may be read lazily.
        masks: [H, W] uint8 each, 255 for the person; may be read lazily.

    Raises:
        ValueError: no frames.
    """
    if len(frames) == 0:
        raise ValueError("frames: expected at least one, got none; decode the video first")
    step = max(4 if len(frames) >= 64 else 1, -(-len(frames) // _MAX_FRAMES))
    selected = range(0, len(frames), step)
    size = frames[0].shape[:2]
    margin = margin_of(size)
    stack = np.empty((len(selected), *size, 3), np.uint8)
    free = np.empty((len(selected), *size), bool)
    for i, k in enumerate(selected):
        stack[i] = frames[k]
        free[i] = distance_to_person(masks[k]) > margin
    image, seen, spread = np.zeros((*size, 3), np.uint8), np.any(free, 0), np.zeros(size, np.float32)
    for row in range(size[0]):  # by rows to save memory, as nanmedian needs floats
        values = np.where(free[:, row, :, None], stack[:, row].astype(np.float32), np.nan)
        columns = seen[row]
        if columns.any():
            median = np.nanmedian(values[:, columns], 0)
            image[row, columns] = np.round(median)
            spread[row, columns] = np.nanmedian(np.abs(values[:, columns] - median), 0).mean(-1)
    return Background(_fill(image, seen, margin), seen, spread)


def margin_of(size: tuple[int, ...]) -> int:
    """Width in pixels of the band around the person's outline in which the mask is uncertain."""
    return max(2, round(min(size) * _MARGIN))


def distance_to_person(mask: np.ndarray) -> np.ndarray:
    """[H, W] float32 distance in pixels to the nearest pixel of the person; infinite without a person."""
    outside = (mask < PERSON).astype(np.uint8)
    if outside.all():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _fill(image: np.ndarray, seen: np.ndarray, radius: int) -> np.ndarray:
    """Inpaint what was never visible, at low resolution, so that a hole the size of a person takes little time."""
    if seen.all() or not seen.any():
        return image
    scale = max(1, min(seen.shape) // 128)
    small_size = (seen.shape[1] // scale, seen.shape[0] // scale)
    weight = seen.astype(np.float32)
    small_weight = cv2.resize(weight, small_size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image * weight[..., None], small_size, interpolation=cv2.INTER_AREA)
    small = np.round(small / np.maximum(small_weight, 1e-6)[..., None]).astype(np.uint8)
    hole = (small_weight < 1e-3).astype(np.uint8)
    small = cv2.inpaint(small, hole, radius, cv2.INPAINT_TELEA)
    smooth = cv2.resize(cv2.GaussianBlur(small, (0, 0), 3), seen.shape[::-1], interpolation=cv2.INTER_CUBIC)
    # Blend at the edge of the hole.
    depth = cv2.distanceTransform(seen.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    blend = np.clip(depth / radius, 0, 1)[..., None]
    return np.round(blend * image + (1 - blend) * smooth).astype(np.uint8)
