"""Audio features by the name of their extractor, as captures and checkpoints record it."""

from pathlib import Path

import numpy as np

from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.speech_models import HubertStates, Wav2Vec2Letters
from ernerf_ti.audio.windows import audio_windows

EXTRACTORS = ("senone", "mel", "esperanto", "hubert")
"""Those that can be computed here. "deepspeech" exists as ready-made windows only."""


def extract_windows(samples: np.ndarray, extractor: str, n_frames: int | None = None, model: Path | None = None):
    """Windows of features around each 25 fps video frame.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1].
        extractor: one of EXTRACTORS.
        n_frames: number of windows; as many as there is sound for if None.
        model: folder of the speech model, for "esperanto" and "hubert".

    Returns:
        [n_frames, window, dimension] float32.

    Raises:
        ValueError: an unknown extractor, or sound that is not as above.
        FileNotFoundError, ImportError: a speech model that is not there.
    """
    if extractor == "hubert":
        states = HubertStates(model)(samples) if model else HubertStates()(samples)
        return states if n_frames is None else _fit_length(states, n_frames)
    if extractor == "esperanto":
        features = (Wav2Vec2Letters(model) if model else Wav2Vec2Letters())(samples)
    elif extractor in ("senone", "mel"):
        features = (PhonePosteriors() if extractor == "senone" else MelSpectrum())(samples)
    else:
        raise ValueError(
            f"extractor: expected one of {', '.join(EXTRACTORS)}, got {extractor!r}; choose one of these, "
            "or pass ready-made windows"
        )
    return audio_windows(features, n_frames)


def _fit_length(windows: np.ndarray, n: int) -> np.ndarray:
    """The last state of a sound is short of its context, so that HuBERT has one frame fewer: repeat the last."""
    if len(windows) == 0:
        return np.zeros((n, *windows.shape[1:]), np.float32)
    return windows[np.minimum(np.arange(n), len(windows) - 1)]
