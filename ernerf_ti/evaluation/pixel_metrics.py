"""PSNR and SSIM of a crop."""

from typing import Literal

import numpy as np
import torch

from ernerf_ti.evaluation.metric import FrameMetric
from ernerf_ti.train.losses import psnr
from ernerf_ti.train.perceptual import dssim
from ernerf_ti.train.pixel_sampling import eyes_rectangle, face_rectangle, lips_rectangle

Crop = Literal["frame", "face", "lips", "eyes"]

CROPS: dict[Crop, str] = {
    "frame": "the whole frame",
    "face": "the bounding box of the true frame's 68 landmarks",
    "lips": "the square around the true frame's outer-lip landmarks",
    "eyes": "the box around the true frame's eye landmarks and a tenth of its width more",
}

_RECTANGLES = {"face": face_rectangle, "lips": lips_rectangle, "eyes": eyes_rectangle}


def cropped(image: np.ndarray, landmarks: np.ndarray, crop: Crop) -> np.ndarray:
    """Crop of an image [H, W, 3], placed by landmarks [68, 2]."""
    height, width = image.shape[:2]
    if crop == "frame":
        return image
    row0, row1, column0, column1 = _RECTANGLES[crop](landmarks, height, width)
    return image[row0:row1, column0:column1]


class Psnr(FrameMetric):
    """Peak signal-to-noise ratio."""

    unit, better = "dB", "higher"

    def __init__(self, crop: Crop):
        self.crop = crop
        self.name = f"PSNR {crop}"
        self.description = (
            f"-10 log10 of the mean squared error of 8-bit RGB over {CROPS[crop]}, averaged over the frames."
        )

    def of_frame(self, image: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        a, b = (cropped(array, landmarks, self.crop).astype(np.float64) for array in (image, truth))
        return psnr(float(np.square(a - b).mean()) / 255**2)


class Ssim(FrameMetric):
    """Structural similarity [Wang et al. 2004]."""

    unit, better = "", "higher"

    def __init__(self, crop: Crop):
        self.crop = crop
        self.name = f"SSIM {crop}"
        self.description = (
            f"Structural similarity with Gaussian windows of 11 pixels (sigma 1.5; smaller in crops under 11 pixels "
            f"wide or high) inside {CROPS[crop]}, averaged over windows, RGB channels and frames."
        )

    def of_frame(self, image: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        pair = (torch.from_numpy(cropped(array, landmarks, self.crop).copy()) for array in (image, truth))
        a, b = (tensor.permute(2, 0, 1)[None].float() / 255 for tensor in pair)
        return 1 - 2 * float(dssim(a, b))
