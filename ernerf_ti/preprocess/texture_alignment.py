"""Accuracy of head poses, measured by how still they hold the texture of the face, without landmarks.

With correct poses, each point of the skull shows the same texture in every frame. The gray face, band-passed to reduce
the influence of light and noise, is warped through the fitted shape to a reference view. Residual motion there is due
to errors of the poses and of the rigid model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ernerf_ti.preprocess.bundle_adjustment import OUTER_EYE_CORNERS, HeadFit, camera_from_world, project
from ernerf_ti.preprocess.rigid_face import REGIONS, face_surface

SURFACE_STEP = 0.001  # m
# Fractions of the distance between the outer corners of the eyes: 1 and 5.5 px for 135 px.
_FINE_SIGMA, _COARSE_SIGMA = 0.0075, 0.04
_MARGIN_SIGMAS = 4  # of the coarse blur, around the face; leaves room for pose changes
_LEAST_FACING = 0.3  # cosine between the normal and the view direction
_LEAST_VISIBLE = 0.5  # fraction of a region
_SHIFT_STEPS = 8
_MAX_SHIFT = 10  # grid points


class FaceCrops:
    """The gray face of each valid frame, small enough to keep in memory for a whole clip: about 50 kB at 512x512.

    Args:
        frame: k -> [H, W, 3] uint8 RGB, called once per valid frame, in order.
        fit: locates the face.
        progress: show a progress bar.

    Raises ValueError for a frame of another size or dtype than the first.
    """

    def __init__(self, frame: Callable[[int], np.ndarray], fit: HeadFit, progress: bool = False):
        self.frames = np.flatnonzero(np.isfinite(fit.poses).all((1, 2)))
        """[V] indices of the valid frames."""
        depth = np.median(np.linalg.norm(fit.poses[self.frames, :3, 3], axis=-1))
        self.eye_distance = fit.focal * OUTER_EYE_CORNERS / depth
        """px between the outer corners of the eyes."""
        self._crops: dict[int, np.ndarray] = {}
        self._corners: dict[int, np.ndarray] = {}
        self.surface = face_surface(fit.shape, SURFACE_STEP)
        self.width = self.height = 0
        patches = self.surface.points[np.logical_or.reduce(list(self.surface.regions.values()))]
        margin = 2 + _MARGIN_SIGMAS * _COARSE_SIGMA * self.eye_distance
        for k in tqdm(self.frames, "extracting face texture", disable=not progress, unit="frame"):
            image = frame(int(k))
            if not self.width:
                self.height, self.width = image.shape[:2]
            if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
                raise ValueError(
                    f"frame {k}: expected [{self.height}, {self.width}, 3] uint8 RGB like the first, got {image.shape} "
                    f"{image.dtype}; pass the frames that were fitted"
                )
            pixels = project(patches, fit.poses[k], fit.focal, self.width, self.height)
            left, top = np.maximum(pixels.min(0) - margin, 0).astype(int)
            right, bottom = np.maximum(pixels.max(0) + margin, (left + 8, top + 8)).astype(int)
            crop = image[top:bottom, left:right]
            self._crops[k] = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) if crop.size else np.zeros((8, 8), np.uint8)
            self._corners[k] = np.array([left, top])

    def band(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Band-passed crop [h, w] float32 of frame k, and its top-left corner [2] in px of the frame."""
        crop = self._crops[k].astype(np.float32)
        fine = cv2.GaussianBlur(crop, (0, 0), _FINE_SIGMA * self.eye_distance, borderType=cv2.BORDER_REPLICATE)
        coarse = cv2.GaussianBlur(crop, (0, 0), _COARSE_SIGMA * self.eye_distance, borderType=cv2.BORDER_REPLICATE)
        return fine - coarse, self._corners[k]

    def texture(self, k: int, pose: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
        """Texture [rows, columns] float32 of frame k in the reference view of `surface` for a pose [4, 4], and its
        visibility [rows, columns] bool: facing the camera and inside the image."""
        image, corner = self.band(k)
        pixels = project(self.surface.points.reshape(-1, 3), pose, focal, self.width, self.height) - corner
        inside = ((pixels >= 0) & (pixels <= image.shape[::-1])).all(-1)
        at = (pixels - 0.5).astype(np.float32).reshape(*self.surface.grid, 2)
        texture = sample_image(image, at)
        return texture, inside.reshape(self.surface.grid) & (
            facing(self.surface.points, self.surface.normals, pose) > _LEAST_FACING
        )


@dataclass(frozen=True)
class RegionShift:
    """Residual motion of one region of the face, in px of the frames, x to the right and y down."""

    shifts: np.ndarray
    """[F, 2] shift of the texture of each frame against the mean texture of the clip. NaN where not measured."""
    deviation: tuple[float, float]
    """Standard deviation of the shifts over the frames, x and y."""
    step: tuple[float, float]
    """Root mean square change of the shift between consecutive frames, x and y. NaN without such pairs."""


@dataclass(frozen=True)
class TextureAlignment:
    """Alignment of a clip."""

    regions: dict[str, RegionShift]
    """Keys: forehead, nose, cheeks."""
    residual: float
    """Root mean square difference between the texture of a frame and the best multiple of the mean texture, relative to
    the root mean square of the texture; over the three regions, median over frames. 0 for identical frames."""


def facing(points: np.ndarray, normals: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Cosine [...] of the angle between normals and the direction to the camera at a pose [4, 4]; [..., 3] both."""
    to_camera = pose[:3, 3] - points
    return (normals * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=-1)


def measure_alignment(crops: FaceCrops, fit: HeadFit) -> TextureAlignment:
    """Measure how well the poses of a fit align the textures of the frames.

    The shift of a region minimizes the squared difference to the mean texture times the best gain.
    [Lucas and Kanade 1981; the mean of both gradients: Benhimane and Malis 2004]
    Regions that are less than half visible in a frame are skipped there.

    Args:
        crops: of the frames.
        fit: poses to measure; the shape must be the one that the crops were made for.
    """
    textures = np.zeros((len(crops.frames), *crops.surface.grid), np.float16)
    visible = np.zeros(textures.shape, bool)
    for row, k in enumerate(crops.frames):
        textures[row], visible[row] = crops.texture(int(k), fit.poses[k], fit.focal)
    total = np.zeros(crops.surface.grid)
    for texture, seen in zip(textures, visible, strict=True):
        total += np.where(seen, texture.astype(np.float32), 0)
    mean = (total / np.maximum(visible.sum(0), 1)).astype(np.float32)

    rotations, translations = camera_from_world(fit.poses[crops.frames])
    face = np.median(crops.surface.points[crops.surface.regions["nose"]], axis=0)
    scales = fit.focal * SURFACE_STEP / -(rotations @ face + translations)[:, 2]  # px per grid point
    regions = {}
    for name in REGIONS:
        mask = crops.surface.regions[name]
        shifts = np.full((len(fit.poses), 2), np.nan)
        for row, k in enumerate(crops.frames):
            seen = mask & visible[row]
            if seen.sum() > _LEAST_VISIBLE * mask.sum():
                shift = texture_shift(textures[row].astype(np.float32), mean, seen)
                # Rotate from the axes of the grid, which are the head's, to those of the image.
                shifts[k] = scales[row] * (rotations[row, :2, :2] * ((1, -1), (-1, 1))) @ shift
        steps = np.diff(shifts, axis=0)
        known, pairs = np.isfinite(shifts[:, 0]), np.isfinite(steps[:, 0])
        regions[name] = RegionShift(
            shifts,
            _pair(shifts[known].std(0)) if known.any() else (np.nan, np.nan),
            _pair(np.sqrt((steps[pairs] ** 2).mean(0))) if pairs.any() else (np.nan, np.nan),
        )
    patches = np.logical_or.reduce(list(crops.surface.regions.values()))
    residuals = [
        _relative_residual(texture[patches & seen].astype(np.float64), mean[patches & seen])
        for texture, seen in zip(textures, visible, strict=True)
    ]
    return TextureAlignment(regions, float(np.median(residuals)))


def texture_shift(texture: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shift [2] in grid points (columns, rows) with texture(x + shift) = gain reference(x) inside a mask.

    All three are [rows, columns]. Accurate for shifts up to the width of the texture's features.
    """
    reference_y, reference_x = (gradient[mask] for gradient in np.gradient(reference))
    target = reference[mask]
    image = np.dstack((texture, *np.gradient(texture)[::-1]))
    shift = np.zeros(2)
    for _ in range(_SHIFT_STEPS):
        value, x, y = _shifted(image, shift)[mask].T
        gain = (value @ target) / max(target @ target, 1e-12)
        jacobian = np.column_stack((x + gain * reference_x, y + gain * reference_y)) / 2
        normal = jacobian.T @ jacobian
        # The regularization keeps the shift of a patch without texture at 0.
        step = np.linalg.solve(
            normal + (1e-6 * np.trace(normal) + 1e-9) * np.eye(2), jacobian.T @ (gain * target - value)
        )
        shift = np.clip(shift + step, -_MAX_SHIFT, _MAX_SHIFT)
        if np.abs(step).max() < 1e-3:
            break
    return shift


def _shifted(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Image [h, w, C] at x + shift, interpolated linearly. OpenCV rounds positions to 1/32 px, too coarse here."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((_MAX_SHIFT, _MAX_SHIFT + 1), (_MAX_SHIFT, _MAX_SHIFT + 1), (0, 0)), "edge")
    whole = np.minimum(np.floor(shift), _MAX_SHIFT - 1).astype(int)
    (right, down), (column, row) = shift - whole, whole + _MAX_SHIFT
    near = padded[row : row + height + 1, column : column + width + 1]
    across = (1 - right) * near[:, :-1] + right * near[:, 1:]
    return (1 - down) * across[:-1] + down * across[1:]


def _relative_residual(texture: np.ndarray, reference: np.ndarray) -> float:
    power = (texture**2).sum()
    if not power:
        return 0.0
    match = (texture @ reference) ** 2 / max((reference.astype(np.float64) ** 2).sum(), 1e-12)
    return float(np.sqrt(max(0.0, 1 - match / power)))


def sample_image(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values of an image [h, w] or [h, w, C] at [H, W, 2] float32 x, y in px, interpolated; its border is repeated."""
    second: Any = None  # the first map holds both coordinates, which OpenCV's annotations do not know
    return cv2.remap(image, at, second, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _pair(values: np.ndarray) -> tuple[float, float]:
    x, y = values
    return float(x), float(y)
