"""The background without the person, from the frames in which each pixel is free."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

PERSON = 128
"""From this value of a uint8 mask on a pixel belongs to the person."""

_MARGIN = 1 / 64  # of the picture's side: nearer to the person a pixel is not trusted (8 px at 512)
_MOST_FRAMES = 256  # of a clip: the median needs no more, and this bounds the memory


@dataclass(frozen=True)
class BackgroundPlate:
    image: np.ndarray
    """[H, W, 3] uint8 RGB."""
    seen: np.ndarray
    """[H, W] bool; the rest is filled in from its surroundings."""
    spread: np.ndarray
    """[H, W] float32: median absolute deviation over time, in gray levels; large where the background moves."""


def background_plate(frames: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> BackgroundPlate:
    """The median over time of each pixel where it is far from the person.

    Args:
        frames: [H, W, 3] uint8 RGB each; sequences may read lazily.
        masks: [H, W] uint8 each, 255 for the person.

    Raises:
        ValueError: no frames.
    """
    if len(frames) == 0:
        raise ValueError("frames: expected at least one, got none; decode the video first")
    step = max(4 if len(frames) >= 64 else 1, -(-len(frames) // _MOST_FRAMES))
    chosen = range(0, len(frames), step)
    size = frames[0].shape[:2]
    margin = margin_of(size)
    stack = np.empty((len(chosen), *size, 3), np.uint8)
    free = np.empty((len(chosen), *size), bool)
    for i, k in enumerate(chosen):
        stack[i] = frames[k]
        free[i] = distance_to_person(masks[k]) > margin
    image, seen, spread = np.zeros((*size, 3), np.uint8), free.any(0), np.zeros(size, np.float32)
    for row in range(size[0]):  # a row at a time, as masked medians take floats
        values = np.where(free[:, row, :, None], stack[:, row].astype(np.float32), np.nan)
        columns = seen[row]
        if columns.any():
            median = np.nanmedian(values[:, columns], 0)
            image[row, columns] = np.round(median)
            spread[row, columns] = np.nanmedian(np.abs(values[:, columns] - median), 0).mean(-1)
    return BackgroundPlate(_fill(image, seen, margin), seen, spread)


def margin_of(size: tuple[int, int]) -> int:
    """How many pixels around the person's outline belong to neither side for certain."""
    return max(2, round(min(size) * _MARGIN))


def distance_to_person(mask: np.ndarray) -> np.ndarray:
    """[H, W] float32: pixels to the nearest pixel of the person; very large without a person."""
    outside = (mask < PERSON).astype(np.uint8)
    if outside.all():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _fill(image: np.ndarray, seen: np.ndarray, radius: int) -> np.ndarray:
    """Continue the seen part into the hole: coarse to fine, so that a hole the size of a person is quick."""
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
    # The seen part goes over into the fill without a step.
    depth = cv2.distanceTransform(seen.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    blend = np.clip(depth / radius, 0, 1)[..., None]
    return np.round(blend * image + (1 - blend) * smooth).astype(np.uint8)
