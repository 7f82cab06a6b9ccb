"""How much regions of the head change between two renderings of the same poses."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import HEAD
from ernerf_ti.evaluation.held_out import HeldOutFrames, saved_frames
from ernerf_ti.evaluation.held_out_labels import HeldOutLabels
from ernerf_ti.evaluation.metric import MetricValue, NotComputed, SequenceMetric, Setting, mean_over_frames

_MAX_FRAMES = 32


def some_poses(held_out: HeldOutFrames) -> np.ndarray:
    """Indices of at most 32 of the frames, evenly spaced."""
    n = min(len(held_out), _MAX_FRAMES)
    return held_out.indices[np.linspace(0, len(held_out) - 1, n).round().astype(int)]


def changed_settings(
    capture: Capture,
    held_out: HeldOutFrames,
    chosen: np.ndarray,
    folder: Path,
    compared: Iterable[tuple[str, str, str, str]],
    problem: NotComputed | None = None,
) -> list[Setting]:
    """Settings of renderings whose truth are other renderings.

    Args:
        capture: of the portrait.
        held_out: frames to evaluate.
        chosen: indices of those that were rendered.
        folder: of the rendered frames.
        compared: name and description of each setting, and the subfolders of its images and of those that they are
            compared with.
        problem: why there are none.
    """
    times, ids = held_out.frames.split.audio_ids[chosen], held_out.frames.split.frame_ids[chosen]
    return [
        Setting(
            *(name, description, saved_frames(folder / images, len(chosen))),
            truth=saved_frames(folder / others, len(chosen)),
            landmarks=lambda i: capture.landmarks(int(ids[i])),
            times=times,
            samples=None,
            windows=capture.audio_windows[np.minimum(times, len(capture.audio_windows) - 1)],
            is_special=True,
            problem=problem,
        )
        for name, description, images, others in compared
    ]


def face_axes(landmarks: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Axes along and across the line through the eyes, from their middle, in units of the distance between them.

    Args:
        landmarks: [68, 2] x, y in pixels, iBUG 300-W.

    Returns:
        A function from [n, 2] places in pixels to their two coordinates [n], to the right in the picture and up.
    """
    right, left = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    distance = max(float(np.linalg.norm(left - right)), 1e-6)
    across = (left - right) / distance
    up = np.array([across[1], -across[0]])

    def in_face(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        relative = (at - (left + right) / 2) / distance
        return relative @ across, relative @ up

    return in_face


class RegionChange(SequenceMetric):
    """Mean absolute difference of a region of the head between two renderings of each pose.

    Args:
        region: its name.
        capture: its segmentation says where the head is.
    """

    unit, better = "gray levels", "lower"

    def __init__(self, region: str, capture: Capture):
        self._region, self._labels = region, HeldOutLabels(capture)

    @abstractmethod
    def regions(self, landmarks: np.ndarray, head: np.ndarray) -> dict[str, np.ndarray]:
        """[68, 2] landmarks and the head [H, W] -> regions [H, W] bool by name."""

    def missing(self) -> NotComputed | None:
        return self._labels.problem()

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        assert setting.truth is not None  # the other rendering
        values = np.full(len(setting), np.nan)
        for i, time in enumerate(setting.times):
            region = self.regions(setting.landmarks(i), self._labels[time] == HEAD)[self._region]
            if region.any():
                change = setting.images[i][region].astype(np.float64) - setting.truth[i][region]
                values[i] = np.abs(change).mean()
        return mean_over_frames(values, setting.times, seed)
