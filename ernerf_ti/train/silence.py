"""Silence to train on: the features that a capture's extractor gives for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import AFTER, BEFORE
from ernerf_ti.audio.extractors import extract_windows
from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.silence import pause_windows
from ernerf_ti.data.capture import Capture
from ernerf_ti.media.sound import read_sound
from ernerf_ti.run.checkpoint import state_entry

_FRAMES = 40  # windows of a pause
_SPEECH = 8 * SAMPLE_RATE  # before it


def silent_windows(capture: Capture) -> tuple[Tensor | None, str]:
    """Windows of silence, by the extractor of the capture's audio features.

    Silence is noise at -60 dB: once after the first 8 s of the capture's sound, and once without any speech.

    Returns:
        [2, 40, steps, C] float32 on the CPU, [1, 40, steps, C] without the capture's sound; and "". Or None, and a line
        that says why: features of other tools, or a speech model that is not installed.
    """

    def extract(samples: np.ndarray, n_frames: int) -> np.ndarray:
        return extract_windows(samples, capture.extractor, n_frames, projection=capture.projection)

    before = [np.zeros(0)]
    try:
        if capture.paths.sound.is_file():
            before.insert(0, read_sound(capture.paths.sound, SAMPLE_RATE)[:_SPEECH])
        windows = np.stack([pause_windows(speech, extract, _FRAMES, seed) for seed, speech in enumerate(before)])
        expected = capture.audio_windows.shape[1:]
        if windows.shape[2:] != expected:
            raise ValueError(f"expected windows of shape {list(expected)}, got {list(windows.shape[2:])}")
    except (ImportError, FileNotFoundError, ValueError) as error:
        return None, f"no training on silence, because {capture.extractor} features of it can't be extracted: {error}"
    return torch.from_numpy(windows.astype(np.float32)), ""


def silence_of(content: Mapping[str, Any], capture: Capture, path: Path) -> Tensor | None:
    """The windows of silence in a checkpoint, on the CPU; None in that of a run without.

    Args:
        content: of the checkpoint.
        capture: of the run.
        path: of the checkpoint, for messages.

    Raises ValueError if they are damaged.
    """
    if "silence" not in content:
        return None
    windows = state_entry(content, "silence", Tensor, path)
    shape = list(windows.shape)
    fits = windows.dtype == torch.float32 and windows.dim() == 4 and shape[2:] == list(capture.audio_windows.shape[1:])
    if not fits or shape[0] < 1 or shape[1] < BEFORE + AFTER or not torch.isfinite(windows).all():
        raise ValueError(
            f"{path}: expected finite windows of silence like those of the capture, got {windows.dtype} of shape "
            f"{shape}; the file is damaged, take another copy"
        )
    return windows.cpu()
