"""Audio features by the name of their extractor, as captures and checkpoints record it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.windows import audio_windows

if TYPE_CHECKING:
    import torch

DEFAULT_EXTRACTOR = "ppg"
"""Phone posteriors (PPG)."""
EXTRACTORS = (DEFAULT_EXTRACTOR, "mel", "esperanto", "hubert")
"""Extractors that can be run here. "deepspeech" features can only be read from a file."""
FORMER_NAMES = {"senone": "ppg"}
"""Names in captures, checkpoints and command lines of earlier versions -> names of today."""


def current_name(extractor: str) -> str:
    """The name of today of an extractor that may be given by a former one."""
    return FORMER_NAMES.get(extractor, extractor)


def extract_windows(
    samples: np.ndarray,
    extractor: str,
    n_frames: int | None = None,
    model: Path | None = None,
    device: "torch.device | str" = "cpu",
) -> np.ndarray:
    """Windows of features around each frame of a 25 fps video.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1].
        extractor: one of EXTRACTORS, or a former name.
        n_frames: number of windows; None for as many as the sound covers.
        model: folder of the speech model, for "esperanto" and "hubert".
        device: where the speech model runs; the other extractors run on the CPU.

    Returns:
        [n_frames, window, dimension] float32.

    Raises:
        ValueError: an unknown extractor, or samples of another form.
        FileNotFoundError: there is no such speech model on this machine.
        ImportError: transformers, which runs the speech models, is not installed.
    """
    extractor = current_name(extractor)
    if extractor == "hubert":
        from ernerf_ti.audio.speech_models import HUBERT, HubertStates

        states = HubertStates(model or HUBERT, device)(samples)
        return states if n_frames is None else _fit_length(states, n_frames)
    if extractor == "esperanto":
        from ernerf_ti.audio.speech_models import WAV2VEC2, Wav2Vec2Letters

        features = Wav2Vec2Letters(model or WAV2VEC2, device)(samples)
    elif extractor == "ppg":
        features = PhonePosteriors()(samples)
    elif extractor == "mel":
        features = MelSpectrum()(samples)
    else:
        raise ValueError(
            f"extractor: expected one of {', '.join(EXTRACTORS)}, got {extractor!r}; choose one of these, "
            "or pass features from a file"
        )
    return audio_windows(features, n_frames)


def _fit_length(windows: np.ndarray, n: int) -> np.ndarray:
    """Repeat the last window: HuBERT needs context after a state, and so yields one frame fewer than the sound has."""
    if len(windows) == 0:
        return np.zeros((n, *windows.shape[1:]), np.float32)
    return windows[np.minimum(np.arange(n), len(windows) - 1)]
