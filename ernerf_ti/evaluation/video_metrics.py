"""Metrics of a video of a talking head that need neither a run nor a capture."""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from ernerf_ti.evaluation.head_motion import eye_distance, head_position, jitter, rigid_shapes
from ernerf_ti.evaluation.lags import (
    MAX_LAG,
    lag_correlations,
    lag_interval,
    lag_of,
    local_lags,
    slope,
    slope_interval,
)
from ernerf_ti.evaluation.mesh_measures import mouth_measures
from ernerf_ti.evaluation.mesh_metrics import Meshes, MeshMetric, correlate, meshes_of, spread, tracker_problem
from ernerf_ti.evaluation.metric import (
    Metric,
    MetricValue,
    NotComputed,
    SequenceMetric,
    Setting,
    mean_over_frames,
)
from ernerf_ti.evaluation.mouth_series import SILENCE, frame_loudness, heard_loudness, in_silence, least_opening
from ernerf_ti.evaluation.statistics import block_length, block_resamples

_EYE_DISTANCE = "% of eye distance"
_MIN_FRAMES = 4 * MAX_LAG
_STILL = 0.005  # of the eye distance: a head that moves less says nothing about time
_LEAST_R = 0.5  # at the best lag; less is no agreement to measure a lag by
_SECOND = 25  # frames


class MotionMetric(SequenceMetric):
    """A metric of the motion in a video itself.

    Args:
        name, unit, description: of the metric.
        values: meshes -> [n], NaN for frames without a value.
    """

    better = "lower"
    needs_truth = False

    def __init__(self, name: str, unit: str, description: str, values: Callable[[Meshes], np.ndarray]):
        self.name, self.unit, self.description, self._values = name, unit, description, values

    def missing(self) -> NotComputed | None:
        return tracker_problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        meshes = meshes_of(setting.images)
        if isinstance(meshes, NotComputed):
            return meshes
        return mean_over_frames(self._values(meshes), setting.times, seed)


def wobble(meshes: Meshes) -> np.ndarray:
    """[n] jitter of the rigid points of the face against the head's own motion, in percent of the eye distance."""
    return _of_known(meshes, lambda points: 100 * rigid_shapes(points)[..., :2])


def head_jitter(meshes: Meshes) -> np.ndarray:
    """[n] jitter of the head's position, in percent of the eye distance."""
    return _of_known(meshes, lambda points: 100 * head_position(points)[:, None] / eye_distance(points).mean())


