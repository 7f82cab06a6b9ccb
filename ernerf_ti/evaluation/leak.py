"""How much the head changes where it must not, when the sound or the eyes alone change: leaks of region attention.

Renderings of the same pose are compared: one with the inputs of its frame, and one with another sound or with other
eyes. Whatever differs in the forehead, the hair and the ears has leaked there.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.evaluation.held_out import HeldOutFrames, save_frames
from ernerf_ti.evaluation.metric import Metric, NotComputed, Setting
from ernerf_ti.evaluation.region_change import RegionChange, changed_settings, face_axes, some_poses
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
_STEPS = 0.37, 0.61, 0.83  # of the frames: how far the other sound is taken from, in turn


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
    chosen = some_poses(held_out)[: 0 if problem else None]
    n = len(chosen)

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
    compared = [(name, description.format(n=n), name, _OWN) for name, description in LEAK_SETTINGS.items()]
    return changed_settings(capture, held_out, chosen, folder, compared, problem)


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
