"""Options of an evaluation, without torch."""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.data.capture_files import FPS, MOST_FRAMES
from ernerf_ti.process.device import CudaGraphs
from ernerf_ti.process.precision import Precision


def frame_limit(seconds: float | None) -> int | None:
    """Frames of 25 fps in the option max_seconds; None for no limit, as for infinity.

    Raises ValueError for less than one frame.
    """
    if seconds is None:
        return None
    if not seconds * FPS >= 1:
        raise ValueError(
            f"max-seconds: expected at least {1 / FPS:g}, got {seconds:g}; leave the option out to evaluate all frames"
        )
    return round(seconds * FPS) if seconds * FPS < MOST_FRAMES else None


def check_frames(n: int | None) -> None:
    """Raise ValueError for an option frames of less than one frame."""
    if n is not None and n < 1:
        raise ValueError(f"frames: expected at least 1, got {n}; leave the option out to evaluate all frames")


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """How images are measured, of a run or of a video."""

    output: Path | None = None
    """Folder for metrics.json and evaluation.html; by default RUN/evaluation, or NAME_evaluation beside a video, a
    baked portrait or another checkpoint than that of a run folder."""
    device: str = "cpu"
    """Device to render and to compute metrics on."""
    max_seconds: float | None = None
    """Evaluate only the first seconds, held-out ones of a run."""
    weights: Path | None = None
    """Folder with the weights of the learned metrics; by default the folder where torch keeps downloaded weights."""
    seed: int = 0
    """Seed of the bootstrap behind the confidence intervals."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(MeasuringOptions):
    """How a run is rendered and measured."""

    capture: Path | None = None
    """Capture that the run was trained on; needed only if it has moved."""
    precision: Precision = "auto"
    """Format of the networks' values; see :func:`ernerf_ti.process.precision.resolve_precision`."""
    cuda_graphs: CudaGraphs = "auto"
    """Whether recorded work is repeated on CUDA; see :func:`ernerf_ti.process.graphs.cuda_graphs`."""
    frames: int | None = None
    """Number of held-out frames to evaluate, evenly spaced; all by default."""
    mouth_gain: float | None = None
    """How far the mouth moves with the sound, 0 to 3: with 1 as in training, with more further. By default the
    portrait's own, which the preset small sets to 1.15."""
    cross_speaker_audio: Path | None = None
    """Speech of another speaker; lip synchrony is evaluated with it too."""
    speech_model: Path | None = None
    """Folder of the speech model, for portraits trained on hubert or esperanto features."""
    keep_frames: bool = False
    """Keep the rendered frames in the folder `frames` beside the results."""


@dataclass(frozen=True)
class EvaluationOptions(RunOptions):
    """Which run is evaluated, on which frames, and where the results go."""

    run: Path
    """Run to evaluate: its folder, or a checkpoint file."""


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """What a video is compared with."""

    reference: Path | None = None
    """With --video: the true video, or a folder of its frames, in the same framing. Without it, only the metrics that
    need no truth are computed."""
    audio: Path | None = None
    """With --video: the sound that the video was made for, from its first frame on; by default the video's own, else
    that of the reference."""
    offset: int = 0
    """With --video: frames of 25 fps by which the video is late; its frame K + OFFSET is compared with frame K of the
    reference. The results say which offset fits best."""
    folder_rate: float = 25.0
    """With --video: frames per second of folders of frames."""


@dataclass(frozen=True)
class VideoOptions(MeasuringOptions, ReferenceOptions):
    """Which video is evaluated, what it is compared with, and where the results go."""

    video: Path
    """Video of a talking head by any method, or a folder of its frames."""
