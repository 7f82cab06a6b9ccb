"""Measures of a mouth over time, on plain signals: how far it is open in each frame, and how loud the sound is."""

import numpy as np

from ernerf_ti.synthesis.driving import SAMPLES_PER_FRAME

_EMPTY_DB = -70.0  # a frame below holds nothing
_SILENCE_DB = 30.0  # quieter by that much than speech
_PAUSE_DB = 20.0  # the same, with a breath or a room that is heard
_PAUSE = 5  # frames at least: between words, not within them
_BEFORE = 8  # frames of silence after which the mouth should be closed: .3 s
_AFTER = 5  # frames before the next sound, for which the mouth opens beforehand
_FLOOR_DB = 40.0  # below speech; noise below has no influence
_LEAST_PERCENTILE = 2.0

SILENCE = (
    "silence is sound 30 dB below speech (the 90th percentile of the loudness), for at least .3 s before the frame and "
    ".2 s after it"
)
"""How silent frames are found, for descriptions."""
PAUSE = "a pause is sound 20 dB below speech (the 90th percentile of the loudness) for .2 s or more"
"""How pauses are found, for descriptions."""


def frame_loudness(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Level of a sound in each frame.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1].
        times: [n] int, index at 25 fps into the sound of each frame.

    Returns:
        [n] float64, 20 log10 of the root mean square over 40 ms relative to full scale, in dB, at least -120; NaN for
        frames outside the sound.
    """
    samples = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    frames = samples[: len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    levels = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    known = (times >= 0) & (times < len(levels))
    loudness = np.full(len(times), np.nan)
    loudness[known] = levels[times[known]]
    return loudness


def speech_level(loudness: np.ndarray) -> float:
    """Level of the speech in loudness [n] of :func:`frame_loudness`: the 90th percentile of the frames that hold
    anything (more than -70 dB); NaN if none does."""
    filled = loudness[loudness > _EMPTY_DB]
    return float(np.percentile(filled, 90)) if len(filled) else float("nan")


def in_silence(loudness: np.ndarray) -> np.ndarray:
    """Frames in which a mouth has no reason to be open.

    A frame is quiet if it is 30 dB below :func:`speech_level`, or holds nothing (-70 dB). A frame is silent if it, the
    8 frames before it and the 5 frames after it are quiet: a mouth takes time to close and opens before it is heard.

    Args:
        loudness: [n] of :func:`frame_loudness`, of consecutive frames.

    Returns:
        [n] bool. Nothing is silent beside the ends, where the sound before or after is not known.
    """
    speech = speech_level(loudness)
    quiet = loudness < _EMPTY_DB
    if np.isfinite(speech):
        quiet |= loudness < speech - _SILENCE_DB
    padded = np.pad(quiet, (_BEFORE, _AFTER))
    return np.lib.stride_tricks.sliding_window_view(padded, _BEFORE + 1 + _AFTER).all(1)


def in_pauses(loudness: np.ndarray) -> np.ndarray:
    """Frames in which nothing is said: 5 or more in a row that are 20 dB below :func:`speech_level`.

    Args:
        loudness: [n] of :func:`frame_loudness`, of consecutive frames.

    Returns:
        [n] bool; nothing is a pause where nothing is said at all.
    """
    edges = np.flatnonzero(np.diff(loudness < speech_level(loudness) - _PAUSE_DB, prepend=False, append=False))
    pauses = np.zeros(len(loudness), bool)
    for first, end in edges.reshape(-1, 2):
        pauses[first:end] = end - first >= _PAUSE
    return pauses


def heard_loudness(loudness: np.ndarray) -> np.ndarray:
    """Loudness [n] in dB above a floor 40 dB below :func:`speech_level`, 0 below the floor; NaN where unknown."""
    return np.maximum(loudness - (speech_level(loudness) - _FLOOR_DB), 0)


def least_opening(openings: np.ndarray) -> float:
    """Opening of the closed mouth: the 2nd percentile of openings [N], which lets the tracker err in a few frames."""
    return float(np.percentile(openings, _LEAST_PERCENTILE))
