"""Metrics of facial motion, from the face mesh found in true and in rendered images alike."""

import importlib.util
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ernerf_ti.evaluation.mesh_measures import action_measures, lid_aperture, mouth_measures
from ernerf_ti.evaluation.metric import (
    ImageSequence,
    MetricValue,
    NotComputed,
    SequenceMetric,
    Setting,
    mean_over_frames,
)
from ernerf_ti.evaluation.statistics import block_length, correlation, correlation_interval
from ernerf_ti.preprocess.blink import eye_closure
from ernerf_ti.preprocess.face_mesh import ibug_landmarks, track_face

_LIPS = slice(48, 68)
_MIN_FRAMES = 8
_CLOSED_LIPS = 0.02  # of the eye distance: the lips of a mesh with a closed mouth are 0 to 0.015 apart
_CLOSED_EYES = 0.8  # eye closure; 1 at a quarter of the open eye's aspect ratio
_EYE_DISTANCE = "% of eye distance"
_TRACKER = "MediaPipe's Face Mesh is tracked in the rendered and in the true images"


@dataclass(frozen=True)
class Meshes:
    """Face meshes of a sequence of images."""

    points: np.ndarray
    """[n, 478, 3] in pixels, NaN where no face is found."""
    valid: np.ndarray
    """[n] bool, whether the mesh can be trusted."""


def meshes_of(images: ImageSequence) -> Meshes | NotComputed:
    """The face mesh in each image, tracked once per sequence."""

    def track(images: ImageSequence) -> Meshes | NotComputed:
        try:
            found = track_face(images, len(images), progress=True)
        except ValueError as error:  # no face in any image
            return NotComputed(str(error))
        return Meshes(found.points, found.valid)

    return images.cached("meshes", track)


def tracker_problem() -> NotComputed | None:
    """Why faces can't be tracked; None if they can."""
    if importlib.util.find_spec("mediapipe") is None:
        return NotComputed(
            "needs the package mediapipe: pip install 'ernerf-ti[preprocess]', with Python 3.12 or older"
        )
    return None


class MeshMetric(SequenceMetric):
    """A metric that compares rendered and true meshes, over the frames where both are found."""

    def missing(self) -> NotComputed | None:
        return tracker_problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        assert setting.truth is not None  # needs_truth
        rendered, true = meshes_of(setting.images), meshes_of(setting.truth)
        if isinstance(rendered, NotComputed):
            return NotComputed("no face is found in the rendered images")
        if isinstance(true, NotComputed):
            return NotComputed("no face is found in the true images")
        both = rendered.valid & true.valid
        if not both.any():
            return NotComputed("no frame in which a face is found in both the rendered and the true image")
        return self.of_meshes(rendered.points[both], true.points[both], both, setting.times, seed)

    @abstractmethod
    def of_meshes(
        self, rendered: np.ndarray, true: np.ndarray, both: np.ndarray, times: np.ndarray, seed: int
    ) -> MetricValue | NotComputed:
        """Value for meshes [N, 478, 3] of the frames where `both` [n] holds, at `times` [n]."""


