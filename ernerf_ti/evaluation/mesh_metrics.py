"""Metrics of what the face does, by the mesh that is found in true and in rendered pictures alike."""

import importlib.util
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ernerf_ti.evaluation.mesh_measures import action_measures, mouth_measures
from ernerf_ti.evaluation.metric import (
    Measured,
    NotComputed,
    Pictures,
    SequenceMetric,
    Setting,
    measured_frames,
)
from ernerf_ti.evaluation.statistics import block_length, correlation, correlation_interval
from ernerf_ti.preprocess.blink import eye_closure
from ernerf_ti.preprocess.face_mesh import ibug_landmarks, track_face

_LIPS = slice(48, 68)
_LEAST_FRAMES = 8
_CLOSED = 0.02  # of the eyes' distance: between the lips of a mesh whose mouth is shut there are 0 to 0.015
_TRACKER = "MediaPipe's Face Mesh, found anew in the rendered and in the true pictures"


@dataclass(frozen=True)
class Meshes:
    """Of a row of pictures."""

    points: np.ndarray
    """[n, 478, 3] in pixels, NaN where there is none."""
    valid: np.ndarray
    """[n] bool: where it can be trusted."""


def meshes_of(pictures: Pictures) -> Meshes | NotComputed:
    """The face in each of the pictures, looked for once."""

    def find(pictures: Pictures) -> Meshes | NotComputed:
        try:
            track = track_face(pictures, len(pictures), progress=True)
        except ValueError as error:  # no face in any picture
            return NotComputed(str(error))
        return Meshes(track.points, track.valid)

    return pictures.once("meshes", find)


def without_tracker() -> NotComputed | None:
    if importlib.util.find_spec("mediapipe") is None:
        return NotComputed(
            "needs the package mediapipe: with Python 3.12 or older, pip install 'ernerf-ti[preprocess]'"
        )
    return None


class MeshMetric(SequenceMetric):
    """A metric of the meshes of rendered and true pictures, over the frames where both are found."""

    def missing(self) -> NotComputed | None:
        return without_tracker()

    def measure(self, setting: Setting, seed: int) -> Measured | NotComputed:
        rendered, true = meshes_of(setting.pictures), meshes_of(setting.truth)
        for found, whose in ((rendered, "rendered"), (true, "true")):
            if isinstance(found, NotComputed):
                return NotComputed(f"no face is found in the {whose} pictures")
        both = rendered.valid & true.valid
        if not both.any():
            return NotComputed("no frame in which a face is found in the rendered and the true picture")
        return self.of_meshes(rendered.points[both], true.points[both], both, setting.times, seed)

    @abstractmethod
    def of_meshes(
        self, rendered: np.ndarray, true: np.ndarray, both: np.ndarray, times: np.ndarray, seed: int
    ) -> Measured | NotComputed:
        """Of meshes [N, 478, 3] where `both` [n] says, at times [n]."""


class MeshError(MeshMetric):
    """A mean distance between rendered and true meshes.

    Args:
        name, unit, how: of the metric.
        error: meshes [N, 478, 3] twice -> [N].
    """

    better = "lower"

    def __init__(self, name: str, unit: str, how: str, error: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self.name, self.unit, self.how, self._error = name, unit, f"{how}; {_TRACKER}", error

    def of_meshes(self, rendered, true, both, times, seed) -> Measured | NotComputed:
        values = np.full(len(both), np.nan)
        values[both] = self._error(rendered, true)
        return measured_frames(values, times, seed)


class MeshCorrelation(MeshMetric):
    """Pearson's r between a motion in rendered and in true pictures.

    Args:
        name, how: of the metric.
        motion: meshes [N, 478, 3] -> [N].
    """

    unit, better = "r", "higher"

    def __init__(self, name: str, how: str, motion: Callable[[np.ndarray], np.ndarray]):
        self.name, self.how, self._motion = name, f"Pearson's r of {how}; {_TRACKER}", motion

    def of_meshes(self, rendered, true, both, times, seed) -> Measured | NotComputed:
        motions = {"true": self._motion(true), "rendered": self._motion(rendered)}
        return measured_correlation(motions, both, times, seed)


def measured_correlation(motions: dict[str, np.ndarray], known: np.ndarray, times: np.ndarray, seed: int):
    """r of two motions, with its interval.

    Args:
        motions: [N] of the frames that are known.
        known: [n] bool.
        times: [n].
        seed: of the bootstrap.
    """
    n = int(known.sum())
    if n < _LEAST_FRAMES:
        return NotComputed(f"expected {_LEAST_FRAMES} frames with a face or more, got {n}")
    if min(map(np.ptp, motions.values())) < 1e-9:
        return NotComputed("nothing moves")
    pair = [motion[:, None] for motion in motions.values()]
    low, high = correlation_interval(*pair, block_length(times[known]), seed)[0]
    of_all = {name: np.full(len(known), np.nan) for name in motions}
    for name, motion in motions.items():
        of_all[name][known] = motion
    return Measured(float(correlation(*pair)[0]), (float(low), float(high)), None, n, motions=of_all)


def lip_distance(rendered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N] mean distance in pixels of the lips' 20 landmarks, each set's mean taken out."""
    lips = [ibug_landmarks(points)[:, _LIPS] for points in (rendered, true)]
    a, b = (points - points.mean(1, keepdims=True) for points in lips)
    return np.linalg.norm(a - b, axis=-1).mean(1)


def action_error(part: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Mean difference of the measures of the upper (0) or the lower (1) face, in percent of the eyes' distance."""

    def error(rendered: np.ndarray, true: np.ndarray) -> np.ndarray:
        a, b = (action_measures(points)[part] for points in (rendered, true))
        return 100 * np.abs(a - b).mean(1)

    return error


def gap_of_closed_lips(rendered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N] distance of the rendered inner lips in percent of the eyes'; NaN where the true ones are open."""
    gap, true_gap = (mouth_measures(points)[:, 0] for points in (rendered, true))
    return np.where(true_gap < _CLOSED, 100 * gap, np.nan)


def mesh_metrics() -> list[MeshMetric]:
    actions = "mean difference of {} lengths of the {} face ({}), a form of AUE on the mesh, without OpenFace"
    return [
        MeshError(
            "LMD",
            "px",
            "mean distance of the lip landmarks 48 to 67, each set's mean subtracted, in pixels of the capture",
            lip_distance,
        ),
        MeshError(
            "mesh AUE upper",
            "% of eye distance",
            actions.format(4, "upper", "brows and lids"),
            action_error(0),
        ),
        MeshError(
            "mesh AUE lower",
            "% of eye distance",
            actions.format(5, "lower", "lips and jaw"),
            action_error(1),
        ),
        MeshError(
            "gap of closed lips",
            "% of eye distance",
            f"the distance of the rendered inner lips in the frames whose true lips are closed (nearer than "
            f"{100 * _CLOSED:g} % of the eyes' distance): at p, b, m and in pauses",
            gap_of_closed_lips,
        ),
        MeshCorrelation(
            "mouth opening r",
            "the distance of the inner lips over that of the eyes",
            lambda points: mouth_measures(points)[:, 0],
        ),
        MeshCorrelation("blink r", "the closure of the eyes", eye_closure),
    ]
