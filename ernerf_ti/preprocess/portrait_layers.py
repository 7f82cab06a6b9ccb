"""Layers for training: the person composited over the background, and the torso without the head."""

import cv2
import numpy as np

from ernerf_ti.data.capture_files import HEAD, NECK, TORSO

_FADE = 0.98  # per pixel upwards, like the shadow under the chin
_TORSO_UP, _NECK_UP = 9, 48  # px at 512 by which torso and neck are extended under the head (ER-NeRF)
_NECK_GROWN = 3  # px at 512: the topmost pixels of the neck are mixed with the jaw
_REFERENCE = 512


def composite_over_background(
    frame: np.ndarray, alpha: np.ndarray, behind: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """Replace the background of a frame by that of the clip.

    The result is I + (1 - alpha) (background - B), which replaces what shows through and keeps the person.

    Args:
        frame: [H, W, 3] uint8 RGB.
        alpha: [H, W] in [0, 1].
        behind: [H, W, 3] background B of the frame.
        background: [H, W, 3] uint8 RGB of the clip.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    transparency = (1 - alpha)[..., None]
    mixed = frame + transparency * (background.astype(np.float32) - behind)
    mixed = np.where(transparency >= 1, background, mixed)
    return np.round(np.clip(mixed, 0, 255)).astype(np.uint8)


def torso_layer(frame: np.ndarray, alpha: np.ndarray, behind: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Neck and torso, extended upwards where the head covers them.

    Each column is extended from its topmost visible pixel under the head, darkening by 2 % per pixel: at 512x512 by
    9 px for the torso and by 53 px, starting below the jaw, for the neck, as ER-NeRF's preprocessing does. Rows above
    the image are dropped.

    Args:
        frame: [H, W, 3] uint8 RGB.
        alpha: [H, W] in [0, 1].
        behind: [H, W, 3] background of the frame.
        labels: [H, W] uint8: 0 background, 1 head, 2 neck, 3 torso.

    Returns:
        [H, W, 4] uint8 RGBA, straight alpha, 0 outside.
    """
    scale = min(labels.shape) / _REFERENCE
    color = person_color(frame, alpha, behind)
    visible = (labels == NECK) | (labels == TORSO)
    reach = max(1, round(_NECK_GROWN * scale))
    neck = cv2.dilate((labels == NECK).astype(np.uint8), np.ones((2 * reach + 1, 1), np.uint8)).astype(bool)
    layer, extension = color.copy(), np.zeros(labels.shape, bool)
    _extend_up(layer, extension, labels == TORSO, labels == HEAD, color, round(_TORSO_UP * scale), 0)
    by_torso = extension.copy()
    extension[:] = False
    down = reach + 1  # below the pixels mixed with the jaw
    _extend_up(layer, extension, neck, labels == HEAD, color, round(_NECK_UP * scale) + down + 1, down)
    blurred = cv2.GaussianBlur(layer, (5, 5), 4)
    layer[extension] = blurred[extension]

    opaque = extension | by_torso | (neck & (labels == HEAD))
    # The outline has a soft alpha. The cut between torso and head is hard, as the head is rendered over it.
    edge = cv2.dilate(visible.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & (labels != HEAD)
    opacity = np.where(opaque, 1.0, np.where(edge, alpha, 0.0))
    opacity = np.round(opacity * 255).astype(np.uint8)
    layer = np.round(np.clip(layer, 0, 255)).astype(np.uint8)
    layer[opacity == 0] = 0
    return np.concatenate((layer, opacity[..., None]), -1)


def person_color(frame: np.ndarray, alpha: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """[H, W, 3] float32 F of I = alpha F + (1 - alpha) B; the frame itself for small alpha, where F is noisy."""
    image = frame.astype(np.float32)
    pure = (image - (1 - alpha)[..., None] * behind) / np.maximum(alpha, 0.25)[..., None]
    return np.where((alpha > 0.05)[..., None], np.clip(pure, 0, 255), image)


def _extend_up(
    layer: np.ndarray,
    extension: np.ndarray,
    part: np.ndarray,
    head: np.ndarray,
    color: np.ndarray,
    length: int,
    down: int,
) -> None:
    """Extend the columns of a part (neck or torso) that end at the head, in `layer`, and mark them in `extension`."""
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
        extension[rows[inside], columns[inside]] = True