class MeshError(MeshMetric):
    """A mean difference between rendered and true meshes.

    Args:
        name, unit, description: of the metric.
        error: rendered and true meshes [N, 478, 3] -> [N], NaN for frames to leave out.
    """

    better = "lower"

    def __init__(self, name: str, unit: str, description: str, error: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self.name, self.unit, self.description, self._error = name, unit, f"{description} {_TRACKER}.", error

    def of_meshes(
        self, rendered: np.ndarray, true: np.ndarray, both: np.ndarray, times: np.ndarray, seed: int
    ) -> MetricValue | NotComputed:
        return mean_over_frames(spread(self._error(rendered, true), both), times, seed)


class MeshCorrelation(MeshMetric):
    """Pearson's r between a motion in the rendered and in the true images.

    Args:
        name, description: of the metric.
        motion: meshes [N, 478, 3] -> [N].
    """

    unit, better = "r", "higher"

    def __init__(self, name: str, description: str, motion: Callable[[np.ndarray], np.ndarray]):
        self.name, self.description, self._motion = name, f"Pearson's r of {description}. {_TRACKER}.", motion

    def of_meshes(
        self, rendered: np.ndarray, true: np.ndarray, both: np.ndarray, times: np.ndarray, seed: int
    ) -> MetricValue | NotComputed:
        return correlate({"true": self._motion(true), "rendered": self._motion(rendered)}, both, times, seed)


class ClosedEyeAperture(MeshMetric):
    """How far the rendered lids are apart while the true eyes are closed.

    Eye closure is relative to the sequence's own open eyes, so that its correlation is blind to an iris that shines
    through closed lids; this is an absolute length.
    """

    name, unit, better = "closed-eye lid aperture", _EYE_DISTANCE, "lower"
    description = (
        "Mean distance between the rendered upper and lower lids (averaged over both eyes, relative to the distance "
        f"between the eyes) in the frames whose true eyes are closed (closure of {_CLOSED_EYES:g} or more, 1 at a "
        "quarter of the open eye's aspect ratio). The note gives the true aperture in these frames, which is what "
        f"the rendered one should be. {_TRACKER}."
    )

    def of_meshes(
        self, rendered: np.ndarray, true: np.ndarray, both: np.ndarray, times: np.ndarray, seed: int
    ) -> MetricValue | NotComputed:
        closed = eye_closure(true) >= _CLOSED_EYES
        if not closed.any():
            return NotComputed("no frame with closed eyes")
        apertures = {name: 100 * lid_aperture(points) for name, points in (("true", true), ("rendered", rendered))}
        values = np.where(closed, apertures["rendered"], np.nan)
        note = f"true aperture {apertures['true'][closed].mean():.2f} {self.unit}"
        curves = {name: spread(aperture, both) for name, aperture in apertures.items()}
        return mean_over_frames(spread(values, both), times, seed, note, **curves)


def correlate(
    motions: dict[str, np.ndarray], known: np.ndarray, times: np.ndarray, seed: int
) -> MetricValue | NotComputed:
    """Pearson's r of two motions with its confidence interval.

    Args:
        motions: two arrays [N] by name, for the known frames.
        known: [n] bool, N of them true.
        times: [n] int, at 25 fps.
        seed: seed of the bootstrap.
    """
    n = int(known.sum())
    if n < _MIN_FRAMES:
        return NotComputed(f"expected {_MIN_FRAMES} frames with a face or more, got {n}")
    if min(map(np.ptp, motions.values())) < 1e-9:
        return NotComputed("nothing moves")
    a, b = (motion[:, None] for motion in motions.values())
    block = block_length(times[known])
    assert block is not None  # there are enough frames
    low, high = correlation_interval(a, b, block, seed)[0]
    curves = {name: spread(motion, known) for name, motion in motions.items()}
    return MetricValue(float(correlation(a, b)[0]), (float(low), float(high)), None, n, curves=curves)


def spread(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values [N] of the known frames -> [n], NaN elsewhere."""
    result = np.full(len(known), np.nan)
    result[known] = values
    return result


def lip_distance(rendered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N] mean distance in pixels between the 20 lip landmarks, each set centered at its mean."""
    lips = [ibug_landmarks(points)[:, _LIPS] for points in (rendered, true)]
    a, b = (points - points.mean(1, keepdims=True) for points in lips)
    return np.linalg.norm(a - b, axis=-1).mean(1)


def action_error(part: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Mean difference of the measures of the upper (0) or the lower (1) face, in percent of the eye distance."""

    def error(rendered: np.ndarray, true: np.ndarray) -> np.ndarray:
        a, b = (action_measures(points)[part] for points in (rendered, true))
        return 100 * np.abs(a - b).mean(1)

    return error


def closed_lip_gap(rendered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N] distance between the rendered inner lips in percent of the eye distance; NaN where the true ones are open."""
    gap, true_gap = (mouth_measures(points)[:, 0] for points in (rendered, true))
    return np.where(true_gap < _CLOSED_LIPS, 100 * gap, np.nan)


def mesh_metrics() -> list[MeshMetric]:
    """All metrics of the face mesh, in the order of the tables."""
    actions = "Mean difference of {} lengths of the {} face ({}): a mesh-based action unit error, without OpenFace."
    return [
        MeshError(
            "LMD",
            "px",
            "Landmark distance: mean distance of the lip landmarks 48 to 67, each set centered at its mean, in pixels "
            "of the true frames.",
            lip_distance,
        ),
        MeshError("mesh AUE upper", _EYE_DISTANCE, actions.format(4, "upper", "brows and lids"), action_error(0)),
        MeshError("mesh AUE lower", _EYE_DISTANCE, actions.format(5, "lower", "lips and jaw"), action_error(1)),
        MeshError(
            "closed-lip gap",
            _EYE_DISTANCE,
            "Mean distance between the rendered inner lips in the frames whose true lips are closed (less than "
            f"{100 * _CLOSED_LIPS:g} % of the eye distance apart): at p, b, m and in pauses.",
            closed_lip_gap,
        ),
        ClosedEyeAperture(),
        MeshCorrelation(
            "mouth-opening correlation",
            "the distance between the inner lips relative to that between the eyes",
            lambda points: mouth_measures(points)[:, 0],
        ),
        MeshCorrelation("blink correlation", "eye closure", eye_closure),
    ]
