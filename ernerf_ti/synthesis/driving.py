"""Inputs that drive a portrait: audio features of the speech, head poses and eye closure."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.extractors import extract_windows
from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.ready_made import read_windows
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.run.trained_portrait import SMOOTHING, TrainedPortrait
from ernerf_ti.synthesis.head_motion import RAMP, HeadMotion
from ernerf_ti.synthesis.options import constant_closure

SAMPLES_PER_FRAME = round(SAMPLE_RATE / FPS)
"""Sound samples at 16 kHz per video frame at 25 fps."""

BLINK_INTERVAL = 2.0, 6.0
"""Range of the seconds between two blinks: people who talk blink 10 to 30 times a minute."""
BLINK_SHAPE = (0.5, 1.0, 0.9, 0.45, 0.15)
"""Eye closure in the frames of a blink, 40 ms each."""
_BLINK_FADE = 4
"""Frames over which the capture's blinks are let in again after a rest."""


def speech_windows(trained: TrainedPortrait, samples: np.ndarray, model: Path | None = None) -> Tensor:
    """Extract the audio features that the portrait was trained with.

    Args:
        trained: the portrait.
        samples: [S] mono sound in [-1, 1] at 16 kHz.
        model: folder or file of the extractor's speech model, if it needs one.

    Returns:
        [T, steps, C] float32 windows, one per frame at 25 fps, T = ceil(S / 640).

    Raises:
        ValueError: the extractor is not available here, its speech model is another one than in training, or its
            features have another dimension.
        FileNotFoundError, ImportError: the speech model or a package that it needs is missing.
    """
    n = -(-len(samples) // SAMPLES_PER_FRAME)
    extracted = extract_windows(
        samples, trained.extractor, n, model, trained.background.device, trained.speech_projection
    )
    windows = torch.from_numpy(extracted)
    _check_dimension(trained, f"{trained.extractor} features", windows)
    return windows


def ready_made_windows(trained: TrainedPortrait, path: Path, n: int) -> Tensor:
    """Read audio features that another tool computed.

    Args:
        trained: the portrait.
        path: a .npy file.
        n: number of frames; the last window is repeated if the file has fewer.

    Returns:
        [n, steps, C] float32 windows.

    Raises:
        FileNotFoundError, ValueError: no such file, an unknown format, or features of another dimension than in
            training.
    """
    windows = torch.from_numpy(read_windows(path)[1])
    _check_dimension(trained, str(path), windows)
    return windows[torch.arange(n).clamp(max=len(windows) - 1)]


def _check_dimension(trained: TrainedPortrait, name: str, windows: Tensor) -> None:
    if windows.shape[2] != trained.feature_dimension:
        raise ValueError(
            f"{name}: expected dimension {trained.feature_dimension} (from training), got {windows.shape[2]}; "
            "use the extractor and speech model that the portrait was trained with"
        )


def ping_pong(n: int, available: int) -> np.ndarray:
    """[n] frame indices that run from 0 to available - 1, back to 0, and so on, without a jump."""
    lap, index = np.divmod(np.arange(n), available)
    return np.where(lap % 2 == 0, index, available - 1 - index)


def head_path(
    trained: TrainedPortrait, n: int, kind: str = "capture", interval: float = 1.0, smoothing: int = SMOOTHING
) -> tuple[Tensor, np.ndarray]:
    """Head poses for n frames.

    Args:
        trained: the portrait.
        n: number of frames.
        kind: "capture" plays the smoothed poses of the capture forward and backward in turn, see
            :class:`ernerf_ti.synthesis.head_motion.HeadMotion`; "still" keeps the first.
        interval: time between two frames, in frames at 25 per second.
        smoothing: number of frames averaged, odd.

    Returns:
        [n, 4, 4] pose_world_from_camera in the scene, and [n] places among the capture's frames that they come from,
        which may lie between two frames.

    Raises ValueError for another kind.
    """
    if kind == "still":
        return trained.poses[:1].expand(n, 4, 4), np.zeros(n)
    if kind != "capture":
        raise ValueError(f"pose: expected capture, still or a transforms file, got {kind!r}; choose one of these")
    motion = HeadMotion(trained.poses)
    places = motion.places(np.arange(n) * interval)
    return motion.poses(places, smoothing), places


def blinks(trained: TrainedPortrait, n: int, kind: str, seed: int = 0, interval: float = 1.0) -> np.ndarray:
    """Eye closure for n frames.

    Args:
        trained: the portrait.
        n: number of frames.
        kind: "capture" follows the capture in step with its poses; "natural" blinks at random times; a number from 0
            (open) to 1 (closed) is kept throughout.
        seed: seed of the random times.
        interval: time between two frames, in frames at 25 per second.

    Returns:
        [n] float32 in [0, 1], 0 open, 1 closed.

    Raises ValueError for another kind.
    """
    closure = constant_closure(kind)
    times = np.arange(n) * interval
    if kind == "capture":
        return _capture_blinks(trained, times)
    if kind == "natural":
        known = _natural_blinks(int(np.ceil(n * interval)) + 1, seed)
        return np.interp(times, np.arange(len(known)), known).astype(np.float32)
    return np.full(n, closure, np.float32)


def _capture_blinks(trained: TrainedPortrait, times: np.ndarray) -> np.ndarray:
    """[m] float32 eye closures of the capture at times.

    Blinks are left out where the motion slows down before a rest: they would last too long.
    """
    motion, closures = HeadMotion(trained.poses), trained.eye_closures.cpu().numpy()
    places = motion.places(times)
    usual = np.median(closures)
    away = (motion.distance_to_rest(places) - RAMP / 2) / _BLINK_FADE
    largest = usual + (1 - usual) * away.clip(0, 1)
    return np.minimum(np.interp(places, np.arange(len(closures)), closures), largest).astype(np.float32)


def _natural_blinks(n: int, seed: int) -> np.ndarray:
    """[n] float32 eye closures at 25 per second with blinks at random times."""
    generator, closure = np.random.default_rng(seed), np.zeros(n + len(BLINK_SHAPE), np.float32)
    start = generator.uniform(*BLINK_INTERVAL) * FPS / 2
    while start < n:
        closure[int(start) : int(start) + len(BLINK_SHAPE)] = BLINK_SHAPE
        start += generator.uniform(*BLINK_INTERVAL) * FPS
    return closure[:n]
