"""Head motion for speech of any length from the poses of a take: played forward and backward in turn, without jerks.

The motion comes to rest before it turns around, and before and after each cut of the take. It crosses a cut about as
fast as the person moves the head elsewhere.
"""

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.portrait.camera import head_distances, interpolate_poses, smooth_path

RAMP = 12
"""Frames in which the motion comes to rest from full speed, and starts again; even, so that poses are interpolated only
near the ends."""
_CUT_RATIO = 3.0
"""How much farther the head moves over a cut than in any of the frames around, and than in half of all frames."""
_CUT_NEIGHBORS = 3
_FAST = 95
"""Percentile of the distances that the head moves from frame to frame: the highest speed at which a cut is crossed."""
_LONGEST_CROSSING = 50


class HeadMotion:
    """Places in a take as a function of time.

    A place is the number of a frame; places between two frames stand for a blend of both.

    Args:
        poses: [n, 4, 4] pose_world_from_camera of the take's frames, scene, n at least 1.
    """

    def __init__(self, poses: Tensor):
        self._poses = poses.detach().double().cpu()
        distances = head_distances(self._poses[:-1], self._poses[1:]).numpy()
        self.cuts = _cuts(distances)
        """[c] numbers of the frames before cuts: there is a cut between each and the next."""
        first = np.concatenate(([0], self.cuts + 1))
        last = np.concatenate((self.cuts, [len(poses) - 1]))
        fast = np.percentile(distances, _FAST) if len(distances) else 1.0
        # The speed of a crossing is 1.5 times its mean at most.
        crossings = np.ceil(1.5 * distances[self.cuts] / max(fast, 1e-9)).clip(1, _LONGEST_CROSSING)
        # Pieces and crossings in turn: in the units of the take and of time.
        self._places = np.stack((first, last), 1).ravel()[:-1].astype(float)
        self._lengths = np.ones(len(self._places))
        self._lengths[::2] = last - first
        self._ramps = np.minimum(self._lengths, RAMP)
        self._durations = self._lengths + self._ramps
        self._durations[1::2] = crossings
        self._starts = np.concatenate(([0], self._durations.cumsum()))
        self._rests = np.unique(np.concatenate((first, last)))

    @property
    def lap(self) -> int:
        """Frames from one end of the take to the other."""
        return int(self._starts[-1])

    def places(self, times: np.ndarray) -> np.ndarray:
        """Places at times.

        Args:
            times: [m] in frames of the take, at least 0. The first frame is met at full speed: until the motion first
                comes to rest, the place is the time.

        Returns:
            [m] float64 places in [0, n - 1].
        """
        lap = self.lap
        if lap == 0:
            return np.zeros(len(times))
        lead = self._ramps[0] / 2  # by which a start from rest is later
        since = np.mod(times + lead, 2 * lap)
        return np.where(times < lead, times, self._place_in_lap(np.minimum(since, 2 * lap - since)))

    def distance_to_rest(self, places: np.ndarray) -> np.ndarray:
        """[m] places -> [m] frames to the nearest frame at which the motion comes to rest."""
        return np.abs(places[:, None] - self._rests).min(1)

    def poses(self, places: np.ndarray, smoothing: int) -> Tensor:
        """Poses at places.

        Args:
            places: [m] in [0, n - 1].
            smoothing: number of frames of the take averaged, odd; not over cuts.

        Returns:
            [m, 4, 4] float32.
        """
        pieces = torch.tensor_split(self._poses, [int(cut) + 1 for cut in self.cuts])
        smooth = torch.cat([smooth_path(piece, smoothing) for piece in pieces])
        return interpolate_poses(smooth.float(), places)

    def _place_in_lap(self, times: np.ndarray) -> np.ndarray:
        """[m] times since the lap's start -> [m] places."""
        k = (np.searchsorted(self._starts, times, "right") - 1).clip(0, len(self._places) - 1)
        elapsed, duration, length, ramp = times - self._starts[k], self._durations[k], self._lengths[k], self._ramps[k]
        to_end = np.minimum(elapsed, duration - elapsed)
        moved = np.where(to_end < ramp, to_end**2 / np.maximum(2 * ramp, 1e-9), to_end - ramp / 2)
        in_piece = np.where(elapsed < duration / 2, moved, length - moved)
        share = elapsed / np.maximum(duration, 1e-9)
        crossing = share**2 * (3 - 2 * share)
        return self._places[k] + np.where(k % 2 == 0, in_piece, crossing)


def _cuts(distances: np.ndarray) -> np.ndarray:
    """Numbers of the frames before cuts, from the distances [n - 1] that the head moves from frame to frame."""
    if len(distances) < 2:
        return np.zeros(0, int)
    padded = np.pad(distances, _CUT_NEIGHBORS)
    near = np.lib.stride_tricks.sliding_window_view(padded, 2 * _CUT_NEIGHBORS + 1)
    around = np.delete(near, _CUT_NEIGHBORS, 1).max(1)
    return np.flatnonzero(distances > _CUT_RATIO * np.maximum(around, np.median(distances)))
