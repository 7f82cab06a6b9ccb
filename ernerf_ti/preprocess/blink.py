"""Eye closure from the face mesh."""

import numpy as np

# Corner, two points of the upper lid, other corner, the two points of the lower lid below those.
_EYES = ((33, 160, 158, 133, 144, 153), (362, 385, 387, 263, 380, 373))
_OPEN_PERCENTILE = 90
_CLOSED_FRACTION = 0.25  # of an open eye's aspect ratio: in the mesh, closed lids stay apart by their thickness


def eye_closure(points: np.ndarray) -> np.ndarray:
    """Eye closure of each frame, averaged over both eyes.

    The eye aspect ratio (Soukupova and Cech 2016: distance of the lids over the width of the eye), measured in 3-D to
    reduce the influence of the head pose, relative to its 90th percentile over the clip.

    Args:
        points: [F, 478, 3] mesh points in pixels, NaN in frames without a face.

    Returns:
        [F] float64 in [0, 1], 0 open, 1 closed; interpolated in frames without a face.

    Raises:
        ValueError: no frame has a face.
    """
    seen = np.isfinite(points).all((1, 2))
    if not seen.any():
        raise ValueError(
            f"points: expected a face in at least one frame, got none in {len(points)}; track the face first"
        )
    closure = np.mean([_closure(points[seen][:, eye]) for eye in _EYES], 0)
    return np.interp(np.arange(len(points)), np.flatnonzero(seen), closure)


def _closure(eye: np.ndarray) -> np.ndarray:
    """[F, 6, 3] points of one eye -> [F] in [0, 1]."""
    left, upper, right, lower = eye[:, 0], eye[:, [1, 2]], eye[:, 3], eye[:, [4, 5]]
    lids = np.linalg.norm(upper - lower, axis=-1).mean(-1)
    ratio = lids / np.linalg.norm(right - left, axis=-1)
    openness = ratio / np.percentile(ratio, _OPEN_PERCENTILE)
    return np.clip((1 - openness) / (1 - _CLOSED_FRACTION), 0, 1)
