"""How well head poses hold the texture of a face still, measured without its landmarks.

With the right poses each point of the skull shows the same texture in every frame. The gray face, band-passed so
that light and noise count little, is warped through the fitted shape to a reference view; what is left of its
motion there is the error of the poses, and of a rigid face as a model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from ernerf_ti.preprocess.bundle_adjustment import OUTER_EYE_CORNERS, HeadFit, camera_from_world, project
from ernerf_ti.preprocess.rigid_face import REGIONS, FaceSurface, face_surface

SURFACE_STEP = 0.001  # m
# Of the distance between the outer corners of the eyes, 1 and 5.5 px for 135 px.
_FINE_SIGMA, _COARSE_SIGMA = 0.0075, 0.04
_MARGIN_SIGMAS = 4  # of the coarse blur around the face; poses may move within it
_LEAST_FACING = 0.3  # cosine between normal and view
_LEAST_VISIBLE = 0.5  # of a region
_SHIFT_STEPS = 8
_MOST_SHIFTED = 10  # grid points


class FaceCrops:
    """The gray face of each valid frame, small enough to keep for a whole clip: about 50 kB at 512x512.

    Args:
        frame: k -> [H, W, 3] uint8 RGB, called once for each valid frame in order.
        fit: where the face is.
        progress: show a bar.

    Raises ValueError if a frame's size is not the one before.
    """

    def __init__(self, frame: Callable[[int], np.ndarray], fit: HeadFit, progress: bool = False):
        self.frames = np.flatnonzero(np.isfinite(fit.poses).all((1, 2)))
        """[V] the valid frames."""
        depth = np.median(np.linalg.norm(fit.poses[self.frames, :3, 3], axis=-1))
        self.eye_distance = fit.focal * OUTER_EYE_CORNERS / depth
        """px between the outer corners of the eyes."""
        self._crops: dict[int, np.ndarray] = {}
        self._corners: dict[int, np.ndarray] = {}
        self.surface = face_surface(fit.shape, SURFACE_STEP)
        self.width = self.height = 0
        patches = self.surface.points[np.logical_or.reduce(list(self.surface.regions.values()))]
        margin = 2 + _MARGIN_SIGMAS * _COARSE_SIGMA * self.eye_distance
        for k in tqdm(self.frames, "face texture", disable=not progress, unit="frame"):
            picture = frame(int(k))
            if not self.width:
                self.height, self.width = picture.shape[:2]
            if picture.shape != (self.height, self.width, 3) or picture.dtype != np.uint8:
                raise ValueError(
                    f"frame {k}: expected [{self.height}, {self.width}, 3] uint8 RGB as the first, got {picture.shape} "
                    f"{picture.dtype}; pass the frames that were fitted"
                )
            pixels = project(patches, fit.poses[k], fit.focal, self.width, self.height)
            left, top = np.maximum(pixels.min(0) - margin, 0).astype(int)
            right, bottom = np.maximum(pixels.max(0) + margin, (left + 8, top + 8)).astype(int)
            crop = picture[top:bottom, left:right]
            self._crops[k] = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) if crop.size else np.zeros((8, 8), np.uint8)
            self._corners[k] = np.array([left, top])

    def band(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Band-passed crop [h, w] float32 of frame k, and its left top corner [2] in px of the frame."""
        crop = self._crops[k].astype(np.float32)
        fine = cv2.GaussianBlur(crop, (0, 0), _FINE_SIGMA * self.eye_distance, borderType=cv2.BORDER_REPLICATE)
        coarse = cv2.GaussianBlur(crop, (0, 0), _COARSE_SIGMA * self.eye_distance, borderType=cv2.BORDER_REPLICATE)
        return fine - coarse, self._corners[k]

    def texture(self, k: int, pose: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
        """Texture [rows, columns] float32 of frame k in the reference view of `surface`, seen from a pose [4, 4].

        And where it is visible, [rows, columns] bool: turned to the camera, and in the picture.
        """
        image, corner = self.band(k)
        pixels = project(self.surface.points.reshape(-1, 3), pose, focal, self.width, self.height) - corner
        inside = ((pixels >= 0) & (pixels <= image.shape[::-1])).all(-1)
        at = (pixels - 0.5).astype(np.float32).reshape(*self.surface.grid, 2)
        texture = cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return texture, inside.reshape(self.surface.grid) & (facing(self.surface, pose) > _LEAST_FACING)


@dataclass(frozen=True)
class RegionShift:
    """What is left of the motion of one region of the face, in px of the frames, x to the right and y down."""

    shifts: np.ndarray
    """[F, 2] shift of each frame's texture against the clip's mean texture. NaN where it is not measured."""
    deviation: tuple[float, float]
    """Standard deviation of the shifts over the frames, x and y."""
    step: tuple[float, float]
    """Root mean square of the shifts' change from a frame to the next one, x and y. NaN without such pairs."""


@dataclass(frozen=True)
class TextureAlignment:
    """The measured alignment of a clip."""

    regions: dict[str, RegionShift]
    """By name: forehead, nose, cheeks."""
    residual: float
    """Root mean square difference between a frame's texture and the best multiple of the mean texture over that of
    the frame's texture, over the three regions; median over frames. 0 for frames that are all alike."""


def facing(surface: FaceSurface, pose: np.ndarray) -> np.ndarray:
    """Cosine [...] of the angle between the surface's normals and the way to the camera at a pose [4, 4]."""
    to_camera = pose[:3, 3] - surface.points
    return (surface.normals * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=-1)


def measure_alignment(crops: FaceCrops, fit: HeadFit) -> TextureAlignment:
    """Measure the alignment of the poses of a fit on the frames' textures.

    A region's shift is the one that makes the squared differences to the mean texture, times the best gain, least.
    [Lucas and Kanade 1981; the mean of both gradients: Benhimane and Malis 2004]
    Regions that are less than half visible in a frame are left out of it.

    Args:
        crops: of the frames.
        fit: poses to judge, of the shape that the crops were cut for.
    """
    textures = np.zeros((len(crops.frames), *crops.surface.grid), np.float16)
    visible = np.zeros(textures.shape, bool)
    for row, k in enumerate(crops.frames):
        textures[row], visible[row] = crops.texture(k, fit.poses[k], fit.focal)
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
                # The grid's axes are the head's: turn them into the picture's.
                shifts[k] = scales[row] * (rotations[row, :2, :2] * ((1, -1), (-1, 1))) @ shift
        steps = np.diff(shifts, axis=0)
        known, pairs = np.isfinite(shifts[:, 0]), np.isfinite(steps[:, 0])
        regions[name] = RegionShift(
            shifts,
            tuple(map(float, shifts[known].std(0))) if known.any() else (np.nan, np.nan),
            tuple(map(float, np.sqrt((steps[pairs] ** 2).mean(0)))) if pairs.any() else (np.nan, np.nan),
        )
    patches = np.logical_or.reduce(list(crops.surface.regions.values()))
    residuals = [
        _relative_residual(texture[patches & seen].astype(np.float64), mean[patches & seen])
        for texture, seen in zip(textures, visible, strict=True)
    ]
    return TextureAlignment(regions, float(np.median(residuals)))


def texture_shift(texture: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shift [2] in grid points (columns, rows) with texture(x + shift) = gain reference(x) inside a mask.

    All three are [rows, columns]. Right for shifts up to the width of the texture's features.
    """
    reference_y, reference_x = (gradient[mask] for gradient in np.gradient(reference))
    goal = reference[mask]
    image = np.dstack((texture, *np.gradient(texture)[::-1]))
    shift = np.zeros(2)
    for _ in range(_SHIFT_STEPS):
        value, x, y = _look(image, shift)[mask].T
        gain = (value @ goal) / max(goal @ goal, 1e-12)
        jacobian = np.column_stack((x + gain * reference_x, y + gain * reference_y)) / 2
        normal = jacobian.T @ jacobian
        # A patch without texture has no shift to find.
        step = np.linalg.solve(
            normal + (1e-6 * np.trace(normal) + 1e-9) * np.eye(2), jacobian.T @ (gain * goal - value)
        )
        shift = np.clip(shift + step, -_MOST_SHIFTED, _MOST_SHIFTED)
        if np.abs(step).max() < 1e-3:
            break
    return shift


def _look(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Image [h, w, C] at x + shift, linear between pixels; OpenCV rounds positions to 1/32 px, too coarse here."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((_MOST_SHIFTED, _MOST_SHIFTED + 1), (_MOST_SHIFTED, _MOST_SHIFTED + 1), (0, 0)), "edge")
    whole = np.minimum(np.floor(shift), _MOST_SHIFTED - 1).astype(int)
    (right, down), (column, row) = shift - whole, whole + _MOST_SHIFTED
    near = padded[row : row + height + 1, column : column + width + 1]
    across = (1 - right) * near[:, :-1] + right * near[:, 1:]
    return (1 - down) * across[:-1] + down * across[1:]


def _relative_residual(texture: np.ndarray, reference: np.ndarray) -> float:
    power = (texture**2).sum()
    if not power:
        return 0.0
    match = (texture @ reference) ** 2 / max((reference.astype(np.float64) ** 2).sum(), 1e-12)
    return float(np.sqrt(max(0.0, 1 - match / power)))
