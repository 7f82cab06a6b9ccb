"""How visible the seam between the rendered head and the torso is."""

import cv2
import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import HEAD, NECK, TORSO
from ernerf_ti.evaluation.held_out_labels import HeldOutLabels
from ernerf_ti.evaluation.metric import MetricValue, NotComputed, SequenceMetric, Setting, mean_over_frames

_REFERENCE = 256  # height of the frame for which widths in pixels are given
_HALF_WIDTH = 1  # px, of the band
_WITHOUT_TORSO = "head_only"


class Seam(SequenceMetric):
    """Difference of the brightness gradient across the border between head and torso from that of the true frame.

    Let s be the derivative of the brightness (the mean of the 8-bit RGB channels, central differences) in the direction
    that is normal to the border between the head's labels and those of neck and torso in the capture's segmentation
    mask. The metric is the mean of |s - s_true| over the pixels of a band along that border, 2 pixels wide at 256x256.
    A line or a gap at the seam, blur and a displaced torso all count; the note has the means of |s|, the one of the
    frames being larger for lines and smaller for blur.

    Args:
        capture: the portrait's capture; frames are found in its held-out split.
    """

    name, unit, better = "seam", "gray levels/px", "lower"
    description = (
        "Mean absolute difference from the true frame of the brightness gradient across the border between head and "
        "torso (by the capture's segmentation masks), in a band 2 pixels wide at 256x256."
    )

    def __init__(self, capture: Capture):
        self._labels = HeldOutLabels(capture)

    def missing(self) -> NotComputed | None:
        return self._labels.problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        if setting.name == _WITHOUT_TORSO:
            return NotComputed("there is no torso")
        assert setting.truth is not None  # it needs it
        values = np.full((len(setting), 3), np.nan)
        for i, time in enumerate(setting.times):
            values[i] = seam_gradients(setting.images[i], setting.truth[i], self._labels[time])
        if not np.isfinite(values).any():
            return NotComputed("no frame has a border between head and torso")
        shown, true = np.nanmean(values[:, 1:], 0)
        note = f"mean gradient {shown:.2f}, {true:.2f} in the true frames"
        return mean_over_frames(values[:, 0], setting.times, seed, note)


def seam_gradients(image: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Brightness gradients across the border between head and torso of a frame, see :class:`Seam`.

    Args:
        image, truth: [H, W, 3] uint8 RGB.
        labels: [H, W] uint8: 0 background, 1 head, 2 neck, 3 torso.

    Returns:
        The mean difference, and the mean absolute gradients of image and truth, gray levels per pixel; NaN without a
        border.
    """
    scale = len(labels) / _REFERENCE
    head, torso = (np.isin(labels, kinds).astype(np.uint8) for kinds in ((HEAD,), (NECK, TORSO)))
    band = (_grown(head, _HALF_WIDTH * scale) & _grown(torso, _HALF_WIDTH * scale)).astype(bool)
    if not band.any():
        return (np.nan,) * 3
    # The difference of both masks: where the head ends at the background, the border's direction is not affected.
    smooth = cv2.GaussianBlur(head.astype(np.float64) - torso, (0, 0), 2 * scale)
    normal = np.stack(np.gradient(smooth))
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-9)
    shown, true = ((normal * np.gradient(picture.mean(2), axis=(0, 1))).sum(0)[band] for picture in (image, truth))
    return float(np.abs(shown - true).mean()), float(np.abs(shown).mean()), float(np.abs(true).mean())


def _grown(values: np.ndarray, radius: float) -> np.ndarray:
    """The maximum within a square of a radius in pixels, at least 1."""
    side = 2 * max(1, round(radius)) + 1
    return cv2.dilate(values, np.ones((side, side), np.uint8))
