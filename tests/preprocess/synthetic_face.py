"""An artificial face: mesh points, a textured surface, and images of it."""

import cv2
import numpy as np

from ernerf_ti.preprocess.bundle_adjustment import HeadFit, camera_from_world, head_frame, rotation, world_from_camera

_MIDLINE = {10: 81, 151: 66, 9: 48, 8: 42, 168: 36, 6: 27, 197: 21, 195: 15, 5: 9, 4: 3, 1: -6, 152: -84}
# (right, left): x of the left one and y, mm
_PAIRS = {
    (109, 338): (18, 81), (67, 297): (36, 78), (103, 332): (51, 72), (54, 284): (60, 63), (21, 251): (69, 54),
    (108, 337): (15, 66), (69, 299): (30, 66), (104, 333): (45, 63), (68, 298): (57, 57), (71, 301): (63, 48),
    (162, 389): (72, 42), (139, 368): (69, 39), (127, 356): (75, 24), (34, 264): (72, 24), (156, 383): (63, 36),
    (33, 263): (45, 30), (133, 362): (18, 30), (130, 359): (48, 30), (243, 463): (15, 30), (143, 372): (63, 27),
    (193, 417): (6, 33), (122, 351): (6, 27), (245, 465): (9, 27), (188, 412): (9, 24), (196, 419): (6, 21),
    (3, 248): (6, 15), (174, 399): (9, 18), (217, 437): (12, 12), (236, 456): (9, 12), (51, 281): (6, 9),
    (198, 420): (12, 9), (134, 363): (9, 6), (45, 275): (6, 0), (220, 440): (9, 0), (126, 355): (18, 9),
    (100, 329): (24, 12), (119, 348): (33, 12), (111, 340): (57, 18), (116, 345): (66, 12), (117, 346): (54, 15),
    (118, 347): (45, 12), (101, 330): (33, 6), (50, 280): (48, -3), (234, 454): (75, 9), (227, 447): (72, 12),
    (123, 352): (63, 0), (137, 366): (72, -3), (142, 371): (24, 3), (36, 266): (30, -3), (131, 360): (15, 3),
}  # fmt: skip


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z of the surface in meters over x and y: an ellipsoid with a nose."""
    skull = 0.095 * np.sqrt(np.maximum(1 - (x / 0.088) ** 2 - (y / 0.13) ** 2, 0.02)) - 0.04
    return skull + 0.022 * np.exp(-((x / 0.014) ** 2) - ((y - 0.003) / 0.018) ** 2)


def made_points() -> np.ndarray:
    """[478, 3] meters, x right, y up, z out of the face. Points that no test needs lie anywhere on the surface."""
    xy = np.random.default_rng(3).uniform((-60, -80), (60, 60), (478, 2))
    for point, y in _MIDLINE.items():
        xy[point] = 0, y
    for (right, left), (x, y) in _PAIRS.items():
        xy[right], xy[left] = (-x, y), (x, y)
    return np.column_stack((xy, height(*xy.T / 1000) * 1000)) / 1000


def face_shape() -> np.ndarray:
    """The same points in the head frame."""
    scale, turn, origin = head_frame(made_points())
    return scale * (made_points() - origin) @ turn.T


def head_poses(n_frames: int, distance: float = 1.0, seed: int = 0) -> np.ndarray:
    """[F, 4, 4] pose_world_from_camera of a head that looks around."""
    generator = np.random.default_rng(seed)
    turns = rotation(np.radians(generator.uniform((-10, -18, -8), (10, 18, 8), (n_frames, 3))))
    return world_from_camera(
        turns, generator.uniform((-0.03, -0.03, -0.05), (0.03, 0.03, 0.05), (n_frames, 3)) - (0, 0, distance)
    )


def move(poses: np.ndarray, degrees: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """Poses with the head turned by [F, 3] degrees and shifted by [F, 3] meters along the axes of the camera."""
    turns, shifts = camera_from_world(poses)
    return world_from_camera(rotation(np.radians(degrees)) @ turns, shifts + metres)


class Portrait:
    """The surface with a texture of spots, rendered at size x size px."""

    def __init__(self, size: int = 144):
        self.size, self.focal = size, 4.2 * size  # eyes 55 px apart at one meter
        noise = np.random.default_rng(4).normal(size=(440, 400)).astype(np.float32)
        spots = 8 * cv2.GaussianBlur(noise, (0, 0), 3) + 14 * cv2.GaussianBlur(noise[::-1], (0, 0), 7)
        self._texture = 128 + 25 * spots  # two texels per millimeter

    def fit(self, poses: np.ndarray) -> HeadFit:
        return HeadFit(self.focal, poses, face_shape(), 0.0, 0.0)

    def render(self, pose: np.ndarray) -> np.ndarray:
        """[size, size, 3] uint8 from a pose [4, 4] in the head frame."""
        scale, turn, origin = head_frame(made_points())
        rotation, translation = camera_from_world(pose)
        # X_camera = R s G (X - o) + t, up to a factor.
        rotation = rotation @ turn
        eye = origin - rotation.T @ translation / scale
        u, v = np.meshgrid(*(np.arange(self.size) + 0.5 - self.size / 2,) * 2)
        rays = np.stack((u / self.focal, -v / self.focal, -np.ones_like(u)), -1) @ rotation
        z = np.full(u.shape, 0.05)
        for _ in range(15):  # converges if no ray is steeper than the nose
            points = eye + rays * ((z - eye[2]) / rays[..., 2])[..., None]
            z = height(points[..., 0], points[..., 1])
        at = ((points[..., :2] * (1, -1) + (0.1, 0.11)) * 2000).astype(np.float32)
        gray = cv2.remap(self._texture, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.repeat(np.clip(np.round(gray), 0, 255).astype(np.uint8)[..., None], 3, -1)
