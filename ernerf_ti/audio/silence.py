"""The features of silence: what an extractor makes of the faint noise that is left when nobody speaks."""

from collections.abc import Callable

import numpy as np

from ernerf_ti.audio.frame_features import STEP
from ernerf_ti.audio.windows import STEPS_PER_FRAME, WINDOW

LEVEL = 1e-3
"""Root mean square of the noise relative to full scale: -60 dB."""
SAMPLES_PER_FRAME = STEPS_PER_FRAME * STEP
HALF_WINDOW = WINDOW // 2 // STEPS_PER_FRAME
"""Frames that a window reaches back and ahead: 160 ms."""


def noise(n: int, seed: int) -> np.ndarray:
    """[n] samples of white Gaussian noise at -60 dB."""
    return LEVEL * np.random.default_rng(seed).standard_normal(n)


def pause_windows(
    speech: np.ndarray, extract: Callable[[np.ndarray, int], np.ndarray], n_frames: int, seed: int
) -> np.ndarray:
    """Windows in a pause after speech, none of which holds anything of the speech or of the end of the sound.

    Extractors relate a sound to the whole recording, so that silence is something else to them in a pause than in a
    recording of nothing else.

    Args:
        speech: [S] mono 16 kHz sound in [-1, 1] before the pause; may be empty.
        extract: samples and a number n of frames -> [n, steps, C] windows.
        n_frames: number of windows.
        seed: of the noise.

    Returns:
        [n_frames, steps, C]; the first window is that of 160 ms after the speech.
    """
    n_speech = len(speech) // SAMPLES_PER_FRAME
    n_noise = n_frames + 2 * HALF_WINDOW
    sound = np.concatenate((speech[: n_speech * SAMPLES_PER_FRAME], noise(n_noise * SAMPLES_PER_FRAME, seed)))
    begin = n_speech + HALF_WINDOW
    return extract(sound, n_speech + n_noise)[begin : begin + n_frames]
