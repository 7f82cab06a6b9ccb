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
    :class:`ernerf_ti.synthesis.head_motion.HeadMotion`. Shared by sessions.

    Args:
        trained: the portrait.
        seconds: of the capture that are played, without a cut if there is a piece as long; None for all of it.
    """

    def __init__(self, trained: TrainedPortrait, seconds: float | None = None):
        most = len(trained.poses)
        stretch = slice(None) if seconds is None else _stretch(trained.poses, max(1, round(min(seconds * FPS, most))))
        poses = trained.poses[stretch]
        self._first, self._motion = stretch.start or 0, HeadMotion(poses)
        self._smooth = self._motion.poses(np.arange(len(poses), dtype=float), SMOOTHING)
        self._device = trained.background.device

    def __len__(self) -> int:
        """Frames of the capture that are played."""
        return len(self._smooth)

    def at(self, time: int) -> tuple[Tensor, float]:
        """The pose [4, 4] in the scene at a time in frames, and its place among the capture's frames."""
        places = self._motion.places(np.array([time], float))
        return interpolate_poses(self._smooth, places)[0].to(self._device), self._first + float(places[0])

    def all_poses(self) -> list[tuple[Tensor, float]]:
        """What :meth:`at` returns at all times, each once."""
        places = self._motion.places(np.arange(2 * self._motion.lap + 1, dtype=float))
        _, times = np.unique(places, return_index=True)
        return [self.at(int(time)) for time in times]


def _stretch(poses: Tensor, n: int) -> slice:
    """n frames of the capture: the first ones without a cut, and those up to a cut where pieces are a bit shorter."""
    cuts = HeadMotion(poses).cuts
    first, end = np.concatenate(([0], cuts + 1)), np.concatenate((cuts + 1, [len(poses)]))
    lengths = np.minimum(end - first, n)
    longest = int(lengths.argmax())
    if lengths[longest] < n / 2:
        return slice(0, n)
    return slice(int(first[longest]), int(first[longest] + lengths[longest]))


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
