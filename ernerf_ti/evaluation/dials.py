"""What each expression dial moves: renderings of the same pose, sound and eyes with the dial at -1 and at +1."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.evaluation.held_out import HeldOutFrames, save_frames
from ernerf_ti.evaluation.leak import leak_regions
from ernerf_ti.evaluation.metric import Metric, Setting
from ernerf_ti.evaluation.region_change import RegionChange, changed_settings, face_axes, some_poses
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.process.threads import adaptive_threads
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.images import to_bytes

REGIONS = ("brows", "eyes", "mouth", "forehead", "hair")

_PARTS = {
    "brows": ((slice(17, 22), slice(22, 27)), 0.08),
    "eyes": ((slice(36, 42), slice(42, 48)), 0.02),
    "mouth": ((slice(48, 68),), 0.08),
}
"""Landmarks of each part, and eye distances around them: few around the eyes, above which the brows begin."""


def dial_setting(name: str) -> str:
    """Name of the setting in which a dial is turned."""
    return f"dial_{name.replace('-', '_')}"


def dial_regions(landmarks: np.ndarray, head: np.ndarray) -> dict[str, np.ndarray]:
    """Parts of the face that dials may move.

    Brows, eyes and mouth are the bounding boxes of their landmarks, in axes along and across the line through the eyes,
    with 0.08 of the distance between the eyes around them (0.02 around the eyes); forehead and hair are those of
    :func:`ernerf_ti.evaluation.leak.leak_regions`.

    Args:
        landmarks: [68, 2] x, y in pixels, iBUG 300-W.
        head: [H, W] bool.

    Returns:
        [H, W] bool by name.
    """
    points = landmarks.astype(np.float64)
    in_face = face_axes(points)
    rows, columns = np.nonzero(head)
    at = np.stack(in_face(np.column_stack((columns + 0.5, rows + 0.5))), 1)
    masks = {}
    for name, (parts, around) in _PARTS.items():
        inside = np.zeros(len(at), bool)
        for part in parts:
            corners = np.stack(in_face(points[part]), 1)
            inside |= ((at > corners.min(0) - around) & (at < corners.max(0) + around)).all(1)
        masks[name] = np.zeros_like(head)
        masks[name][rows[inside], columns[inside]] = True
    masks["brows"] &= ~masks["eyes"]
    others = leak_regions(landmarks, head)
    return masks | {name: others[name] for name in ("forehead", "hair")}


def dial_settings(
    trained: TrainedPortrait, capture: Capture, held_out: HeldOutFrames, folder: Path, ranks: Ranks
) -> list[Setting]:
    """Render held-out frames with each dial at -1 and at +1, and the other dials neutral.

    Args:
        trained: the portrait.
        capture: its capture.
        held_out: frames to evaluate; at most 32 of them, evenly spaced, are rendered.
        folder: folder for the rendered frames, PNG files.
        ranks: the processes that render the frames; the first one writes them.

    Returns:
        A setting for each dial of the portrait, whose truth is the rendering at -1.
    """
    names = trained.dial_names
    chosen = some_poses(held_out)[: None if names else 0]
    n = len(chosen)
    turned = [(name, value) for name in names for value in (-1.0, 1.0)]
    folders = [f"{dial_setting(name)}_{'high' if value > 0 else 'low'}" for name, value in turned]

    def images() -> Iterator[tuple[np.ndarray, ...]]:
        for i in adaptive_threads(ranks.frames(n), trained.background.device.type):
            inputs = held_out.frames.inputs(int(chosen[i]), trained=False)
            shown = []
            for name, value in turned:
                inputs.dials = trained.dials({name: value})
                rgb = trained.render(inputs, trained.background, with_torso=False, with_attention=False).rgb
                shown.append(to_bytes(rgb))
            yield tuple(shown)

    save_frames(folder, folders, images(), n, "frames with turned dials", ranks)
    description = (
        "Rendered head over the background with the dial {name} at 1, compared with the rendering at -1, at {n} "
        "held-out poses."
    )
    compared = (
        (dial_setting(name), description.format(name=name, n=n), high, low)
        for name, low, high in zip(names, folders[::2], folders[1::2], strict=True)
    )
    return changed_settings(capture, held_out, chosen, folder, compared)


class DialChange(RegionChange):
    """Mean change of a region when a dial is turned.

    Args:
        region: one of REGIONS.
        dial_names: the portrait's dials.
        capture: its segmentation says where the head is.
    """

    def __init__(self, region: str, dial_names: tuple[str, ...], capture: Capture):
        super().__init__(region, capture)
        self.settings = tuple(map(dial_setting, dial_names))
        self.name = f"dial moves {region}"
        self.description = (
            f"Mean absolute difference of the {region}, averaged over the RGB channels, between renderings of a pose "
            "with a dial at -1 and at 1 (8-bit values). Lower is better except in the dial's own region: brows for "
            "brows, eyes for gaze-x and gaze-y, mouth for smile."
        )

    def regions(self, landmarks: np.ndarray, head: np.ndarray) -> dict[str, np.ndarray]:
        return dial_regions(landmarks, head)


def dial_metrics(dial_names: tuple[str, ...], capture: Capture) -> list[Metric]:
    """One for each region; none for a portrait without dials."""
    return [DialChange(region, dial_names, capture) for region in REGIONS] if dial_names else []
