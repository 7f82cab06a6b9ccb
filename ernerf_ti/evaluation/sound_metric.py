"""Whether a mouth opens when the sound says so: a metric of lip synchrony that needs no weights and no true video."""

from functools import cached_property

import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.evaluation.mesh_measures import lip_opening
from ernerf_ti.evaluation.mesh_metrics import measured_correlation, meshes_of, without_tracker
from ernerf_ti.evaluation.metric import Measured, NotComputed, SequenceMetric, Setting
from ernerf_ti.evaluation.ridge import Predictor, fit_ridge
from ernerf_ti.preprocess.face_mesh import ibug_landmarks

_LEAST_FRAMES = 50  # to fit; their last fifth chooses the penalty
_MOST_FRAMES = 3000  # 2 minutes; more change little and take long


class SoundToMouth(SequenceMetric):
    """Correlation of the rendered mouth's opening with the one that the sound lets expect.

    What is expected is learned from the training part of the capture, true mouths and their sound.

    Args:
        capture: whose.
    """

    name, unit, better = "sound to mouth r", "r", "higher"
    needs_truth = False

    def __init__(self, capture: Capture):
        self._capture = capture
        self.how = (
            f"Pearson's r between the opening of the inner lips in the pictures and the opening that a ridge "
            f"regression predicts from the sound ({capture.extractor} windows); it is fitted to the capture's training "
            f"frames, {min(len(capture.train), _MOST_FRAMES)} of them"
        )

    def missing(self) -> NotComputed | None:
        if len(self._capture.train) < _LEAST_FRAMES:
            return NotComputed(f"expected {_LEAST_FRAMES} training frames or more, got {len(self._capture.train)}")
        return without_tracker()

    def measure(self, setting: Setting, seed: int) -> Measured | NotComputed:
        meshes = meshes_of(setting.pictures)
        if isinstance(meshes, NotComputed):
            return meshes
        seen = meshes.valid
        if not seen.any():
            return NotComputed("no face is found in the pictures")
        motions = {
            "expected": self._predict(setting.windows[seen])[:, 0],
            "in the pictures": lip_opening(ibug_landmarks(meshes.points[seen])),
        }
        return measured_correlation(motions, seen, setting.times, seed)

    @cached_property
    def _predict(self) -> Predictor:
        split = self._capture.train
        chosen = np.linspace(0, len(split) - 1, min(len(split), _MOST_FRAMES)).astype(int)
        landmarks = np.stack([self._capture.landmarks(k) for k in split.frame_ids[chosen]])
        return fit_ridge(self._capture.audio_windows[split.audio_ids[chosen]], lip_opening(landmarks)[:, None])
