"""Speed of synthesis, from sound to a finished video."""

import contextlib
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from ernerf_ti.audio.extractors import EXTRACTORS
from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.held_out import HeldOutFrames
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import SAMPLES_PER_FRAME, speech_windows
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.images import color_image
from ernerf_ti.synthesis.pipeline import images_ahead

_MAX_FRAMES = 100


def end_to_end(
    trained: TrainedPortrait,
    capture: Capture,
    held_out: HeldOutFrames,
    samples: np.ndarray | None,
    with_torso: bool,
    speech_model: Path | None = None,
) -> dict:
    """Time the synthesis of the held-out frames, from the sound to the finished file.

    Args:
        trained, capture, held_out: as for :func:`ernerf_ti.evaluation.held_out.held_out_settings`.
        samples: [S] the capture's mono sound at 16 kHz; None without sound.
        with_torso: whether the portrait has a torso to render.
        speech_model: folder of the extractor's speech model, if it needs one.

    Returns:
        `frames`, `seconds`, `frames_per_second`, and in `how` what was timed.
    """
    n = min(len(held_out), _MAX_FRAMES)
    first = int(held_out.times[0])
    windows = torch.from_numpy(capture.audio_windows[held_out.times[:n]])
    heard = None if samples is None else samples[first * SAMPLES_PER_FRAME :][: n * SAMPLES_PER_FRAME]
    # Features of an extractor that is not available here come from the capture.
    extract = heard is not None and len(heard) and trained.extractor in EXTRACTORS
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        if extract:
            assert heard is not None
            try:
                extracted = speech_windows(trained, heard, speech_model)
                windows, n = extracted[:n], min(n, len(extracted))
            except (ImportError, FileNotFoundError):
                extract, start = False, perf_counter()
        poses, eyes = held_out.frames.poses[held_out.indices[:n]], capture.eye_closures[held_out.ids[:n]]
        frames = render_frames(trained, windows, poses, eyes, trained.background, with_torso)
        with contextlib.closing(images_ahead(frames, [color_image], trained.background.device)) as pictures:
            write_video(Path(folder) / "speech.mp4", (color for (color,) in pictures), FPS, heard, SAMPLE_RATE)
        seconds = perf_counter() - start
    features = "audio features" if extract else "features from the capture"
    return {
        "frames": n,
        "seconds": seconds,
        "frames_per_second": n / seconds,
        "how": f"{features}, rendering, copying to the host, H.264 and AAC encoding, until the file is complete",
    }
