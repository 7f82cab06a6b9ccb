"""How far a mouth is open, and in which frames it is closed."""

import numpy as np

_LEAST_QUANTILE = 0.02  # of the openings: that of a mouth which is surely closed, without the smallest, which may err
_TOLERANCE = 0.01  # of the eye distance: what landmarks of closed lips differ by
_MOST_FRAMES = 0.1  # of all: more are not needed, and include lips that are about to part


def lip_opening(landmarks: np.ndarray) -> np.ndarray:
    """[N, 68, 2] iBUG landmarks -> [N] distance between the inner lips relative to that between the eyes, in 2-D."""
    landmarks = landmarks.astype(np.float64)
    lips = np.linalg.norm(landmarks[:, 61:64] - landmarks[:, [67, 66, 65]], axis=-1).mean(1)
    eyes = np.linalg.norm(landmarks[:, 36:42].mean(1) - landmarks[:, 42:48].mean(1), axis=-1)
    return lips / np.maximum(eyes, 1e-6)


def closed_mouths(openings: np.ndarray) -> np.ndarray:
    """Frames of a capture whose mouth is closed, as far as it closes at all in the capture; by the lips alone.

    The opening of a frame counts as the larger one of its own and of the median of it and its neighbors, so that
    neither a landmark that errs in a single frame nor lips that just touch are taken for a closed mouth. Closed are
    openings of at most the 2nd percentile plus 1 % of the eye distance, and no more than a tenth of the frames.

    Args:
        openings: [N] as of :func:`lip_opening`, N at least 1, of frames in the order of the video.

    Returns:
        [M] int indices, ascending, M at least 1.
    """
    around = np.pad(openings, 1, "edge")
    openings = np.maximum(openings, np.median((around[:-2], openings, around[2:]), axis=0))
    least, most = np.quantile(openings, (_LEAST_QUANTILE, _MOST_FRAMES), method="higher")
    return np.flatnonzero(openings <= min(least + _TOLERANCE, most))
