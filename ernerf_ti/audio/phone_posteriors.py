"""Phone posteriors of speech: how much each of 42 phones is heard, every 20 ms.

The acoustic model of the pocketsphinx package scores the states of its context-independent phones; the
scores become probabilities, of which the square root is the feature. What phone is heard carries over
to other voices and other languages, where spectra do not.
"""

from pathlib import Path

import numpy as np

from ernerf_ti.audio.acoustic_model import load_acoustic_model
from ernerf_ti.audio.cepstra import WINDOW, cepstra
from ernerf_ti.audio.frame_features import FrameFeatures

_ACOUSTIC_SCALE = 0.5  # frames overlap, so their likelihoods count the same sound more than once


class PhonePosteriors(FrameFeatures):
    """Square roots of phone probabilities; the channel is taken out by the mean cepstrum.

    Args:
        folder: a phonetically tied Sphinx model; that of the pocketsphinx package if None.

    Raises:
        FileNotFoundError, ValueError: as :func:`ernerf_ti.audio.acoustic_model.load_acoustic_model`.
    """

    name = "senone"
    window = WINDOW
    context = 3  # for the second differences

    def __init__(self, folder: Path | None = None):
        if folder is None:
            import pocketsphinx

            folder = Path(pocketsphinx.get_model_path("en-us/en-us"))
        self.model = load_acoustic_model(folder)
        self.dimension = len(self.model.phones)

    def frames(self, samples: np.ndarray, before: float) -> np.ndarray:
        return cepstra(samples, before)

    def steps(self, frames: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        logs = _ACOUSTIC_SCALE * self.model.log_likelihoods(feature_streams(frames, mean))
        states = np.exp(logs - logs.max((1, 2), keepdims=True))
        phones = states.sum(2) / states.sum((1, 2))[:, None]
        return np.sqrt(phones).reshape(-1, 2, self.dimension).mean(1).astype(np.float32)


def feature_streams(frames: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """[T + 6, 13] cepstra with three frames of context, their mean -> [T, 3, 13].

    The cepstra themselves, their first and their second differences.
    """
    n = len(frames) - 6

    def at(offset: int) -> np.ndarray:
        return frames[3 + offset : 3 + offset + n]

    return np.stack((at(0) - mean, at(2) - at(-2), at(3) - at(-1) - at(1) + at(-3)), 1)
