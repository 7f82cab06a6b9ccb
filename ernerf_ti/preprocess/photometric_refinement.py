"""Photometric refinement of head poses.

Bundle adjustment inherits the jitter of the mesh. Here Gauss-Newton steps adjust the six pose parameters of each frame
until its band-passed face, projected onto the rigid surface, matches the median texture of the clip. The result of the
bundle adjustment is a prior for what the texture does not determine. Frames are independent: heads do jerk at 25 fps,
so nothing is smoothed over time.
"""

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from ernerf_ti.preprocess.bundle_adjustment import HeadFit, camera_from_world, rotation, world_from_camera
from ernerf_ti.preprocess.rigid_face import RIGID_POINTS, RIGID_WEIGHTS
from ernerf_ti.preprocess.texture_alignment import FaceCrops, facing, sample_image

_PASSES = 4  # each computes the median texture, then the poses
_MEDIAN_FRAMES = 300  # in the median; other frames are only refined in the last pass
_STEPS = 10
_CONVERGED = 0.003  # px
_LEAST_FACING, _FULL_FACING = 0.3, 0.6  # cosines between which the weight of a point rises from 0 to 1
_REGION_WEIGHTS = {"forehead": 0.5, "nose": 2.0, "cheeks": 1.0}  # brows and smiles move the skin elsewhere
_TUKEY = 4.0  # robust standard deviations; larger residuals have no weight
# Samples are a millimeter apart and correlated: the band-passed texture varies over about 4 mm.
_CORRELATED_SAMPLES = 16
# Standard deviation of a rigid point in the bundle adjustment as a fraction of the eye distance, and the number of
# points with correlated errors.
_LANDMARK_DEVIATION, _CORRELATED_POINTS = 0.008, 32
_LEAST_SAMPLES = 300
# Of the eye distance, at the center of the face; a frame that moves farther keeps the pose of the bundle adjustment.
_MAX_MOTION = 0.08


@dataclass(frozen=True)
class _Samples:
    """Points [N, 3] of the surface with normals [N, 3] and weights [N]."""

    points: np.ndarray
    normals: np.ndarray
    weights: np.ndarray


def refine_poses(crops: FaceCrops, fit: HeadFit, progress: bool = False) -> tuple[HeadFit, np.ndarray]:
    """Refine the pose of each frame until its texture matches the median texture of the clip.

    Args:
        crops: of the frames, made for this fit.
        fit: the bundle adjustment.
        progress: show a progress bar.

    Returns:
        The fit with refined poses and the unchanged errors of the bundle adjustment; and [F] bool, the frames that were
        refined. The others, in which too little is visible or nothing matches, keep their pose.

    Deterministic.
    """
    surface = crops.surface
    masks = [surface.regions[name] for name in _REGION_WEIGHTS]
    samples = _Samples(
        np.concatenate([surface.points[mask] for mask in masks]),
        np.concatenate([surface.normals[mask] for mask in masks]),
        np.concatenate(
            [np.full(mask.sum(), weight) for mask, weight in zip(masks, _REGION_WEIGHTS.values(), strict=True)]
        ),
    )
    poses, refined = fit.poses.copy(), np.zeros(len(fit.poses), bool)
    some = crops.frames[np.linspace(0, len(crops.frames) - 1, min(len(crops.frames), _MEDIAN_FRAMES)).astype(int)]
    passes = [some] * (_PASSES - 1) + [crops.frames]
    bar = tqdm(total=sum(map(len, passes)), desc="refining poses", disable=not progress, unit="frame")
    with bar:
        for frames in passes:
            median, weights = _median_texture(crops, samples, poses, fit.focal, some)
            matcher = _Matcher(crops, replace(samples, weights=samples.weights * weights), fit, median)
            for k in frames:
                pose = matcher.match(k, poses[k])
                refined[k] = pose is not None
                poses[k] = fit.poses[k] if pose is None else pose
                bar.update()
    return replace(fit, poses=poses), refined


