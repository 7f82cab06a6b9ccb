"""How often each frame is drawn where rare frames count as much as usual ones.

A clip of speech has few frames with closed eyes, with a wide mouth or with a turned head. Drawn as often as the others,
they are not learned even where they are trained on.
"""

import numpy as np

from ernerf_ti.data.mouth import lip_opening

_CLOSURES = (0.1, 0.2, 0.3, 0.5, 0.7)
_OPENINGS = (0.1, 0.6)  # closed, usual and wide, as fractions of the range of openings
_RANGE = (1, 99)  # percentiles of the openings, so that a mistracked mouth does not widen the range
_TURN = 5.0  # degrees
_MOST = 10.0


def rare_frame_probabilities(closures: np.ndarray, landmarks: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Probabilities of frames by how rare their eyes, their mouth and their head pose are.

    A third each is given to eye closure, mouth opening and head pose. Within each, all groups of similar frames that
    occur have the same share, whatever their size: six of the closure; a closed, a usual and a wide mouth; views of
    the head in steps of 5 degrees to the side and up.

    No frame has more than ten times its part of a uniform draw. A group of its own is often a tracking error, and would
    have up to a third of all steps; a group of a hundredth of the frames keeps a tenth of them.

    Args:
        closures: [n] in [0, 1].
        landmarks: [n, 68, 2] in pixels.
        poses: [n, 4, 4] of the camera as a capture has them.

    Returns:
        [n] float64.
    """
    openings = lip_opening(landmarks)
    low, high = np.percentile(openings, _RANGE)
    edges = [low + fraction * (high - low) for fraction in _OPENINGS]
    groups = np.digitize(closures, _CLOSURES), np.digitize(openings, edges), _views(poses)
    return capped(np.mean([inverse_frequency(group) for group in groups], 0), _MOST / len(closures))


def inverse_frequency(groups: np.ndarray) -> np.ndarray:
    """[n] probabilities of n frames, with the same sum in each of the groups that they are in.

    Args:
        groups: [n] integers, 0 or more.
    """
    weights = 1 / np.bincount(groups)[groups]
    return weights / weights.sum()


def capped(probabilities: np.ndarray, most: float) -> np.ndarray:
    """[n] probabilities of at most `most`; what is cut off is given to the others in proportion.

    Args:
        probabilities: [n].
        most: at least 1 / n.
    """
    found, cut = probabilities, np.zeros(len(probabilities), bool)
    while (found > most).any():
        cut |= found > most
        left, sum_left = 1 - most * cut.sum(), probabilities[~cut].sum()
        found = np.where(cut, most, probabilities * (left / sum_left if sum_left else 0.0))
    return found


def _views(poses: np.ndarray) -> np.ndarray:
    """[n] group of the direction in which the camera lies, seen from the head."""
    right, up, front = np.moveaxis(poses[:, :3, 3], 1, 0)
    angles = np.stack((np.arctan2(right, front), np.arctan2(up, np.hypot(right, front))), 1)
    _, groups = np.unique(np.round(np.degrees(angles) / _TURN), axis=0, return_inverse=True)
    return groups.reshape(-1)  # numpy 2.0 returns [n, 1]
