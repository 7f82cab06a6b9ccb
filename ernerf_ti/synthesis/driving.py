"""What drives a portrait: audio features of the speech, head poses and blinks."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.extractors import extract_windows
from ernerf_ti.audio.ready_made import read_windows
from ernerf_ti.portrait.camera import smooth_path
from ernerf_ti.run.trained_portrait import SMOOTHING, TrainedPortrait

_BLINK_EVERY = 2.0, 6.0
"""Seconds between blinks of people who talk: 10 to 30 a minute."""
_BLINK_SHAPE = (0.5, 1.0, 0.9, 0.45, 0.15)
"""Closure in the frames of a blink, 40 ms each."""


def speech_windows(trained: TrainedPortrait, samples: np.ndarray, model: Path | None = None) -> Tensor:
    """[S] mono 16 kHz sound -> [T, steps, C] windows of the portrait's extractor, one per 25 fps frame.

    Raises:
        ValueError: the extractor can't be computed here, or gives another dimension.
    """
    windows = torch.from_numpy(extract_windows(samples, trained.extractor, -(-len(samples) // 640), model))
    _check_dimension(trained, f"{trained.extractor} features", windows)
    return windows


def ready_made_windows(trained: TrainedPortrait, path: Path, n: int) -> Tensor:
    """[n, steps, C] windows of a .npy file that another tool made of the speech; the last one is repeated.

    Raises:
        FileNotFoundError, ValueError: no such file, one of no known format, or features of another dimension.
    """
    _, windows = read_windows(path)
    windows = torch.from_numpy(windows)
    _check_dimension(trained, str(path), windows)
    return windows[torch.arange(n).clamp(max=len(windows) - 1)]


def _check_dimension(trained: TrainedPortrait, name: str, windows: Tensor) -> None:
    if windows.shape[2] != trained.feature_dimension:
        raise ValueError(
            f"{name}: expected dimension {trained.feature_dimension} (of the training), "
            f"got {windows.shape[2]}; pass the speech model that the portrait was trained with"
        )


def ping_pong(n: int, available: int) -> np.ndarray:
    """[n] indices that run to the end, back, and on, so that there is no jump."""
    turn, place = np.divmod(np.arange(n), available)
    return np.where(turn % 2 == 0, place, available - 1 - place)


def head_path(
    trained: TrainedPortrait, n: int, kind: str = "capture", smoothing: int = SMOOTHING
) -> tuple[Tensor, np.ndarray]:
    """How the head moves in n frames.

    Args:
        kind: "capture": those of the capture, smoothed, there and back; "still": the first one.
        smoothing: frames in a mean, odd.

    Returns:
        [n, 4, 4] poses, scene, and [n] places of their frames in the capture.

    Raises ValueError for another kind.
    """
    if kind == "still":
        return trained.poses[:1].expand(n, 4, 4), np.zeros(n, int)
    if kind != "capture":
        raise ValueError(f"pose: expected capture, still or a file, got {kind!r}; choose one of these")
    places = ping_pong(n, len(trained.poses))
    return smooth_path(trained.poses.double().cpu(), smoothing).float()[places], places


def blinks(trained: TrainedPortrait, n: int, kind: str, seed: int = 0) -> np.ndarray:
    """[n] float32 closure of the eyes.

    Args:
        kind: "capture": that of the capture, along with its poses; "natural": blinks at random times; or
            a number from 0 (open) to 1 (closed).
        seed: of the random times.

    Raises ValueError for another kind.
    """
    if kind == "capture":
        return trained.eye_closures.cpu().numpy()[ping_pong(n, len(trained.eye_closures))].astype(np.float32)
    if kind == "natural":
        generator, closure = np.random.default_rng(seed), np.zeros(n + len(_BLINK_SHAPE), np.float32)
        at = generator.uniform(*_BLINK_EVERY) * 25 / 2
        while at < n:
            closure[int(at) : int(at) + len(_BLINK_SHAPE)] = _BLINK_SHAPE
            at += generator.uniform(*_BLINK_EVERY) * 25
        return closure[:n]
    try:
        value = float(kind)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"blink: expected capture, natural or a number from 0 to 1, got {kind!r}; choose one of these")
    return np.full(n, value, np.float32)
