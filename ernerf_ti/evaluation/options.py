"""Options of an evaluation, without torch."""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.process.device import CudaGraphs
from ernerf_ti.process.precision import Precision


@dataclass(frozen=True)
class EvaluationOptions:
    """Which run is evaluated, on which frames, and where the results go."""

    run: Path
    """Run to evaluate: its folder, or a checkpoint file."""
    output: Path | None = None
    """Folder for metrics.json and evaluation.html; RUN/evaluation by default."""
    capture: Path | None = None
    """Capture that the run was trained on; needed only if it has moved."""
    device: str = "cpu"
    """Device to render and to compute metrics on."""
    precision: Precision = "auto"
    """Format of the networks' values; see :func:`ernerf_ti.process.precision.resolve_precision`."""
    cuda_graphs: CudaGraphs = "auto"
    """Whether recorded work is repeated on CUDA; see :func:`ernerf_ti.process.graphs.cuda_graphs`."""
    frames: int | None = None
    """Number of held-out frames to evaluate, evenly spaced; all by default."""
    max_seconds: float | None = None
    """Evaluate only the first held-out seconds."""
    cross_speaker_audio: Path | None = None
    """Speech of another speaker; lip synchrony is evaluated with it too."""
    speech_model: Path | None = None
    """Folder of the speech model, for portraits trained on hubert or esperanto features."""
    weights: Path | None = None
    """Folder with the weights of the learned metrics; by default the folder where torch keeps downloaded weights."""
    keep_frames: bool = False
    """Keep the rendered frames in the folder `frames` beside the results."""
    seed: int = 0
    """Seed of the bootstrap behind the confidence intervals."""
