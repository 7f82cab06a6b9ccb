"""What the 68 landmarks of a face say about its expression."""

import numpy as np


def lip_opening(landmarks: np.ndarray) -> np.ndarray:
    """[N, 68, 2] iBUG landmarks -> [N] distance between the inner lips relative to that between the eyes, in 2-D."""
    landmarks = landmarks.astype(np.float64)
    lips = np.linalg.norm(landmarks[:, 61:64] - landmarks[:, [67, 66, 65]], axis=-1).mean(1)
    eyes = np.linalg.norm(landmarks[:, 36:42].mean(1) - landmarks[:, 42:48].mean(1), axis=-1)
    return lips / np.maximum(eyes, 1e-6)
