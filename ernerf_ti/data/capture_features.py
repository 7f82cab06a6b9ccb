"""Extract the audio features of a capture into its folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ernerf_ti.audio.extractors import WHISPER, extract_windows
from ernerf_ti.audio.ready_made import save_projection, save_windows
from ernerf_ti.audio.windows import STEPS_PER_FRAME, audio_windows
from ernerf_ti.data.capture_files import split_frames


@dataclass(frozen=True)
class SpeechModel:
    """The speech model of an extractor that uses one, and how it is used."""

    path: Path | None = None
    """File or folder; None for the usual one."""
    layer: int = 3
    """Layer of Whisper's encoder whose states are taken, from 1 on."""
    look_ahead: float | None = None
    """Seconds that Whisper hears ahead, as in a stream; None for the whole recording."""
    device: str = "cpu"
    """Where it runs."""


def write_features(
    folder: Path, samples: np.ndarray, extractor: str, n_frames: int, model: SpeechModel = SpeechModel()
) -> np.ndarray:
    """Extract features and write them, for "whisper" with the projection that is fitted to the training frames.

    Args:
        folder: the capture; made if it does not exist.
        samples: [S] mono 16 kHz sound in [-1, 1].
        extractor: one of :data:`ernerf_ti.audio.extractors.EXTRACTORS`.
        n_frames: of the video.
        model: for "hubert", "esperanto" and "whisper".

    Returns:
        [n_frames, window, dimension] float32.

    Raises:
        FileNotFoundError, ImportError, ValueError: as :func:`ernerf_ti.audio.extractors.extract_windows`, or no such
            layer.
    """
    if extractor == WHISPER:
        from ernerf_ti.audio.whisper_features import fit_whisper

        n_fit = STEPS_PER_FRAME * split_frames(n_frames)
        projection, features = fit_whisper(samples, n_fit, model.path, model.layer, model.look_ahead, model.device)
        windows = audio_windows(features, n_frames)
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_projection(folder, projection)
    else:
        windows = extract_windows(samples, extractor, n_frames, model.path, model.device)
        Path(folder).mkdir(parents=True, exist_ok=True)
    save_windows(folder, extractor, windows)
    return windows
