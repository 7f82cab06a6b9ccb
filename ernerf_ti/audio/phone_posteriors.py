"""Phone posteriors (PPG, phonetic posteriorgrams): the probabilities of 42 phones every 20 ms.

The acoustic model in the pocketsphinx package gives likelihoods for the states of its context-independent phones.
Normalized over all states and summed over those of a phone, they become probabilities; the features are the square
roots. Unlike spectra, these features generalize to other voices and languages.
"""

from pathlib import Path

import numpy as np

from ernerf_ti.audio.acoustic_model import load_acoustic_model
from ernerf_ti.audio.cepstra import WINDOW, cepstra
from ernerf_ti.audio.frame_features import FrameFeatures

_ACOUSTIC_SCALE = 0.5  # frames overlap, so that their likelihoods count the same sound repeatedly


class PhonePosteriors(FrameFeatures):
    """Square roots of phone probabilities. Subtracting the mean cepstrum removes the channel.

    Args:
        folder: a phonetically tied Sphinx model; None for the one in the pocketsphinx package.

    Raises:
        FileNotFoundError, ValueError: as :func:`ernerf_ti.audio.acoustic_model.load_acoustic_model`.
    """

    name = "ppg"
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
    """Cepstra, their first and their second differences.

    Args:
        frames: [T + 6, 13] cepstra with three frames of context at each end.
        mean: [13] or [T, 13], subtracted from the cepstra.

    Returns:
        [T, 3, 13]
    """
    n = len(frames) - 6

    def at(offset: int) -> np.ndarray:
        return frames[3 + offset : 3 + offset + n]

    return np.stack((at(0) - mean, at(2) - at(-2), at(3) - at(-1) - at(1) + at(-3)), 1)
