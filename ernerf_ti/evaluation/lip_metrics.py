"""Metrics of lips that should be closed: in silence, and where p, b or m is heard."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ernerf_ti.audio.closures import REACH, heard_closures
from ernerf_ti.data.capture import Capture
from ernerf_ti.data.mouth import closed_mouths, lip_opening
from ernerf_ti.evaluation.held_out import CROSS_SPEAKER
from ernerf_ti.evaluation.lip_settings import CLOSURES, SILENCES
from ernerf_ti.evaluation.mesh_measures import mouth_measures
from ernerf_ti.evaluation.mesh_metrics import meshes_of, tracker_problem
from ernerf_ti.evaluation.metric import (
    ImageSequence,
    MetricValue,
    NotComputed,
    SequenceMetric,
    Setting,
    mean_over_frames,
)

_CLOSED = 0.02
"""Of the eye distance: lips that are less than this farther apart than those of the capture's closed mouth are closed.

At the 66 closures heard in a real clip of 71 s, the true lips are up to 1.5 % farther apart (79 % of them) or 3 to 11 %
(what was misheard), with nothing in between."""
_MAX_CLOSED_FRAMES = 12
_EYE_DISTANCE = "% of eye distance"
_TRACKER = "MediaPipe's Face Mesh is tracked in the images"


class ClosedMouth:
    """The closed mouth of a capture, as it is measured in rendered images."""

    def __init__(self, capture: Capture):
        self._capture = capture

    @cached_property
    def opening(self) -> float | NotComputed:
        """Median distance between the inner lips relative to the eye distance, in at most 12 of the training frames
        with a closed mouth (see :func:`ernerf_ti.data.mouth.closed_mouths`)."""
        capture, ids = self._capture, self._capture.train.frame_ids
        closed = ids[closed_mouths(lip_opening(np.stack([capture.landmarks(k) for k in ids])))]
        closed = closed[np.linspace(0, len(closed) - 1, min(len(closed), _MAX_CLOSED_FRAMES)).astype(int)]
        meshes = meshes_of(ImageSequence(len(closed), lambda i: capture.image(closed[i])))
        if isinstance(meshes, NotComputed) or not meshes.valid.any():
            return NotComputed("no face is found in the training frames with a closed mouth")
        return float(np.median(mouth_measures(meshes.points[meshes.valid])[:, 0]))


class _LipMetric(SequenceMetric):
    needs_truth = False

    def __init__(self, closed: ClosedMouth):
        self._closed = closed

    def missing(self) -> NotComputed | None:
        return tracker_problem()


class OpeningInSilence(_LipMetric):
    """How far the mouth is open while nobody speaks."""

    name, unit, better = "mouth opening in silence", _EYE_DISTANCE, "lower"
    settings = SILENCES
    description = (
        "Mean distance between the rendered inner lips from 0.3 s of silence on, less that of the capture's own closed "
        "mouth (median of training frames whose landmarks show the smallest openings), relative to the distance "
        f"between the eyes; should be at most {100 * _CLOSED:g} %. {_TRACKER}."
    )

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        openings, closed = _openings(setting.images), self._closed.opening
        if isinstance(openings, NotComputed):
            return openings
        if isinstance(closed, NotComputed):
            return closed
        note = f"the capture's closed mouth has {100 * closed:.2f} {_EYE_DISTANCE}"
        return mean_over_frames(100 * (openings - closed), setting.times, seed, note)


class OpeningAtClosures(_LipMetric):
    """How far the mouth is open where it should be closed in speech."""

    name, unit, better = "mouth opening at p, b, m", _EYE_DISTANCE, "lower"
    settings = (CLOSURES, CROSS_SPEAKER)
    description = (
        "Smallest distance between the rendered inner lips within two frames of a heard p, b or m, averaged over these "
        "sounds, relative to the distance between the eyes. The note gives that of the true lips, which is what it "
        f"should be; the recognizer also mishears. {_TRACKER}."
    )

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        found = _closures_in(setting)
        if isinstance(found, NotComputed):
            return found
        note = f"{len(found.times)} heard"
        if found.true is not None:
            note += f"; true opening {100 * found.true.mean():.2f} {_EYE_DISTANCE}"
        result = mean_over_frames(100 * found.rendered, found.times, seed, note, **found.curves)
        return replace(result, per_frame=None) if isinstance(result, MetricValue) else result


class ClosedAtClosures(_LipMetric):
    """How often the mouth closes where it should in speech."""

    name, unit, better = "closed at p, b, m", "%", "higher"
    settings = (CLOSURES, CROSS_SPEAKER)
    description = (
        "Fraction of the heard p, b and m at which the rendered inner lips come, within two frames, closer than "
        f"{100 * _CLOSED:g} % of the distance between the eyes more than those of the capture's own closed mouth: in "
        "true frames openings at these sounds lie clearly below or above. The note gives the fraction of the true "
        f"lips, which is what it should be; the recognizer also mishears. {_TRACKER}."
    )

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        found, closed = _closures_in(setting), self._closed.opening
        if isinstance(found, NotComputed):
            return found
        if isinstance(closed, NotComputed):
            return closed
        values, note = found.rendered < closed + _CLOSED, f"{len(found.times)} heard"
        if found.true is not None:
            true = found.true < closed + _CLOSED
            note += f"; true lips close at {true.sum()}, the rendered ones at {(true & values).sum()} of these"
        result = mean_over_frames(100.0 * values, found.times, seed, note)
        return replace(result, per_frame=None) if isinstance(result, MetricValue) else result


def lip_metrics(capture: Capture) -> list[SequenceMetric]:
    """All metrics of closed lips, in the order of the tables."""
    closed = ClosedMouth(capture)
    return [OpeningInSilence(closed), OpeningAtClosures(closed), ClosedAtClosures(closed)]


@dataclass(frozen=True)
class _Closures:
    """Heard closures at which the face is found in all frames around."""

    times: np.ndarray
    """[E] int, frame numbers at 25 fps."""
    rendered: np.ndarray
    """[E] smallest opening around each, relative to the eye distance."""
    true: np.ndarray | None
    """[E] the same of the true frames; None without them."""
    curves: dict[str, np.ndarray]
    """[n] openings of the setting's images in percent of the eye distance, by name."""


