"""Expression of a face as lengths between points of its mesh."""

from collections.abc import Sequence

import numpy as np

MOUTH = ("open", "width", "round")

_EYES = (33, 133), (263, 362)  # outer and inner corner of the right and the left eye
_INNER_LIPS = (82, 13, 312), (87, 14, 317)
_OUTER_LIPS = (0,), (17,)
_CORNERS = (61,), (291,)

_LIDS = "lid opening"
# Point pairs of a measure, averaged over both sides of the face; the action units that change it stand beside it.
UPPER = {
    "inner brows above the eyes": ((107, 133), (336, 362)),  # 1, 4
    "outer brows above the eyes": ((70, 33), (300, 263)),  # 2
    "distance between the brows": ((107, 336),),  # 4
    _LIDS: ((159, 145), (386, 374)),  # 5, 7, 45
}
LOWER = {
    "width of the mouth": ((61, 291),),  # 18, 20
    "corners of the mouth below the eyes": ((61, 133), (291, 362)),  # 12, 15
    "lip opening": ((13, 14),),  # 25
    "height of the lips": ((0, 17),),  # 10, 16, 23, 24
    "chin below the nose": ((2, 152),),  # 17, 26, 27
}


def mouth_measures(points: np.ndarray) -> np.ndarray:
    """Shape of the mouth, from 3-D lengths so that the head pose matters little.

    "open" is the distance between the inner lips and "width" that between the mouth's corners, both relative to the
    distance between the eyes; "round" is the height of the outer lips relative to the width.

    Args:
        points: [N, 478, 3] mesh points of MediaPipe's Face Mesh, in pixels.

    Returns:
        [N, 3] float64, in the order of MOUTH.
    """
    points = points.astype(np.float64)
    eyes, width = _distance(points, *_EYES), _distance(points, *_CORNERS)
    return np.stack((_distance(points, *_INNER_LIPS) / eyes, width / eyes, _distance(points, *_OUTER_LIPS) / width), 1)


def action_measures(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measures of the upper and the lower face.

    Args:
        points: [N, 478, 3] mesh points in pixels.

    Returns:
        [N, 4] and [N, 5] float64, in the order of UPPER and LOWER: 3-D lengths relative to the distance between the
        eyes.
    """
    points = points.astype(np.float64)
    eyes = _distance(points, *_EYES)

    def measures(pairs_of: dict) -> np.ndarray:
        lengths = [
            np.mean([_distance(points, (first,), (second,)) for first, second in pairs], 0)
            for pairs in pairs_of.values()
        ]
        return np.stack(lengths, 1) / eyes[:, None]

    return measures(UPPER), measures(LOWER)


def lid_aperture(points: np.ndarray) -> np.ndarray:
    """[N, 478, 3] mesh points -> [N] distance between the lids, averaged over both eyes, relative to the distance
    between the eyes."""
    return action_measures(points)[0][:, tuple(UPPER).index(_LIDS)]


def _distance(points: np.ndarray, first: Sequence[int], second: Sequence[int]) -> np.ndarray:
    """[N] distance between the means of two groups of points."""
    return np.linalg.norm(points[:, list(first)].mean(1) - points[:, list(second)].mean(1), axis=1)
