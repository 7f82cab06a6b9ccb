"""What a session gives: a picture with its 40 ms of sound."""

from dataclasses import dataclass

import numpy as np

FPS = 25
SOUND_RATE = 48_000
"""Samples per second of the sound of frames."""
SOUND_PER_FRAME = SOUND_RATE // FPS


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame of a session."""

    image: np.ndarray
    """[H, W, 3] uint8 RGB, or [H, W, 4] RGB and straight alpha on a transparent background. Not marked as synthesized:
    whatever writes or sends it must do that."""
    sound: np.ndarray
    """[1, 1920] float32 in [-1, 1], mono at 48 kHz, to be heard while the picture is seen."""
    time: float
    """Seconds since the session's first frame: k / 25 for frame k, whatever happened before."""
    speaking: bool
    """Whether it is part of a segment. If not, the sound is silent but for the last 10 ms after an interruption."""
    segment: int | None = None
    """Number of the segment, counted from 0 in the order in which they were pushed; None while nobody speaks."""
    starts: bool = False
    """Whether it is the first of its segment."""
    ends: bool = False
    """Whether its segment ends here, spoken to the end or interrupted."""
