"""Mouth shape while a timeline is spoken: the ground truth that audio features should predict."""

import numpy as np

from ernerf_ti.data.synthetic.phonemes import LIPS_CLOSED, PHONES
from ernerf_ti.data.synthetic.speech import Segment

FRAME_RATE = 25
"""Video frames per second; frame k shows the state at k / 25 s."""
MOUTH_COLUMNS = ("opening", "width", "rounding")
"""Meters between the inner lips, meters from corner to corner, protrusion of the lips in [0, 1]."""

_STEPS_PER_FRAME = 8  # 5 ms
_REACH = 0.04  # seconds; standard deviation of the averaging over neighboring phones
_CLOSING = 0.045  # seconds that the lips take to meet or part


def mouth_track(timeline: tuple[Segment, ...], n_frames: int) -> np.ndarray:
    """[n_frames, 3] float32 of MOUTH_COLUMNS.

    Coarticulation: neighboring phones are averaged by their dominance (after Cohen and Massaro 1993). The
    lips meet at every P, B and M.
    """
    n = n_frames * _STEPS_PER_FRAME
    times = np.arange(n) / (FRAME_RATE * _STEPS_PER_FRAME)
    ends = np.array([segment.end for segment in timeline])
    which = np.minimum(np.searchsorted(ends, times, "right"), len(timeline) - 1)
    targets, pulls, apart = np.empty((n, 3)), np.empty((n, 3)), np.ones(n)
    for i, segment in enumerate(timeline):
        at = which == i
        phone = PHONES[segment.symbol]
        u = np.clip((times[at] - segment.start) / (segment.end - segment.start), 0, 1)[:, None]
        first, last = np.array(phone.mouth), np.array(phone.mouth_end or phone.mouth)
        targets[at], pulls[at] = first + (last - first) * u, phone.pull
        if segment.symbol in LIPS_CLOSED:
            middle, half = (segment.start + segment.end) / 2, (segment.end - segment.start) / 2
            away = np.clip((np.abs(times - middle) - 0.7 * half) / _CLOSING, 0, 1)
            apart = np.minimum(apart, away * away * (3 - 2 * away))
    track = _coarticulated(targets * pulls) / _coarticulated(pulls)
    track[:, 0] *= apart
    return (track[::_STEPS_PER_FRAME] * (1e-3, 1e-3, 1.0)).astype(np.float32)


def _coarticulated(track: np.ndarray) -> np.ndarray:
    sigma = _REACH * FRAME_RATE * _STEPS_PER_FRAME
    reach = int(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(track, ((reach, reach), (0, 0)), "edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, 0) @ (kernel / kernel.sum())
