"""How much the head changes where it must not, when the sound or the eyes alone change: leaks of region attention.

Renderings of the same pose are compared: one with the inputs of its frame, and one with another sound or with other
eyes. Whatever differs in the forehead, the hair and the ears has leaked there.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import HEAD
from ernerf_ti.evaluation.held_out import HeldOutFrames, save_frames, saved_frames
from ernerf_ti.evaluation.held_out_labels import HeldOutLabels
from ernerf_ti.evaluation.metric import Metric, MetricValue, NotComputed, SequenceMetric, Setting, mean_over_frames
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.process.threads import adaptive_threads
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.images import to_bytes

LEAK_SETTINGS = {
    "other_sound": "Rendered head over the background with the sound of another held-out frame, compared with the "
    "rendering with its own, at {n} held-out poses.",
    "other_eyes": "Rendered head over the background with open eyes closed and closed ones open, compared with the "
    "rendering with its own, at {n} held-out poses.",
}
REGIONS = ("forehead", "hair", "ears")

_OWN = "own_sound_and_eyes"  # what the others are compared with
_MAX_FRAMES = 32
_STEPS = 0.37, 0.61, 0.83  # of the frames: how far the other sound is taken from, in turn


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


def leak_regions(landmarks: np.ndarray, head: np.ndarray) -> dict[str, np.ndarray]:
    """Where neither speech nor blinks move anything.

    In axes along and across the line through the eyes, and in units of the distance between them, these are parts of
    the head: the forehead from 0.3 to 0.7 above the highest point of the brows and up to 0.8 beside the middle, the
    hair from 1.1 above the brows, and the ears, or the hair over them, from 0.05 beyond the jaw line's ends and from
    0.8 below to 0.4 above the eyes.

    Args:
        landmarks: [68, 2] x, y in pixels, iBUG 300-W.
        head: [H, W] bool.

    Returns:
        [H, W] bool by name.
    """
    points = landmarks.astype(np.float64)
    in_face = face_axes(points)
    rows, columns = np.nonzero(head)
    x, y = in_face(np.column_stack((columns + 0.5, rows + 0.5)))
    brows, (ends, _) = in_face(points[17:27])[1].max(), in_face(points[[0, 16]])
    above = y - brows
    inside = {
        "forehead": (above > 0.3) & (above < 0.7) & (np.abs(x) < 0.8),
        "hair": above > 1.1,
        "ears": ((x < ends.min() - 0.05) | (x > ends.max() + 0.05)) & (y > -0.8) & (y < 0.4),
    }
    masks = {}
    for name, chosen in inside.items():
        masks[name] = np.zeros_like(head)
        masks[name][rows[chosen], columns[chosen]] = True
    return masks


def leak_settings(
    trained: TrainedPortrait, capture: Capture, held_out: HeldOutFrames, folder: Path, ranks: Ranks
) -> list[Setting]:
    """Render held-out frames with the sound of other ones, and with other eyes.

    Args:
        trained: the portrait.
        capture: its capture.
        held_out: frames to evaluate; at most 32 of them, evenly spaced, are rendered.
        folder: folder for the rendered frames, PNG files.
        ranks: the processes that render the frames; the first one writes them.

    Returns:
        A setting for each of LEAK_SETTINGS; without images, and with the reason, if a single frame is evaluated, for
        which there is no other sound.
    """
    problem = NotComputed("a single frame has no other sound") if len(held_out) < 2 else None
    n = 0 if problem else min(len(held_out), _MAX_FRAMES)
    chosen = held_out.indices[np.linspace(0, len(held_out) - 1, n).round().astype(int)]

    def images() -> Iterator[tuple[np.ndarray, ...]]:
        for i in adaptive_threads(ranks.frames(n), trained.background.device.type):
            own, sound, eyes = (held_out.frames.inputs(int(chosen[i]), trained=False) for _ in range(3))
            other = int(chosen[(i + max(1, int(_STEPS[i % len(_STEPS)] * n))) % n])
            sound.audio_window = held_out.frames.inputs(other, trained=False).audio_window
            assert own.eye_closure is not None  # every frame of a capture has one
            eyes.eye_closure = (own.eye_closure < 0.5).to(own.eye_closure.dtype)
            for_all = trained.background, False, False  # neither torso nor attention
            yield tuple(to_bytes(trained.render(inputs, *for_all).rgb) for inputs in (own, sound, eyes))

    save_frames(folder, [_OWN, *LEAK_SETTINGS], images(), n, "frames with other sound and eyes", ranks)
    times, ids = held_out.frames.split.audio_ids[chosen], held_out.frames.split.frame_ids[chosen]
    return [
        Setting(
            *(name, description.format(n=n), saved_frames(folder / name, n)),
            truth=saved_frames(folder / _OWN, n),
            landmarks=lambda i: capture.landmarks(int(ids[i])),
            times=times,
            samples=None,
            windows=capture.audio_windows[np.minimum(times, len(capture.audio_windows) - 1)],
            is_special=True,
            problem=problem,
        )
        for name, description in LEAK_SETTINGS.items()
    ]


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


class Leak(RegionChange):
    """Mean change of a region that should stay as it is; arguments as of :class:`RegionChange`."""

    settings = tuple(LEAK_SETTINGS)

    def __init__(self, region: str, capture: Capture):
        super().__init__(region, capture)
        self.name = f"leak {region}"
        self.description = (
            f"Mean absolute difference of the {region}, averaged over the RGB channels, between renderings of a pose "
            "that differ in the sound or in the eyes alone. The landmarks place the region within the head of the "
            "capture's segmentation masks; values are 8-bit."
        )

    def regions(self, landmarks: np.ndarray, head: np.ndarray) -> dict[str, np.ndarray]:
        return leak_regions(landmarks, head)


def leak_metrics(capture: Capture) -> list[Metric]:
    """One for each region."""
    return [Leak(region, capture) for region in REGIONS]
