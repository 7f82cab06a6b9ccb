"""Head and eyes while a session runs, without an end."""

import numpy as np
from torch import Tensor

from ernerf_ti.live.frame import FPS
from ernerf_ti.portrait.camera import interpolate_poses
from ernerf_ti.run.trained_portrait import SMOOTHING, TrainedPortrait
from ernerf_ti.synthesis.driving import BLINK_INTERVAL, BLINK_SHAPE
from ernerf_ti.synthesis.head_motion import HeadMotion


class CapturePath:
    """The smoothed poses of the capture forward and backward in turn; see
    :class:`ernerf_ti.synthesis.head_motion.HeadMotion`. Shared by sessions."""

    def __init__(self, trained: TrainedPortrait):
        self._motion = HeadMotion(trained.poses)
        self._smooth = self._motion.poses(np.arange(len(trained.poses), dtype=float), SMOOTHING)
        self._device = trained.background.device

    def at(self, time: int) -> tuple[Tensor, float]:
        """The pose [4, 4] in the scene at a time in frames, and its place among the capture's frames."""
        places = self._motion.places(np.array([time], float))
        return interpolate_poses(self._smooth, places)[0].to(self._device), float(places[0])


class Blinks:
    """Eye closures with blinks at random times.

    Args:
        seed: of the times.
        rest: closure between blinks.
    """

    def __init__(self, seed: int, rest: float):
        self._generator, self._rest = np.random.default_rng(seed), rest
        self._start = self._generator.uniform(*BLINK_INTERVAL) * FPS / 2

    def at(self, frame: int) -> float:
        """In [0, 1] at a frame; call it for frames that do not go back."""
        while frame >= int(self._start) + len(BLINK_SHAPE):
            self._start += self._generator.uniform(*BLINK_INTERVAL) * FPS
        i = frame - int(self._start)
        return self._rest + (1 - self._rest) * BLINK_SHAPE[i] if i >= 0 else self._rest
