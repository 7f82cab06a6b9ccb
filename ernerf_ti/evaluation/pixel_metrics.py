"""PSNR and SSIM of a crop."""

from typing import Literal

import numpy as np
import torch

from ernerf_ti.evaluation.metric import FrameMetric
from ernerf_ti.train.losses import psnr
from ernerf_ti.train.perceptual import dssim
from ernerf_ti.train.pixel_sampling import face_rectangle, lips_rectangle

Crop = Literal["frame", "face", "lips"]

CROPS: dict[Crop, str] = {
    "frame": "the whole frame",
    "face": "the box around the capture's 68 landmarks",
    "lips": "the square around the capture's outer-lip landmarks",
}


def cropped(picture: np.ndarray, landmarks: np.ndarray, crop: Crop) -> np.ndarray:
    """The part of a picture [H, W, 3] that a crop names; landmarks [68, 2]."""
    height, width = picture.shape[:2]
    if crop == "frame":
        return picture
    find = face_rectangle if crop == "face" else lips_rectangle
    row0, row1, column0, column1 = find(landmarks, height, width)
    return picture[row0:row1, column0:column1]


class Psnr(FrameMetric):
    """Peak signal to noise ratio."""

    unit, better = "dB", "higher"

    def __init__(self, crop: Crop):
        self.crop = crop
        self.name = f"PSNR {crop}"
        self.how = f"-10 log10 of the mean squared error of 8-bit RGB over {CROPS[crop]}, then the mean over frames"

    def of_frame(self, picture: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        a, b = (cropped(p, landmarks, self.crop).astype(np.float64) for p in (picture, truth))
        return psnr(float(np.square(a - b).mean()) / 255**2)


class Ssim(FrameMetric):
    """Structural similarity [Wang et al. 2004]."""

    unit, better = "", "higher"

    def __init__(self, crop: Crop):
        self.crop = crop
        self.name = f"SSIM {crop}"
        self.how = (
            f"Gaussian windows of 11 pixels (sigma 1.5; smaller in a crop with a side below 11) that lie within "
            f"{CROPS[crop]}, mean over them and the RGB channels"
        )

    def of_frame(self, picture: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        pair = (torch.from_numpy(cropped(p, landmarks, self.crop).copy()) for p in (picture, truth))
        a, b = (p.permute(2, 0, 1)[None].float() / 255 for p in pair)
        return 1 - 2 * float(dssim(a, b))
