"""The Frechet distance of Inception features [Heusel et al. 2017], with the package torch-fidelity."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ernerf_ti.evaluation.metric import Measured, NotComputed, Pictures, SequenceMetric, Setting
from ernerf_ti.evaluation.weights import INCEPTION, find_weights, read_weights, what_is_missing

_LAYER = "2048"
_BATCH = 16
_FULL_RANK = 2048


class Fid(SequenceMetric):
    """Distance between the features of rendered and true frames.

    Args:
        folder: of the weights.
        device: where the features are computed.
    """

    name, unit, better = "FID", "", "lower"

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        self._weights, self._device = find_weights(INCEPTION, folder), device
        self.how = (
            "Inception's 2048 pooled features of whole 8-bit frames, by torch-fidelity, between the rendered and the "
            "true held-out frames; it depends on their number, so that only runs with as many frames compare"
        )

    def missing(self) -> NotComputed | None:
        return what_is_missing(self._weights, lambda: self._extractor, "torch-fidelity")

    def measure(self, setting: Setting, seed: int) -> Measured | NotComputed:
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

        if len(setting) < 2:
            return NotComputed("a covariance needs two frames or more")
        true, rendered = (p.once(self.name, self._statistics) for p in (setting.truth, setting.pictures))
        note = "fewer frames than features: biased" if len(setting) < _FULL_RANK else ""
        value = fid_statistics_to_metric(true, rendered, verbose=False)[KEY_METRIC_FID]
        return Measured(float(value), None, None, len(setting), note)

    @torch.no_grad()
    def _statistics(self, pictures: Pictures) -> dict[str, np.ndarray]:
        from torch_fidelity.metric_fid import fid_features_to_statistics

        features = []
        for begin in tqdm(range(0, len(pictures), _BATCH), "Inception features", unit="batch", leave=False):
            batch = np.stack([pictures[i] for i in range(begin, min(begin + _BATCH, len(pictures)))])
            features.append(self._extractor(torch.from_numpy(batch).permute(0, 3, 1, 2).to(self._device))[0].cpu())
        return fid_features_to_statistics(torch.cat(features).double())

    @cached_property
    def _extractor(self) -> torch.nn.Module:
        from torch_fidelity import FeatureExtractorInceptionV3

        read_weights(self._weights)  # the package would execute what is in the file: look first
        extractor = FeatureExtractorInceptionV3("inception", [_LAYER], str(self._weights))
        return extractor.to(self._device)
