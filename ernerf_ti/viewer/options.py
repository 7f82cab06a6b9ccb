"""What the viewer opens, as command lines and programs pass it."""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.process.device import CudaGraphs
from ernerf_ti.process.precision import Precision
from ernerf_ti.train.config import STAGES


@dataclass(frozen=True)
class ViewerOptions:
    """A portrait to open, and what goes with it; `ernerf-ti view --help` explains the fields."""

    run: Path
    capture: Path | None = None
    audio: Path | None = None
    background: Path | None = None
    output: Path | None = None
    inbox: Path | None = None
    speech_model: Path | None = None
    train: Path | None = None
    preset: str = "small"
    stages: tuple[str, ...] = STAGES
    device: str = "cpu"
    precision: Precision = "auto"
    cuda_graphs: CudaGraphs = "auto"