def _closures_in(setting: Setting) -> _Closures | NotComputed:
    return setting.images.cached("closures", lambda _: _find_closures(setting))


def _find_closures(setting: Setting) -> _Closures | NotComputed:
    if setting.samples is None:
        return NotComputed("there is no sound")
    position = {int(time): i for i, time in enumerate(setting.times)}
    around = np.arange(-REACH, REACH + 1)
    heard = [t for t in heard_closures(setting.samples) if all(int(t + d) in position for d in around)]
    if not heard:
        return NotComputed("no p, b or m is heard in consecutive frames")
    sequences = {"true": setting.truth, "rendered": setting.images}
    openings = {name: _openings(images) for name, images in sequences.items() if images is not None}
    smallest, curves = {}, {}
    for name, values in openings.items():
        if isinstance(values, NotComputed):
            return values
        frames = np.array([[position[int(t + d)] for d in around] for t in heard])
        smallest[name], curves[name] = values[frames].min(1), 100 * values  # NaN if a face is missing
    known = np.isfinite(sum(smallest.values()))
    if not known.any():
        return NotComputed("no face is found around the heard p, b and m")
    rendered, true = (smallest[name][known] if name in smallest else None for name in ("rendered", "true"))
    assert rendered is not None
    return _Closures(np.array(heard)[known], rendered, true, curves)


def _openings(images: ImageSequence) -> np.ndarray | NotComputed:
    """[n] distance between the inner lips relative to the eye distance, NaN where no face is found."""
    meshes = meshes_of(images)
    if isinstance(meshes, NotComputed):
        return NotComputed("no face is found in the images")
    openings = np.full(len(images), np.nan)
    openings[meshes.valid] = mouth_measures(meshes.points[meshes.valid])[:, 0]
    return openings
