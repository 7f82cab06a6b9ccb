"""The segmentation masks of a capture's held-out frames, for metrics that look at a part of the frame."""

import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.evaluation.metric import NotComputed


class HeldOutLabels:
    """Segmentation masks of held-out frames, found by the index of a frame's audio window.

    Args:
        capture: the portrait's capture.
    """

    def __init__(self, capture: Capture):
        self._capture = capture
        self._frame_ids = dict(zip(capture.val.audio_ids.tolist(), capture.val.frame_ids.tolist(), strict=True))

    def problem(self) -> NotComputed | None:
        """Why there are no masks, if there are none."""
        if all(self._capture.paths.labels(k).is_file() for k in self._capture.val.frame_ids):
            return None
        return NotComputed("expected the capture's segmentation masks, got none; preprocess the video again")

    def __getitem__(self, time: int) -> np.ndarray:
        """[H, W] uint8: 0 background, 1 head, 2 neck, 3 torso."""
        return self._capture.labels(self._frame_ids[int(time)])
