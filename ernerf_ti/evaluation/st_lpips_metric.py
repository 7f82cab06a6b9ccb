"""ST-LPIPS [Ghildyal and Liu 2022] of whole frames and of the lips."""

from functools import cached_property
from typing import Literal

import numpy as np
import torch

from ernerf_ti.evaluation.metric import FrameMetric, NotComputed
from ernerf_ti.evaluation.pixel_metrics import CROPS, cropped
from ernerf_ti.train.st_lpips import ALEX, MIN_SIDE, StLpips, load_st_lpips


class StLpipsMetric(FrameMetric):
    """Perceptual distance that tolerates shifts of a few pixels; not comparable with LPIPS.

    Args:
        crop: what of the frame is compared.
        device: where it is computed.
    """

    unit, better = "", "lower"

    def __init__(self, crop: Literal["frame", "lips"], device: torch.device | str = "cpu"):
        self.crop: Literal["frame", "lips"] = crop
        self._device = device
        self.name = f"ST-LPIPS {crop}"
        self.description = (
            f"Shift-tolerant LPIPS with the AlexNet-shaped weights of {ALEX.package} {ALEX.version}, on 8-bit RGB of "
            f"{CROPS[crop]}, continued to {MIN_SIDE} pixels where smaller. Its values are not those of LPIPS."
        )

    def missing(self) -> NotComputed | None:
        try:
            _ = self._network
        except (FileNotFoundError, ValueError) as error:
            return NotComputed(str(error))
        return None

    @torch.no_grad()
    def of_frame(self, image: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        pair = (torch.from_numpy(cropped(array, landmarks, self.crop).copy()) for array in (image, truth))
        a, b = (tensor.to(self._device).permute(2, 0, 1)[None] / 255 for tensor in pair)
        return float(self._network(a, b))

    @cached_property
    def _network(self) -> StLpips:
        return load_st_lpips().to(self._device)
