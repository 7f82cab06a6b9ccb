"""Background of the synthetic portrait: an out-of-focus room."""

import numpy as np


def background(size: int, seed: int) -> np.ndarray:
    """[size, size, 3] float32 in [0, 1] display values: a soft wall with blurred discs of light."""
    rng = np.random.default_rng([seed, 4])
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    wall = np.array([0.36, 0.45, 0.48]) * (1.12 - 0.55 * y)[..., None]
    glow = np.exp(-(((x - 0.12) / 0.45) ** 2) - ((y - 0.25) / 0.5) ** 2)
    picture = wall + glow[..., None] * (0.20, 0.15, 0.08)
    tints = np.array([[0.95, 0.80, 0.55], [0.60, 0.78, 0.80], [0.90, 0.62, 0.50]])
    for _ in range(16):
        cx, cy, radius = rng.uniform(-0.05, 1.05), rng.uniform(-0.05, 0.75), rng.uniform(0.03, 0.11)
        away = np.hypot(x - cx, y - cy) / radius
        disc = 1 / (1 + np.exp(np.minimum((away - 1) / 0.12, 60.0)))
        strength = rng.uniform(0.05, 0.16)
        picture += strength * disc[..., None] * (tints[rng.integers(3)] - picture)
    return np.clip(picture, 0, 1).astype(np.float32)
