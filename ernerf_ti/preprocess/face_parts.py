"""Segmentation of the person into head, neck and torso."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from ernerf_ti.data.capture_files import BACKGROUND, HEAD, NECK, TORSO

# Mesh points along the jaw, from below the left ear in the image over the chin to the right one.
JAW = (58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288)
_CHEEKS = (50, 205, 425, 280)  # skin without beard or shadow in most faces
_TOP, _CHIN, _LEFT, _RIGHT = 10, 152, 234, 454
_WIDER = 1.12  # the jaw of the mesh lies inside the visible one, except at the chin
_SKIN_DISTANCE, _NEAR_DISTANCE = 3.5, 5.0  # Mahalanobis distance in log chromaticity: in general, just below the jaw
_NEAR = 0.06  # of the face height: extent of "just below the jaw"
_LEAST_SPREAD = 0.07  # of log chromaticity: blood and light from the clothes change the color of the neck
_NOISE = 8.0  # gray levels added to each channel, which keeps log ratios of dark colors near 0
_NECK_LENGTH = 0.55  # of the face height, below the jaw; lower pixels are skin-colored clothes
_DARKEST = 0.25  # of the cheeks' luminance: the neck lies in the shadow of the chin


@dataclass(frozen=True)
class SkinColor:
    """Log chromaticity of a person's skin, which does not change in the shadow."""

    mean: np.ndarray
    """[2] log(R / G), log(B / G)."""
    inverse_covariance: np.ndarray
    """[2, 2]"""
    luminance: float


def skin_color(samples: Iterable[tuple[np.ndarray, np.ndarray]]) -> SkinColor:
    """Fit the skin color to the cheeks.

    Args:
        samples: frames [H, W, 3] uint8 RGB with their mesh points [478, 2 or 3] in pixels.

    Raises:
        ValueError: no samples.
    """
    colors = []
    for frame, points in samples:
        radius = max(1, round(0.03 * _face_height(points)))
        for x, y in points[list(_CHEEKS), :2]:
            row, column = int(np.clip(y, 0, frame.shape[0] - 1)), int(np.clip(x, 0, frame.shape[1] - 1))
            patch = frame[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
            colors.append(patch.reshape(-1, 3))
    if not colors:
        raise ValueError("samples: expected frames with a face, got none; track the face first")
    chroma, luminance = _chromaticity(np.concatenate(colors))
    covariance = np.cov(chroma.T) + np.eye(2) * _LEAST_SPREAD**2
    return SkinColor(np.median(chroma, 0), np.linalg.inv(covariance), float(np.median(luminance)))


def part_labels(frame: np.ndarray, alpha: np.ndarray, points: np.ndarray, skin: SkinColor) -> np.ndarray:
    """Label head, neck and torso by the jaw line and the skin color.

    The head is everything above the jaw or beside the face, including hair and ears. The neck is the skin below the
    jaw that is connected to it. The torso is the rest of the person.

    Args:
        frame: [H, W, 3] uint8 RGB.
        alpha: [H, W] in [0, 1], opacity of the person.
        points: [478, 2 or 3] mesh points in pixels.
        skin: skin color of the person.

    Returns:
        [H, W] uint8: 0 background, 1 head, 2 neck, 3 torso.
    """
    person = alpha > 0.5
    distance = _distance_to_skin(frame, skin)
    is_skin = distance < _SKIN_DISTANCE
    above = _above_jaw(points, person.shape, 1.0) | (is_skin & _above_jaw(points, person.shape, _WIDER))
    unit = max(1, round(_face_height(points) / 90))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * unit + 1, 2 * unit + 1))
    above = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_CLOSE, disc).astype(bool)
    head = _large_components(person & above, 0.002)
    labels = np.where(person, TORSO, BACKGROUND).astype(np.uint8)
    labels[person & head] = HEAD
    below = person & ~head
    # Pixels along the jaw are mixed with the color of the collar, so the threshold is looser there.
    near = cv2.distanceTransform((~head).astype(np.uint8), cv2.DIST_L2, 3) < _NEAR * _face_height(points)
    neck = below & _neck_region(points, person.shape) & (is_skin | (near & (distance < _NEAR_DISTANCE)))
    neck = cv2.morphologyEx(neck.astype(np.uint8), cv2.MORPH_CLOSE, disc, iterations=2).astype(bool) & below
    touching = cv2.dilate(head.astype(np.uint8), disc).astype(bool)
    labels[_components_that_touch(neck, touching)] = NECK
    torso = labels == TORSO
    labels[torso & ~_components_that_touch(torso, ~above)] = HEAD  # strands of hair that the mask has apart
    return labels


def _above_jaw(points: np.ndarray, shape: tuple[int, ...], width: float) -> np.ndarray:
    """[H, W] bool: above the jaw line, which is stretched in width and extended sideways at its ends."""
    across = points[_RIGHT, :2] - points[_LEFT, :2]
    up = points[_TOP, :2] - points[_CHIN, :2]
    jaw = points[list(JAW), :2]
    unit = across / np.linalg.norm(across)
    jaw = jaw + (width - 1) * ((jaw - points[_CHIN, :2]) @ unit)[:, None] * unit
    far = 4 * across
    outline = np.concatenate(([jaw[0] - far], jaw, [jaw[-1] + far], [jaw[-1] + far + 8 * up], [jaw[0] - far + 8 * up]))
    return _fill_polygon(outline, shape)


def _neck_region(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[H, W] bool: the region below the face, as wide as the jaw."""
    down = points[_CHIN, :2] - points[_TOP, :2]
    sides = points[[JAW[0], JAW[-1]], :2]
    below_chin = (points[_CHIN, :2] - sides) @ down / (down @ down) + _NECK_LENGTH
    low = sides + below_chin[:, None] * down
    return _fill_polygon(np.array([*sides, *low[::-1]]), shape)


def _distance_to_skin(frame: np.ndarray, skin: SkinColor) -> np.ndarray:
    """[H, W] Mahalanobis distance of the chromaticity; infinite where the image is too dark."""
    chroma, luminance = _chromaticity(frame)
    difference = chroma - skin.mean
    distance = np.sqrt(((difference @ skin.inverse_covariance) * difference).sum(-1))
    return np.where(luminance > _DARKEST * skin.luminance, distance, np.inf)


def _chromaticity(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[..., 3] RGB -> [..., 2] log(R / G), log(B / G), and [...] luminance."""
    logs = np.log(colors.astype(np.float32) + _NOISE)
    return logs[..., ::2] - logs[..., 1:2], colors @ np.array([0.299, 0.587, 0.114], np.float32)


def _fill_polygon(outline: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    inside = np.zeros(shape, np.uint8)
    # Pixel centers are at half-integers here and at integers in OpenCV; 4 fractional bits.
    cv2.fillPoly(inside, [np.round((outline - 0.5) * 16).astype(np.int32)], (1,), shift=4)
    return inside.astype(bool)


def _large_components(mask: np.ndarray, least: float) -> np.ndarray:
    """Connected components that cover at least this fraction of the image."""
    _, components, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= least * mask.size
    keep[0] = False
    return keep[components]


def _components_that_touch(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    n, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    keep = np.zeros(n, bool)
    keep[np.unique(components[mask & other])] = True
    keep[0] = False
    return keep[components]


def _face_height(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[_CHIN, :2] - points[_TOP, :2]))
