"""Person masks from MediaPipe's selfie segmentation."""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from ernerf_ti.preprocess.mediapipe_models import quiet, solutions


def person_masks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Probability of each pixel to show the person.

    The mean of both models over the frame and its mirror image, then the median over three frames, because single
    masks flicker at the edge.

    Args:
        frames: [H, W, 3] uint8 RGB each.

    Yields:
        [H, W] uint8 for each frame, 255 for probability 1.

    Raises:
        ImportError: mediapipe is not installed.
    """
    yield from median_of_three(_single_masks(frames))


def median_of_three(masks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Median of each mask with the previous and the next one; the first and last mask are repeated."""
    before: np.ndarray | None = None
    current: np.ndarray | None = None
    for after in masks:
        if before is not None and current is not None:
            yield _median(before, current, after)
        before, current = (after if current is None else current), after
    if before is not None and current is not None:
        yield _median(before, current, current)


def _median(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _single_masks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    segmentation = solutions().selfie_segmentation
    with contextlib.ExitStack() as stack:
        with quiet():
            general, landscape = (
                stack.enter_context(segmentation.SelfieSegmentation(model_selection=k)) for k in (0, 1)
            )
            for model in (general, landscape):  # start them here: their threads write to stderr
                model.process(np.zeros((64, 64, 3), np.uint8))
        for frame in frames:
            mirrored = np.ascontiguousarray(frame[:, ::-1])
            total = sum(model.process(frame).segmentation_mask for model in (general, landscape))
            total = total + sum(model.process(mirrored).segmentation_mask for model in (general, landscape))[:, ::-1]
            yield np.round(total * (255 / 4)).astype(np.uint8)
