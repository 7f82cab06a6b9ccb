"""LPIPS [Zhang et al. 2018], with the package lpips."""

import warnings
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ernerf_ti.evaluation.metric import FrameMetric, NotComputed
from ernerf_ti.evaluation.weights import ALEXNET, VGG16, find_weights, load_exactly, read_weights, what_is_missing


class Lpips(FrameMetric):
    """Learned perceptual distance of whole frames.

    Args:
        net: the trunk, "alex" or "vgg".
        folder: of the weights.
        device: where it is computed.
    """

    unit, better = "", "lower"

    def __init__(self, net: Literal["alex", "vgg"], folder: Path, device: torch.device | str = "cpu"):
        self.net, self._device = net, device
        self._weights = find_weights(ALEXNET if net == "alex" else VGG16, folder)
        self.name = f"LPIPS {net}"
        self.how = f"package lpips 0.1 with {net} and its linear heads, 8-bit RGB of the whole frame in [-1, 1]"

    def missing(self) -> NotComputed | None:
        return what_is_missing(self._weights, lambda: self._network, "lpips")

    @torch.no_grad()
    def of_frame(self, picture: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        a, b = (
            torch.from_numpy(np.ascontiguousarray(p)).to(self._device).permute(2, 0, 1)[None] / 127.5 - 1
            for p in (picture, truth)
        )
        return float(self._network(a, b))

    @cached_property
    def _network(self) -> torch.nn.Module:
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls torchvision with arguments of the past
            network = lpips.LPIPS(net=self.net, pnet_rand=True, verbose=False)
        # The trunk's weights are read here, so that nothing is downloaded and nothing of the file executed.
        trunk, weights = network.net, read_weights(self._weights)
        # Slice 2 holds layer 3 as slice2.3; the file has it as features.3.
        renamed = {name: weights.get(f"features.{name.split('.', 1)[1]}") for name in trunk.state_dict()}
        load_exactly(trunk, {k: v for k, v in renamed.items() if v is not None}, self._weights)
        return network.to(self._device).eval().requires_grad_(False)
