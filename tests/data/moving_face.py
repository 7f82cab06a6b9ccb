"""A face mesh whose expression is known, seen in any pose."""

import numpy as np

IRISES, LIDS_UPPER, LIDS_LOWER = [468, 473], [159, 386], [145, 374]
EYE_CORNERS = [33, 133, 362, 263]
BROWS = [70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 46, 53, 52, 65, 55, 285, 295, 282, 283, 276]
MOUTH_CORNERS, LIP_UPPER, LIP_LOWER, CHIN = [61, 291], [82, 13, 312], [87, 14, 317], 152


def mean_shape() -> np.ndarray:
    """[478, 3] meters in the head frame: points all over a face, and those of brows, eyes and mouth in their places."""
    rng = np.random.default_rng(0)
    shape = rng.uniform((-0.07, -0.08, 0.0), (0.07, 0.08, 0.06), (478, 3))
    shape[EYE_CORNERS] = [(x, 0.03, 0.035) for x in (-0.045, -0.017, 0.017, 0.045)]
    shape[IRISES] = [(-0.031, 0.031, 0.037), (0.031, 0.031, 0.037)]
    shape[LIDS_UPPER], shape[LIDS_LOWER] = [(-0.031, 0.035, 0.04), (0.031, 0.035, 0.04)], [(-0.031, 0.026, 0.04)] * 2
    shape[LIDS_LOWER, 0] *= (1, -1)
    x = np.linspace(0.055, 0.012, 5)
    for first, height in ((0, 0.053), (10, 0.047)):
        shape[BROWS[first : first + 10]] = [(side, height, 0.045) for side in (*-x, *x[::-1])]
    shape[MOUTH_CORNERS] = [(-0.024, -0.039, 0.045), (0.024, -0.039, 0.045)]
    shape[LIP_UPPER] = [(x, -0.036, 0.058) for x in (-0.008, 0.0, 0.008)]
    shape[LIP_LOWER] = [(x, -0.042, 0.058) for x in (-0.008, 0.0, 0.008)]
    shape[CHIN] = (0.0, -0.084, 0.045)
    return shape


def moved(brows: np.ndarray, smile: np.ndarray, gaze: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """[F, 478, 3] meters in the head frame.

    Args:
        brows, smile, opening: [F] meters that the brows rise, each corner of the mouth moves out and up, and the lower
            lip falls.
        gaze: [F, 2] meters that the irises move to the right and up.
    """
    points = np.repeat(mean_shape()[None], len(brows), 0)
    points[:, BROWS, 1] += brows[:, None]
    points[:, MOUTH_CORNERS, 0] += smile[:, None] * (-1, 1)
    points[:, MOUTH_CORNERS, 1] += smile[:, None]
    points[:, LIP_LOWER, 1] -= opening[:, None]
    points[:, IRISES, :2] += gaze[:, None]
    return points


def seen(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Head-frame points in pixels of frames in which the head turns, moves and comes nearer."""
    n = len(points)
    yaw, pitch, roll = rng.normal(0, 0.15, (3, n))
    one, zero = np.ones(n), np.zeros(n)

    def matrices(rows: list[list[np.ndarray]]) -> np.ndarray:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    c, s = np.cos, np.sin
    turned = matrices([[c(yaw), zero, s(yaw)], [zero, one, zero], [-s(yaw), zero, c(yaw)]])
    turned = turned @ matrices([[one, zero, zero], [zero, c(pitch), -s(pitch)], [zero, s(pitch), c(pitch)]])
    turned = turned @ matrices([[c(roll), -s(roll), zero], [s(roll), c(roll), zero], [zero, zero, one]])
    scale = rng.uniform(800, 2000, (n, 1, 1))
    return (scale * (points @ turned.swapaxes(1, 2)) + rng.uniform(100, 150, (n, 1, 3))) * (1, -1, -1)
