"""Fréchet Inception distance [Heusel et al. 2017], with the package torch-fidelity."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ernerf_ti.evaluation.metric import ImageSequence, MetricValue, NotComputed, SequenceMetric, Setting
from ernerf_ti.evaluation.weights import INCEPTION, find_weights, loading_problem, read_weights

_LAYER = "2048"
_BATCH_SIZE = 16
_FULL_RANK = 2048


class Fid(SequenceMetric):
    """Distance between the Inception features of rendered and true frames.

    Args:
        folder: folder of the weights.
        device: where the features are computed.
    """

    name, unit, better = "FID", "", "lower"
    description = (
        "Fréchet distance between Inception's 2048 pooled features of the rendered and the true held-out frames, whole "
        "8-bit frames, by torch-fidelity. It depends on the number of frames: compare only runs with equally many."
    )

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        self._weights, self._device = find_weights(INCEPTION, folder), device

    def missing(self) -> NotComputed | None:
        return loading_problem(self._weights, lambda: self._extractor, "torch-fidelity")

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

        if len(setting) < 2:
            return NotComputed("a covariance needs two frames or more")
        assert setting.truth is not None  # needs_truth
        true, rendered = (images.cached(self.name, self._statistics) for images in (setting.truth, setting.images))
        note = "fewer frames than features: biased" if len(setting) < _FULL_RANK else ""
        value = fid_statistics_to_metric(true, rendered, verbose=False)[KEY_METRIC_FID]
        return MetricValue(float(value), None, None, len(setting), note)

    @torch.no_grad()
    def _statistics(self, images: ImageSequence) -> dict[str, np.ndarray]:
        from torch_fidelity.metric_fid import fid_features_to_statistics

        features = []
        for start in tqdm(range(0, len(images), _BATCH_SIZE), "Inception features", unit="batch", leave=False):
            batch = np.stack([images[i] for i in range(start, min(start + _BATCH_SIZE, len(images)))])
            features.append(self._extractor(torch.from_numpy(batch).permute(0, 3, 1, 2).to(self._device))[0].cpu())
        return fid_features_to_statistics(torch.cat(features).double())

    @cached_property
    def _extractor(self) -> torch.nn.Module:
        from torch_fidelity import FeatureExtractorInceptionV3

        assert not isinstance(self._weights, NotComputed)  # :meth:`missing` says so
        read_weights(self._weights)  # the package loads with pickle: check first that the file holds tensors alone
        extractor = FeatureExtractorInceptionV3("inception", [_LAYER], str(self._weights))
        return extractor.to(self._device)
