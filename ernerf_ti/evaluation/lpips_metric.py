"""LPIPS [Zhang et al. 2018], with the package lpips."""

import warnings
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ernerf_ti.evaluation.metric import FrameMetric, NotComputed
from ernerf_ti.evaluation.weights import ALEXNET, VGG16, find_weights, load_exactly, loading_problem, read_weights


class Lpips(FrameMetric):
    """Learned perceptual distance of whole frames.

    Args:
        net: backbone, "alex" or "vgg".
        folder: folder of the weights.
        device: where it is computed.
    """

    unit, better = "", "lower"

    def __init__(self, net: Literal["alex", "vgg"], folder: Path, device: torch.device | str = "cpu"):
        self.net, self._device = net, device
        self._weights = find_weights(ALEXNET if net == "alex" else VGG16, folder)
        self.name = f"LPIPS {net}"
        self.description = (
            f"LPIPS version 0.1 with the {net} backbone, by the package lpips, on 8-bit RGB of the whole frame scaled "
            "to [-1, 1]."
        )

    def missing(self) -> NotComputed | None:
        return loading_problem(self._weights, lambda: self._network, "lpips")

    @torch.no_grad()
    def of_frame(self, image: np.ndarray, truth: np.ndarray, landmarks: np.ndarray) -> float:
        a, b = (
            torch.from_numpy(np.ascontiguousarray(array)).to(self._device).permute(2, 0, 1)[None] / 127.5 - 1
            for array in (image, truth)
        )
        return float(self._network(a, b))

    @cached_property
    def _network(self) -> torch.nn.Module:
        import lpips

        assert not isinstance(self._weights, NotComputed)  # :meth:`missing` says so
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls torchvision with deprecated arguments
            network = lpips.LPIPS(net=self.net, pnet_rand=True, verbose=False)
        # The backbone's weights are read here, so that nothing is downloaded and no pickle is executed.
        backbone, weights = network.net, read_weights(self._weights)
        # Layer 3, in slice 2, is slice2.3 in the package and features.3 in the file.
        renamed = {name: weights.get(f"features.{name.split('.', 1)[1]}") for name in backbone.state_dict()}
        load_exactly(backbone, {k: v for k, v in renamed.items() if v is not None}, self._weights)
        return network.to(self._device).eval().requires_grad_(False)