def _median_texture(
    crops: FaceCrops, samples: _Samples, poses: np.ndarray, focal: float, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Median texture of each sample over the frames [N], and weights [N] that fall with its variation."""
    textures = np.full((len(frames), len(samples.points)), np.nan, np.float32)
    for row, k in enumerate(frames):
        image, corner = crops.band(k)
        turn, shift = camera_from_world(poses[k])
        view = _View(crops, samples, focal, turn, shift, corner)
        seen = view.weights > 0
        textures[row, seen] = view.sample(image)[seen]
    some = np.isfinite(textures).any(0)
    median, spread = np.zeros((2, len(samples.points)), np.float32)
    median[some] = np.nanmedian(textures[:, some], axis=0)
    spread[some] = np.nanmedian(np.abs(textures[:, some] - median[some]), axis=0)
    usual = max(float(np.median(spread[some])), 1e-6) if some.any() else 1.0
    return median, some / (1 + (spread / usual) ** 2)


class _View:
    """Projection of the samples for R [3, 3] and t [3]: pixels [N, 2] of the crop, with weights [N]."""

    def __init__(
        self,
        crops: FaceCrops,
        samples: _Samples,
        focal: float,
        rotation: np.ndarray,
        translation: np.ndarray,
        corner: np.ndarray,
    ):
        self.turned = samples.points @ rotation.T
        camera = self.turned + translation
        self.depth = -camera[:, 2]
        self.ray = camera[:, :2] / self.depth[:, None] * (1, -1)
        self._at = (self.ray * focal + (crops.width / 2, crops.height / 2) - corner - 0.5).astype(np.float32)
        cosine = facing(samples.points, samples.normals, world_from_camera(rotation, translation))
        weights = np.clip((cosine - _LEAST_FACING) / (_FULL_FACING - _LEAST_FACING), 0, 1)
        limit = (crops.width, crops.height) - corner - 1
        inside = ((self._at >= 0) & (self._at <= limit)).all(1)
        self.weights = samples.weights * weights * inside

    def sample(self, image: np.ndarray) -> np.ndarray:
        """Values of an image [h, w] or [h, w, C] at the samples."""
        return sample_image(image, self._at[:, None])[:, 0]


class _Matcher:
    """Gauss-Newton on the pose of one frame at a time."""

    def __init__(self, crops: FaceCrops, samples: _Samples, fit: HeadFit, median: np.ndarray):
        self._crops, self._samples, self._fit, self._median = crops, samples, fit, median
        self._rigid = fit.shape[RIGID_POINTS]
        self._middle = samples.points.mean(0)

    def match(self, k: int, pose: np.ndarray) -> np.ndarray | None:
        """The pose [4, 4] at which the frame matches the median texture; None if there is no match."""
        rotations, translations = camera_from_world(np.stack((pose, self._fit.poses[k])))
        (turn, prior_turn), (shift, prior_shift) = rotations, translations
        prior = self._prior(prior_turn, prior_shift)
        image, corner = self._crops.band(k)
        down, right = np.gradient(image)
        image = np.dstack((image, right, down))
        for _ in range(_STEPS):
            view = _View(self._crops, self._samples, self._fit.focal, turn, shift, corner)
            if (view.weights > 0).sum() < _LEAST_SAMPLES:
                return None
            value, *gradient = view.sample(image).T
            weight = view.weights
            target = self._median
            gain = (weight * value * target).sum() / max((weight * target * target).sum(), 1e-9)
            if gain <= 0:
                return None
            residual = value - gain * target
            deviation = max(1.48 * np.median(np.abs(residual[weight > 0])), 1e-3)
            robust = np.maximum(0, 1 - (residual / (_TUKEY * deviation)) ** 2) ** 2
            weight = weight * robust / (deviation**2 * _CORRELATED_SAMPLES)

            by_pixel = self._fit.focal / view.depth
            right, down = gradient[0] * by_pixel, gradient[1] * by_pixel
            by_camera = np.column_stack((right, -down, right * view.ray[:, 0] + down * view.ray[:, 1]))
            jacobian = np.column_stack((np.cross(view.turned, by_camera), by_camera))
            normal = jacobian.T @ (jacobian * weight[:, None]) + prior
            offset = np.append(_rotation_vector(turn @ prior_turn.T), shift - prior_shift)
            step = -np.linalg.solve(normal, jacobian.T @ (weight * residual) + prior @ offset)
            turn, shift = rotation(step[:3]) @ turn, shift + step[3:]
            if self._moved(step, turn, shift) < _CONVERGED:
                break
        offset = np.append(_rotation_vector(turn @ prior_turn.T), shift - prior_shift)
        if self._moved(offset, turn, shift) > _MAX_MOTION * self._crops.eye_distance:
            return None
        return world_from_camera(turn, shift)

    def _moved(self, change: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> float:
        """Motion in px of the center of the face under a small change [6] of the pose."""
        arm = turn @ self._middle
        x, y, z = arm + shift
        right, up, nearer = np.cross(change[:3], arm) + change[3:]
        return np.hypot(right - nearer * x / z, up - nearer * y / z) * self._fit.focal / -z

    def _prior(self, turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Information matrix [6, 6] of the pose given the rigid landmarks."""
        turned = self._rigid @ turn.T
        camera = turned + shift
        depth = -camera[:, 2]
        zero, one = np.zeros_like(depth), np.ones_like(depth)
        scale = RIGID_WEIGHTS * self._fit.focal / (depth * _LANDMARK_DEVIATION * self._crops.eye_distance)
        information = np.zeros((6, 6))
        for row in ((one, zero, camera[:, 0] / depth), (zero, one, camera[:, 1] / depth)):
            by_camera = np.column_stack(row) * scale[:, None]
            jacobian = np.column_stack((np.cross(turned, by_camera), by_camera))
            information += jacobian.T @ jacobian
        return information / _CORRELATED_POINTS


def _rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] -> axis times angle [3], for angles well below pi."""
    vector = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / 2
    sine = np.linalg.norm(vector)
    return vector * (np.arctan2(sine, (np.trace(matrix) - 1) / 2) / sine if sine > 1e-12 else 1.0)
