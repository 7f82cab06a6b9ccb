"""Correlation between mouth opening and sound: lip synchrony without network weights or a ground-truth video."""

from functools import cached_property

import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.mouth import lip_opening
from ernerf_ti.evaluation.mesh_metrics import correlate, meshes_of, tracker_problem
from ernerf_ti.evaluation.metric import MetricValue, NotComputed, SequenceMetric, Setting
from ernerf_ti.evaluation.ridge import Predictor, fit_ridge
from ernerf_ti.preprocess.face_mesh import ibug_landmarks

_MIN_FRAMES = 50  # to fit the regression; the last fifth selects its penalty
_MAX_FRAMES = 3000  # 2 minutes; more change little and take long


class SoundToMouth(SequenceMetric):
    """Correlation of the rendered mouth opening with the one predicted from the sound.

    The prediction is fitted on the true mouths and the sound of the capture's training frames.

    Args:
        capture: the portrait's capture.
    """

    name, unit, better = "sound-to-mouth correlation", "r", "higher"
    needs_truth = False

    def __init__(self, capture: Capture):
        self._capture = capture
        self.description = (
            "Pearson's r between the opening of the inner lips in the images and the opening that a ridge regression "
            f"predicts from the sound ({capture.extractor} windows). The regression is fitted on "
            f"{min(len(capture.train), _MAX_FRAMES)} training frames of the capture."
        )

    def missing(self) -> NotComputed | None:
        if len(self._capture.train) < _MIN_FRAMES:
            return NotComputed(f"expected {_MIN_FRAMES} training frames or more, got {len(self._capture.train)}")
        return tracker_problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        meshes = meshes_of(setting.images)
        if isinstance(meshes, NotComputed):
            return meshes
        seen = meshes.valid
        if not seen.any():
            return NotComputed("no face is found in the images")
        curves = {
            "predicted": self._predict(setting.windows[seen])[:, 0],
            "in the images": lip_opening(ibug_landmarks(meshes.points[seen])),
        }
        return correlate(curves, seen, setting.times, seed)

    @cached_property
    def _predict(self) -> Predictor:
        split = self._capture.train
        chosen = np.linspace(0, len(split) - 1, min(len(split), _MAX_FRAMES)).astype(int)
        landmarks = np.stack([self._capture.landmarks(k) for k in split.frame_ids[chosen]])
        return fit_ridge(self._capture.audio_windows[split.audio_ids[chosen]], lip_opening(landmarks)[:, None])
