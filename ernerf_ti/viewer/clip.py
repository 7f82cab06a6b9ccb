"""A clip to play: audio, and the inputs that drive the portrait through it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.ready_made import FORMATS
from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.sound_notes import print_sound_notes
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import blinks, head_path, speech_windows

SAMPLES_PER_FRAME = round(SAMPLE_RATE / FPS)
_SILENCE_FRAMES = 25


@dataclass(frozen=True, eq=False)
class Clip:
    """Inputs of T frames at 25 per second, and their audio. Clips are compared by identity."""

    name: str
    samples: np.ndarray
    """[640 T] float32 in [-1, 1], mono 16 kHz."""
    windows: Tensor
    """[T, steps, C] audio windows."""
    poses: Tensor
    """[T, 4, 4] pose_world_from_camera, scene."""
    pose_indices: np.ndarray
    """[T] place of each pose among the capture's, training frames first; it may lie between two."""
    eye_closures: np.ndarray
    """[T] eye closure as in the capture, 0 open, 1 closed."""
    natural_blinks: np.ndarray
    """[T] eye closure with blinks at random times."""
    true_frame: Callable[[int], np.ndarray] | None = None
    """Frame -> [H, W, 3] uint8 true image, composited over the background."""
    sound: VideoSound | None = None
    """The sound with the rate and channels of the file that it comes from, for exported videos; None without one."""

    def __len__(self) -> int:
        return len(self.windows)


def capture_clip(trained: TrainedPortrait, capture: Capture, seed: int = 0) -> Clip:
    """The capture's own recording, with the poses as tracked, not smoothed: frames compare with the true ones.

    Frames without a pose take that of the nearest frame with one.

    Raises ValueError if the capture is not that of the portrait.
    """
    expected = (trained.extractor, trained.feature_dimension, trained.size)
    got = (capture.extractor, int(capture.audio_windows.shape[2]), (capture.width, capture.height))
    if got != expected:
        raise ValueError(
            f"{capture.folder}: expected the capture of this portrait (extractor, dimension, size: {expected}), "
            f"got {got}; pass the one that it was trained on"
        )
    splits = (capture.train, capture.val)
    ids = np.concatenate([split.frame_ids for split in splits])
    poses = scene_from_capture(torch.from_numpy(np.concatenate([split.poses for split in splits]))).float()
    audio_ids = np.concatenate([split.audio_ids for split in splits])
    windows = torch.from_numpy(capture.audio_windows)
    # Audio frames have numbers of their own, which in some captures differ from those of the images.
    order = np.argsort(audio_ids, kind="stable")
    nearest = order[_nearest(audio_ids[order], np.arange(len(windows)))]
    has_sound = capture.paths.sound.is_file()
    samples = read_sound(capture.paths.sound, SAMPLE_RATE) if has_sound else np.zeros(0, np.float32)
    return Clip(
        capture.folder.name,
        _fitted(samples, len(windows)),
        windows,
        poses[nearest],
        nearest,
        capture.eye_closures[ids[nearest]].astype(np.float32),
        blinks(trained, len(windows), "natural", seed),
        lambda k: capture.image(int(ids[nearest[k]])),
        VideoSound.of_file(capture.paths.sound) if has_sound else None,
    )


def sound_clip(trained: TrainedPortrait, path: Path, speech_model: Path | None = None, seed: int = 0) -> Clip:
    """An audio file, with the head moving as in the capture.

    Raises:
        FileNotFoundError, ValueError, ImportError: no such file, no audio in it, or a feature extractor that is not
            available here.
    """
    print_sound_notes(path)
    samples = read_sound(path, SAMPLE_RATE)
    if not len(samples):
        raise ValueError(f"{path}: expected speech, got no sound; pass a longer recording")
    clip = _driven(trained, path.name, samples, speech_windows(trained, samples, speech_model), seed)
    return replace(clip, sound=VideoSound.of_file(path))


def silent_clip(trained: TrainedPortrait, seed: int = 0) -> Clip:
    """As many silent frames as the capture has, for a portrait without its capture."""
    n = len(trained.poses)
    windows = silent_windows(trained)[_SILENCE_FRAMES // 2].expand(n, -1, -1)
    return _driven(trained, "silence (no audio)", np.zeros(n * SAMPLES_PER_FRAME, np.float32), windows, seed)


def silent_windows(trained: TrainedPortrait) -> Tensor:
    """[25, steps, C] windows of silence; zeros if the extractor is not available here."""
    try:
        return speech_windows(trained, np.zeros(_SILENCE_FRAMES * SAMPLES_PER_FRAME, np.float32))
    except (OSError, ValueError, ImportError):
        steps = next(known.window for known in FORMATS if known.extractor == trained.extractor)
        return torch.zeros(_SILENCE_FRAMES, steps, trained.feature_dimension)


def _driven(trained: TrainedPortrait, name: str, samples: np.ndarray, windows: Tensor, seed: int) -> Clip:
    n = len(windows)
    return Clip(
        name,
        _fitted(samples, n),
        windows,
        *head_path(trained, n),
        blinks(trained, n, "capture"),
        blinks(trained, n, "natural", seed),
    )


def _fitted(samples: np.ndarray, n_frames: int) -> np.ndarray:
    wanted = n_frames * SAMPLES_PER_FRAME
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples)))).astype(np.float32)


def _nearest(rising: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[n] indices of the ascending values nearest to the wanted ones."""
    after = np.searchsorted(rising, wanted).clip(1, max(1, len(rising) - 1))
    before = after - 1
    after = np.minimum(after, len(rising) - 1)
    return np.where(wanted - rising[before] <= rising[after] - wanted, before, after)