def _of_known(meshes: Meshes, positions_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if not meshes.valid.any():
        return np.full(len(meshes.valid), np.nan)
    positions = positions_of(meshes.points[meshes.valid])
    all_positions = np.full((len(meshes.valid), *positions.shape[1:]), np.nan)
    all_positions[meshes.valid] = positions
    return jitter(all_positions, meshes.valid)


class LeastLipOpening(SequenceMetric):
    """How far the lips close at best."""

    name, unit, better = "least lip opening", _EYE_DISTANCE, "lower"
    needs_truth = False
    description = (
        "2nd percentile of the distance between the inner lips over all frames: a mouth that never closes has more "
        "than the 0 to 1.5 % of closed lips. MediaPipe's Face Mesh is tracked in the images."
    )

    def missing(self) -> NotComputed | None:
        return tracker_problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        found = openings_of(setting)
        if isinstance(found, NotComputed):
            return found
        known = np.isfinite(found)
        openings, block = found[known], block_length(setting.times[known])
        interval = None
        if block is not None:
            drawn = np.percentile(openings[block_resamples(len(openings), block, seed)], 2, axis=1)
            low, high = np.percentile(drawn, (2.5, 97.5))
            interval = float(low), float(high)
        return MetricValue(least_opening(openings), interval, found, len(openings))


class OpeningInSilence(SequenceMetric):
    """How far the mouth is open while nothing is heard."""

    name, unit, better = "opening in silence", _EYE_DISTANCE, "lower"
    needs_truth = False
    description = (
        f"Mean distance between the inner lips in the silent frames; {SILENCE}. The note compares it with the closed "
        "mouth, the 2nd percentile of the opening, of the reference if there is one. MediaPipe's Face Mesh is tracked "
        "in the images."
    )

    def missing(self) -> NotComputed | None:
        return tracker_problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        if setting.samples is None:
            return NotComputed("there is no sound")
        openings = openings_of(setting)
        if isinstance(openings, NotComputed):
            return openings
        silent = in_silence(frame_loudness(setting.samples, setting.times))
        values = np.where(silent, openings, np.nan)
        if not np.isfinite(values).any():
            return NotComputed("no silence of half a second or more in the sound")
        true = None if setting.truth is None else meshes_of(setting.truth)
        closed, whose = openings[np.isfinite(openings)], "its own closed mouth"
        if isinstance(true, Meshes) and true.valid.any():
            closed, whose = 100 * mouth_measures(true.points[true.valid])[:, 0], "the reference's closed mouth"
        excess = np.nanmean(values) - least_opening(closed)
        return mean_over_frames(values, setting.times, seed, f"{excess:.2f} {self.unit} above {whose}")


class LoudnessToMouth(SequenceMetric):
    """Correlation of the mouth opening with the loudness of the sound: synchrony without weights or a reference."""

    name, unit, better = "loudness-to-mouth correlation", "r", "higher"
    needs_truth = False
    description = (
        "Pearson's r between the opening of the inner lips and the loudness of the sound in the same frame, in dB "
        "above a floor 40 dB below speech. A coarse measure: vowels are loud and open, but not all alike; compare it "
        "with the reference's."
    )

    def missing(self) -> NotComputed | None:
        return tracker_problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        if setting.samples is None:
            return NotComputed("there is no sound")
        openings = openings_of(setting)
        if isinstance(openings, NotComputed):
            return openings
        loudness = heard_loudness(frame_loudness(setting.samples, setting.times))
        known = np.isfinite(openings) & np.isfinite(loudness)
        if not known.any():
            return NotComputed("no frame with a face and sound")
        return correlate({"loudness": loudness[known], "opening": openings[known]}, known, setting.times, seed)


def openings_of(setting: Setting) -> np.ndarray | NotComputed:
    """[n] distance between the inner lips in percent of the eye distance; NaN in frames without a face."""
    meshes = meshes_of(setting.images)
    if isinstance(meshes, NotComputed):
        return meshes
    if not meshes.valid.any():
        return NotComputed("no face is found in the images")
    return spread(100 * mouth_measures(meshes.points[meshes.valid])[:, 0], meshes.valid)


class HeadDrift(MeshMetric):
    """Slow motion of the head relative to that of the reference."""

    name, unit, better = "head drift", _EYE_DISTANCE, "lower"
    description = (
        "Distance of the head (weighted mean of the mesh's rigid points) from its place in the reference, averaged "
        "over one second and without the median over all frames, so that neither jitter nor a constant shift counts. "
        "MediaPipe's Face Mesh is tracked in both."
    )

    def of_meshes(
        self, rendered: np.ndarray, true: np.ndarray, both: np.ndarray, times: np.ndarray, seed: int
    ) -> MetricValue | NotComputed:
        apart = (head_position(rendered) - head_position(true)) / eye_distance(true).mean()
        apart = 100 * (apart - np.median(apart, 0))
        width = min(_SECOND, len(apart))
        padded = np.pad(apart, ((width // 2, width - 1 - width // 2), (0, 0)), "edge")
        slow = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).mean(-1)
        return mean_over_frames(spread(np.linalg.norm(slow, axis=1), both), times, seed)


class LagMetric(MeshMetric):
    """A metric of time, from a motion that both videos should have."""

    unit, better = "frames", "lower"
    _motion: Callable[[np.ndarray], np.ndarray]

    def of_meshes(
        self, rendered: np.ndarray, true: np.ndarray, both: np.ndarray, times: np.ndarray, seed: int
    ) -> MetricValue | NotComputed:
        if len(both) < _MIN_FRAMES:
            return NotComputed(f"expected {_MIN_FRAMES} frames or more, got {len(both)}")
        later, earlier = (_filled(self._motion(points), both) for points in (rendered, true))
        if min(later.std(0).max(), earlier.std(0).max()) < _STILL:
            return NotComputed("it hardly moves")
        return self._of_motions(later, earlier, seed)

    @abstractmethod
    def _of_motions(self, later: np.ndarray, earlier: np.ndarray, seed: int) -> MetricValue | NotComputed:
        """Value for the motions [n, K] in the video and in the reference."""


class Lag(LagMetric):
    """How much later something moves than in the reference.

    Args:
        name: of the metric.
        what: what moves, for the description.
        motion: meshes [N, 478, 3] -> [N, K], relative to the eye distance.
    """

    def __init__(self, name: str, what: str, motion: Callable[[np.ndarray], np.ndarray]):
        self.name, self._motion = name, motion
        self.description = (
            f"How many frames of 25 fps later {what} moves than in the reference; negative where it moves earlier; 0 "
            f"is best. It has the largest correlation among lags of up to {MAX_LAG} frames, refined by a parabola."
        )

    def _of_motions(self, later: np.ndarray, earlier: np.ndarray, seed: int) -> MetricValue | NotComputed:
        correlations = lag_correlations(later, earlier)
        best = float(correlations.max())
        if best < _LEAST_R:
            return NotComputed(f"the motions agree at no lag: r is {best:.2f} at best")
        n = len(earlier) - 2 * MAX_LAG
        block = block_length(np.arange(n))
        assert block is not None  # there are enough frames
        interval = lag_interval(later, earlier, block, seed)
        note = f"r = {best:.3f} at this lag, {correlations[MAX_LAG]:.3f} without"
        return MetricValue(lag_of(correlations), interval, None, n, note)


class MouthLagDrift(LagMetric):
    """How fast mouth and reference drift apart in time."""

    name, unit = "drift of the mouth lag", "frames per minute"
    description = (
        "Slope of the mouth lag over time: the median of the slopes between the lags of stretches of 8 s, one every "
        "2 s, in which the openings correlate at .5 or more [Theil 1950, Sen 1968]. It is 0 unless picture and sound "
        "run at different speeds."
    )

    def __init__(self) -> None:
        self._motion = mouth_opening

    def _of_motions(self, later: np.ndarray, earlier: np.ndarray, seed: int) -> MetricValue | NotComputed:
        minutes, lags = local_lags(later, earlier)
        value = slope(minutes, lags)
        if not np.isfinite(value):
            return NotComputed(f"expected 6 stretches of 8 s with equal mouths or more, got {len(lags)}")
        note = f"lags from {lags.min():.1f} to {lags.max():.1f} frames"
        return MetricValue(value, slope_interval(minutes, lags, seed), None, len(earlier), note)


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """[N, 478, 3] -> [N, 1] distance between the inner lips relative to the eye distance."""
    return mouth_measures(points)[:, :1]


def head_place(points: np.ndarray) -> np.ndarray:
    """[N, 478, 3] -> [N, 2] position of the head in the image relative to the eye distance."""
    return head_position(points) / eye_distance(points).mean()


def _filled(motion: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Motion [N, K] of the known frames -> [n, K], interpolated in between."""
    at, frames = np.flatnonzero(known), np.arange(len(known))
    return np.stack([np.interp(frames, at, column) for column in motion.T], 1)


HEAD_LAG = "head lag"


def video_metrics() -> list[Metric]:
    """The metrics of this module, in the order of the tables."""
    tracked = "MediaPipe's Face Mesh is tracked in the images."
    return [
        Lag("mouth lag", "the mouth", mouth_opening),
        Lag(HEAD_LAG, "the head", head_place),
        MouthLagDrift(),
        HeadDrift(),
        MotionMetric(
            "wobble",
            _EYE_DISTANCE,
            "Jitter of the face's rigid points (forehead, nose, cheekbones, corners of the eyes) against the head's "
            "motion: each frame's points are moved, turned and scaled to their mean shape [Umeyama 1991]; the value is "
            "the root mean square of what differs in x and y from the middle between the frames before and after, "
            "divided by the square root of 1.5. The tracker's own noise is in it: compare with the reference's. "
            f"{tracked}",
            wobble,
        ),
        MotionMetric(
            "head jitter",
            _EYE_DISTANCE,
            "Difference of the head's position in the image (weighted mean of the rigid points) from the middle "
            "between the frames before and after, root mean square over x and y, divided by the square root of 1.5. A "
            f"real head that accelerates has some too: compare with the reference's. {tracked}",
            head_jitter,
        ),
        LeastLipOpening(),
        OpeningInSilence(),
        LoudnessToMouth(),
    ]
