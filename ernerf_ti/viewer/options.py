"""What the viewer opens, as command lines and programs pass it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernerf_ti.media.provenance.signing import Signer
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
    mouth_gain: float | None = None
    make_signer: Callable[[Callable[[], Mapping[str, Any]]], Signer | None] | None = None
    """From what is said about the portrait to what signs the files; None to sign nothing."""
