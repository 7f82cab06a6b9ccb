"""CSIM: cosine similarity of the identities in two images, by a face recognition network."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ernerf_ti.evaluation.identity import EMBEDDING, IResNet, embeddings, identity_crop, iresnet_for
from ernerf_ti.evaluation.mesh_metrics import Meshes, meshes_of, tracker_problem
from ernerf_ti.evaluation.metric import (
    ImageSequence,
    MetricValue,
    NotComputed,
    SequenceMetric,
    Setting,
    mean_over_frames,
)
from ernerf_ti.evaluation.weights import ARCFACE, find_weights, load_exactly, loading_problem, read_weights

_BATCH_SIZE = 16


class IdentitySimilarity(SequenceMetric):
    """How much the rendered face is the person of the true frame to a face recognizer.

    Args:
        folder: folder of the weights.
        device: where the network runs.
    """

    name, unit, better = "CSIM", "", "higher"
    description = (
        "Cosine of the angle between the embeddings of the image and of its true frame, by an IResNet trained with "
        "ArcFace [Deng et al. 2019]; 1 is the same face. Faces are cropped to 112 pixels by five points of MediaPipe's "
        "Face Mesh (eyes, nose, corners of the mouth), where others take those of RetinaFace. Values of different "
        "weights can't be compared."
    )

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        self._weights, self._device = find_weights(ARCFACE, folder), device

    def missing(self) -> NotComputed | None:
        return tracker_problem() or loading_problem(self._weights, lambda: self._network)

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        assert setting.truth is not None  # needs_truth
        found = []
        for images, which in ((setting.images, "rendered"), (setting.truth, "true")):
            if isinstance(meshes_of(images), NotComputed):
                return NotComputed(f"no face is found in the {which} images")
            found.append(images.cached(self.name, self._embeddings))
        return mean_over_frames((found[0] * found[1]).sum(1), setting.times, seed)

    def _embeddings(self, images: ImageSequence) -> np.ndarray:
        """[n, 512] of unit length, NaN in frames without a face."""
        meshes = meshes_of(images)
        assert isinstance(meshes, Meshes)
        vectors = np.full((len(images), EMBEDDING), np.nan, np.float32)
        known = np.flatnonzero(meshes.valid)
        for start in range(0, len(known), _BATCH_SIZE):
            batch = known[start : start + _BATCH_SIZE]
            crops = np.stack([identity_crop(images[int(i)], meshes.points[i]) for i in batch])
            vectors[batch] = embeddings(self._network, crops, self._device)
        return vectors

    @cached_property
    def _network(self) -> IResNet:
        assert not isinstance(self._weights, NotComputed)  # :meth:`missing` says so
        weights = read_weights(self._weights)
        network = iresnet_for(weights)
        load_exactly(network, weights, self._weights)
        return network.to(self._device).eval().requires_grad_(False)
