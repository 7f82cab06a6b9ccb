"""Windows of audio features around each video frame."""

import numpy as np

WINDOW = 16
"""Steps of 20 ms in a window: 320 ms."""
STEPS_PER_FRAME = 2
"""At 50 steps and 25 frames per second."""
LOOK_AHEAD = 0.08
"""Seconds of sound after a frame that a live portrait waits for, unless it is told otherwise."""
LONGEST_LOOK_AHEAD = 0.24
"""Seconds of sound after a frame that its mouth can depend on: as many as synthesis has."""


def audio_windows(features: np.ndarray, n_frames: int | None = None) -> np.ndarray:
    """Windows of features, one per video frame.

    Frame t gets the steps 2 t - 8 ... 2 t + 7. Steps before and after the sound are zero, as in ER-NeRF's captures.

    Args:
        features: [T, C] at 50 steps per second.
        n_frames: number of windows; None for as many as the sound covers, ceil(T / 2).

    Returns:
        [n_frames, 16, C] in the dtype of the features.

    Raises ValueError if the features are not a matrix.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise ValueError(f"features: expected shape [T, C], got {list(features.shape)}; pass one row per step")
    if n_frames is None:
        n_frames = -(-len(features) // STEPS_PER_FRAME)
    needed = STEPS_PER_FRAME * (n_frames - 1) + WINDOW if n_frames else 0
    before = WINDOW // 2
    padded = np.zeros((max(needed, before + len(features)), features.shape[1]), features.dtype)
    padded[before : before + len(features)] = features
    first = STEPS_PER_FRAME * np.arange(n_frames)
    return padded[first[:, None] + np.arange(WINDOW)]
