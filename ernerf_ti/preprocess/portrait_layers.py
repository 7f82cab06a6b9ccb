"""The layers that training composes: the person before the plate, and the torso without the head."""

import cv2
import numpy as np

from ernerf_ti.data.capture_files import HEAD, NECK, TORSO

_FADE = 0.98  # per pixel upwards, so that what is invented lies in the shadow of the chin
_TORSO_UP, _NECK_UP = 9, 48  # px at 512: how far collar and neck are continued under the head (ER-NeRF)
_NECK_GROWN = 3  # px at 512: the topmost pixels of the neck mix with the jaw
_REFERENCE = 512


def before_plate(frame: np.ndarray, alpha: np.ndarray, behind: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """The frame with its background exchanged for the plate.

    In the outline I + (1 - alpha) (plate - B): the part of the pixel that the background shows through
    is exchanged, the person's part stays.

    Args:
        frame: [H, W, 3] uint8 RGB.
        alpha: [H, W] in [0, 1].
        behind: [H, W, 3] the frame's own background B.
        plate: [H, W, 3] uint8 RGB.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    through = (1 - alpha)[..., None]
    mixed = frame + through * (plate.astype(np.float32) - behind)
    mixed = np.where(through >= 1, plate, mixed)
    return np.round(np.clip(mixed, 0, 255)).astype(np.uint8)


def torso_layer(frame: np.ndarray, alpha: np.ndarray, behind: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Neck and torso, continued upwards where the head covered them.

    Each column is continued from its topmost visible pixel under the head, fading by 2 % a pixel: 9 px
    for the torso; for the neck (at 512) 53 px from one below the jaw on, as ER-NeRF's preprocessing does.
    Rows above the picture are left out.

    Args:
        frame: [H, W, 3] uint8 RGB.
        alpha: [H, W] in [0, 1].
        behind: [H, W, 3] the background behind the person.
        labels: [H, W] uint8: 0 background, 1 head, 2 neck, 3 torso.

    Returns:
        [H, W, 4] uint8 RGBA, straight alpha, 0 outside.
    """
    scale = min(labels.shape) / _REFERENCE
    color = person_color(frame, alpha, behind)
    visible = (labels == NECK) | (labels == TORSO)
    reach = max(1, round(_NECK_GROWN * scale))
    neck = cv2.dilate((labels == NECK).astype(np.uint8), np.ones((2 * reach + 1, 1), np.uint8)).astype(bool)
    layer, invented = color.copy(), np.zeros(labels.shape, bool)
    _continue_up(layer, invented, labels == TORSO, labels == HEAD, color, round(_TORSO_UP * scale), 0)
    by_torso = invented.copy()
    invented[:] = False
    down = reach + 1  # off the pixels that were grown
    _continue_up(layer, invented, neck, labels == HEAD, color, round(_NECK_UP * scale) + down + 1, down)
    blurred = cv2.GaussianBlur(layer, (5, 5), 4)
    layer[invented] = blurred[invented]

    opaque = invented | by_torso | (neck & (labels == HEAD))
    # The outline keeps its soft alpha; the cut between torso and head is hard, as the head lies over it.
    edge = cv2.dilate(visible.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & (labels != HEAD)
    opacity = np.where(opaque, 1.0, np.where(edge, alpha, 0.0))
    opacity = np.round(opacity * 255).astype(np.uint8)
    layer = np.round(np.clip(layer, 0, 255)).astype(np.uint8)
    layer[opacity == 0] = 0
    return np.concatenate((layer, opacity[..., None]), -1)


def person_color(frame: np.ndarray, alpha: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """[H, W, 3] float32 F of I = alpha F + (1 - alpha) B; of weak alpha, where F is noise, the frame itself."""
    image = frame.astype(np.float32)
    share = np.maximum(alpha, 0.25)[..., None]
    pure = (image - (1 - alpha)[..., None] * behind) / share
    return np.where((alpha > 0.05)[..., None], np.clip(pure, 0, 255), image)


def _continue_up(
    layer: np.ndarray,
    invented: np.ndarray,
    part: np.ndarray,
    head: np.ndarray,
    color: np.ndarray,
    length: int,
    down: int,
) -> None:
    """Write the continuation of the columns of a part that end at the head, and mark it."""
    columns = np.flatnonzero(part.any(0))
    top = part.argmax(0)[columns]
    under_head = (top > 0) & head[np.maximum(top - 1, 0), columns]
    columns, top = columns[under_head], top[under_head]
    start = top + np.minimum(part.sum(0)[columns] - 1, down)
    start = np.minimum(start, len(part) - 1)
    source = color[start, columns]
    for k in range(length):
        rows = start - k
        inside = rows >= 0
        layer[rows[inside], columns[inside]] = source[inside] * _FADE**k
        invented[rows[inside], columns[inside]] = True
