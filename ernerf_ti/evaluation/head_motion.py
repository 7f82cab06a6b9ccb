"""The head's rigid motion in a sequence of face meshes, and what of the mesh does not follow it."""

import numpy as np

from ernerf_ti.preprocess.rigid_face import LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS, RIGID_POINTS, RIGID_WEIGHTS

_ROUNDS = 3  # of aligning the frames to their mean
_WEIGHTS = RIGID_WEIGHTS / RIGID_WEIGHTS.sum()


def eye_distance(points: np.ndarray) -> np.ndarray:
    """[N, 478, 3] mesh points -> [N] distance between the middles of both eyes' corners, in 3-D, in their unit."""
    points = points.astype(np.float64)
    right, left = (points[:, list(eye)].mean(1) for eye in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS))
    return np.linalg.norm(right - left, axis=1)


def head_position(points: np.ndarray) -> np.ndarray:
    """[N, 478, 3] mesh points in pixels -> [N, 2] x and y of the rigid part of the face: its weighted mean."""
    return np.einsum("p,npk->nk", _WEIGHTS, points[:, RIGID_POINTS, :2].astype(np.float64))


def rigid_shapes(points: np.ndarray) -> np.ndarray:
    """The rigid points of the face without the head's motion.

    Each frame is moved, turned and scaled to the mean of all (weighted least squares [Umeyama 1991], the mean being
    refined in three rounds), so that only changes of the shape remain, which a skull does not make.

    Args:
        points: [N, 478, 3] mesh points.

    Returns:
        [N, P, 3] float64 for the points RIGID_POINTS, in units of the distance between the eyes.
    """
    shapes = points[:, RIGID_POINTS].astype(np.float64)
    shapes = shapes / eye_distance(points).mean()
    shapes -= np.einsum("p,npk->nk", _WEIGHTS, shapes)[:, None]
    target = shapes[len(shapes) // 2]
    for _ in range(_ROUNDS):
        aligned = _aligned(shapes, target)
        target = aligned.mean(0)
    return aligned


def jitter(positions: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Deviation of each frame from the middle between the frame before and the frame after it.

    Steady motion has none. Independent errors of standard deviation s in each coordinate and frame give a root mean
    square of s.

    Args:
        positions: [n, P, K], P points with K coordinates.
        known: [n] bool, frames that may be used.

    Returns:
        [n] root mean square over points and coordinates; NaN for frames that are not known with both neighbors.
    """
    values = np.full(len(positions), np.nan)
    inner = known[:-2] & known[1:-1] & known[2:]
    off = positions[1:-1] - (positions[:-2] + positions[2:]) / 2
    values[1:-1] = np.where(inner, np.sqrt(np.square(off).mean((1, 2)) / 1.5), np.nan)
    return values


def _aligned(shapes: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Centered shapes [N, P, 3], turned and scaled to a centered target [P, 3]."""
    covariance = np.einsum("p,npi,pj->nij", _WEIGHTS, shapes, target)
    u, s, vt = np.linalg.svd(covariance)
    signs = np.ones_like(s)
    signs[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * signs[:, None]) @ vt
    scale = (s * signs).sum(1) / np.einsum("p,npk,npk->n", _WEIGHTS, shapes, shapes)
    return scale[:, None, None] * (shapes @ rotation)
