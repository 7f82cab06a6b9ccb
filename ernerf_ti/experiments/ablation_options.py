"""Options of an ablation and the names of its variants, without torch."""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.evaluation.options import check_frames
from ernerf_ti.train.config import TrainConfig

VARIANT_NAMES = (
    "frequency_concatenation",
    "planes_concatenation",
    "planes_channel",
    "hash3d_concatenation",
    "hash3d_channel",
    "triplane_hash_concatenation",
    "triplane_hash_channel",
    "triplane_hash_feature",
)
"""Rows of the paper's tables 4 and 5: a position encoder, and how audio conditions it."""


@dataclass(frozen=True)
class AblationOptions:
    """Which variants of the head are trained, on what, and where the results go.

    Raises ValueError if `variants` selects none, and for no stage or less than one frame.
    """

    capture: Path
    """Capture folder to train on."""
    output: Path
    """Folder for the runs, the table and the plot."""
    config: TrainConfig
    """Training configuration; its position encoder, a tri-plane hash, and its attention are varied."""
    stages: tuple[str, ...] = ("head",)
    """Stages to train: head, or head and finetune."""
    variants: tuple[str, ...] = ()
    """Train only the variants whose names start with one of these; all by default."""
    frames: int | None = None
    """Number of held-out frames to evaluate, evenly spaced; all by default."""
    device: str = "cpu"
    """Device to train and to evaluate on."""

    def __post_init__(self) -> None:
        check_frames(self.frames)
        if not self.stages:
            raise ValueError("stages: expected head, or head and finetune, got none; name one, or leave the option out")
        if not self.variant_names:
            raise ValueError(
                f"variants: expected the start of {', '.join(VARIANT_NAMES)}, got {' '.join(self.variants)}; "
                "choose some of these"
            )

    @property
    def variant_names(self) -> tuple[str, ...]:
        """Names of the selected variants."""
        return tuple(name for name in VARIANT_NAMES if name.startswith(self.variants or ("",)))
