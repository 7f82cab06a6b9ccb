"""How fast a portrait speaks, from sound to a finished video."""

import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from ernerf_ti.audio.extractors import EXTRACTORS
from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.held_out import Chosen
from ernerf_ti.media.video import VideoWriter
from ernerf_ti.process.prefetch import ahead
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import speech_windows
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.video import picture_of

_MOST_FRAMES = 100
_SAMPLES_PER_FRAME = round(SAMPLE_RATE / FPS)


def end_to_end(
    trained: TrainedPortrait,
    capture: Capture,
    chosen: Chosen,
    samples: np.ndarray | None,
    torso: bool,
    speech_model: Path | None = None,
) -> dict:
    """Time a video of the held-out frames, from the sound to the finished file.

    Args:
        trained, capture, chosen: as for :func:`ernerf_ti.evaluation.held_out.held_out_settings`.
        samples: [S] the capture's sound.
        torso: whether there is one to render.
        speech_model: folder of the extractor's model, if it has one.

    Returns:
        Frames, seconds, frames per second, and what was timed.
    """
    n = min(len(chosen), _MOST_FRAMES)
    first = int(chosen.times[0])
    windows = torch.from_numpy(capture.audio_windows[chosen.times[:n]])
    heard = None if samples is None else samples[first * _SAMPLES_PER_FRAME :][: n * _SAMPLES_PER_FRAME]
    # An extractor that can't be computed here has its windows in the capture.
    extract = heard is not None and len(heard) and trained.extractor in EXTRACTORS
    with tempfile.TemporaryDirectory() as folder:
        begin = perf_counter()
        if extract:
            try:
                found = speech_windows(trained, heard, speech_model)
                windows, n = found[:n], min(n, len(found))
            except (ImportError, FileNotFoundError):
                extract, begin = False, perf_counter()
        writer = VideoWriter(Path(folder) / "speech.mp4", FPS, heard, SAMPLE_RATE)
        try:
            poses, eyes = chosen.frames.poses[chosen.places[:n]], capture.eye_closures[chosen.ids[:n]]
            for output in ahead(render_frames(trained, windows, poses, eyes, trained.background, torso)):
                writer.write(picture_of(output))
            writer.finish()
        finally:
            writer.close()
        seconds = perf_counter() - begin
    what = "audio features, " if extract else "features from the capture, "
    return {
        "frames": n,
        "seconds": seconds,
        "frames_per_second": n / seconds,
        "how": f"{what}rendering, copying to the host, H.264 and AAC, until the file is complete",
    }
