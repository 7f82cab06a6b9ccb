"""The head in several forms, each trained on one capture for as many steps: the paper's tables 4 and 5.

Each form has a run folder of its own, beside which its figures are kept, so that an interrupted ablation goes on.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ernerf_ti.data.capture import Capture
from ernerf_ti.evaluation.evaluation import Task, evaluate
from ernerf_ti.evaluation.results_text import as_json
from ernerf_ti.media.files import write_json
from ernerf_ti.portrait.config import (
    FrequencyConfig,
    HashGridConfig,
    PlainTriplaneConfig,
    PositionEncoderConfig,
    TriplaneHashConfig,
)
from ernerf_ti.portrait.model.position_encoders import position_encoder
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_to_dict
from ernerf_ti.train.config import TrainConfig
from ernerf_ti.train.perceptual import resolve_perceptual
from ernerf_ti.train.trainer import Trainer

FIGURES = "figures.json"
_SETTING = "head"
_PLANE_FEATURES = 16
METRICS = (
    *("PSNR frame", "PSNR lips", "SSIM lips", "LPIPS alex", "LMD", "mesh AUE upper", "mesh AUE lower"),
    *("mouth opening r", "SyncNet confidence"),
)
"""Of the head before the true torso, where they could be computed."""


@dataclass(frozen=True)
class Variant:
    """A form of the head."""

    name: str
    """Of its folder."""
    encoder: str
    """In words."""
    conditioning: str
    """In words."""
    position_encoder: PositionEncoderConfig
    attention: str


def variants(triplane: TriplaneHashConfig) -> list[Variant]:
    """The rows of the paper's tables 4 and 5, with encoders that hold about as many numbers each.

    Args:
        triplane: the preset's encoder, which the others are made to match in size.
    """
    n_numbers = _size(triplane)

    def hash_grid(log2_table_size: int) -> HashGridConfig:
        return HashGridConfig(triplane.n_levels, 16, triplane.finest_resolution, log2_table_size, 2)

    hash3d = min(map(hash_grid, range(10, 20)), key=lambda config: abs(math.log(_size(config) / n_numbers)))
    planes = PlainTriplaneConfig(round(math.sqrt(n_numbers / (3 * _PLANE_FEATURES))), _PLANE_FEATURES)
    encoders = {
        "frequency": ("MLP, frequencies (AD-NeRF)", FrequencyConfig()),
        "planes": ("dense tri-plane (EG3D)", planes),
        "hash3d": ("3-D hash grid (Instant-NGP)", hash3d),
        "triplane_hash": ("tri-plane hash (ER-NeRF)", triplane),
    }
    conditionings = {
        "concatenation": ("concatenation", "none"),
        "channel": ("attention by channel", "channel"),
        "feature": ("attention by feature", "feature"),
    }
    pairs = [
        ("frequency", "concatenation"),
        *((encoder, c) for encoder in ("planes", "hash3d", "triplane_hash") for c in ("concatenation", "channel")),
        ("triplane_hash", "feature"),
    ]
    return [
        Variant(f"{e}_{c}", encoders[e][0], conditionings[c][0], encoders[e][1], conditionings[c][1]) for e, c in pairs
    ]


def _size(config: PositionEncoderConfig) -> int:
    return sum(parameter.numel() for parameter in position_encoder(config, 1.0).parameters())


@dataclass(frozen=True)
class Ablation:
    """What is compared, and where it goes."""

    capture: Capture
    folder: Path
    config: TrainConfig
    """Whose position encoder and attention are exchanged; its encoder is a tri-plane hash."""
    stages: tuple[str, ...] = ("head",)
    n_frames: int | None = None
    """Held-out frames that are evaluated; None for all."""
    device: str = "cpu"


def run_ablation(
    ablation: Ablation, chosen: list[Variant], should_stop: Callable[[], bool] = lambda: False
) -> list[dict] | None:
    """Train and evaluate what is not there yet.

    Args:
        ablation: capture, budget and folder.
        chosen: forms of the head.
        should_stop: asked between training steps, and between forms.

    Returns:
        A row of figures for each form; None if it was stopped, in which case the same call goes on.

    Raises:
        ValueError: the folder holds a form that was trained with other settings.
        TrainingError, FileNotFoundError: as :meth:`Trainer.run`.
    """
    rows = []
    for variant in chosen:
        row = _row(ablation, variant, should_stop)
        if row is None or should_stop():
            return None
        rows.append(row)
    return rows


def _row(ablation: Ablation, variant: Variant, should_stop: Callable[[], bool]) -> dict | None:
    folder = ablation.folder / variant.name
    config = _config(ablation.config, variant)
    asked = {"config": config_to_dict(config), "stages": list(ablation.stages), "n_frames": ablation.n_frames}
    if (folder / FIGURES).is_file():
        kept = json.loads((folder / FIGURES).read_text())
        _check_same(folder / FIGURES, asked, kept["asked"])
        return kept["row"]
    if (RunFolder(folder).checkpoint).is_file():
        trainer = Trainer.resume(ablation.capture, folder, ablation.device)
        _check_same(RunFolder(folder).checkpoint, asked["config"], config_to_dict(trainer.config))
    else:
        trainer = Trainer(ablation.capture, config, folder, ablation.device)
    if not trainer.run(ablation.stages, should_stop):
        return None
    task = Task(folder, RunFolder(folder).evaluation, ablation.capture.folder, ablation.device, ablation.n_frames)
    evaluation = as_json(evaluate(task))
    row = _figures(variant, evaluation, sum(getattr(config, stage).iterations for stage in ablation.stages))
    shutil.rmtree(task.folder / "frames")
    write_json(task.folder / "metrics.json", evaluation)
    write_json(folder / FIGURES, {"asked": asked, "row": row})
    return row


def _config(config: TrainConfig, variant: Variant) -> TrainConfig:
    head = replace(config.portrait.head, position_encoder=variant.position_encoder, attention=variant.attention)
    config, _ = resolve_perceptual(replace(config, portrait=replace(config.portrait, head=head)))
    return config


def _check_same(path: Path, asked: dict, kept: dict) -> None:
    if asked != kept:
        different = sorted(key for key in asked if asked[key] != kept.get(key))
        raise ValueError(
            f"{path}: expected the settings of this ablation, got another {', '.join(different)}; "
            "pass the settings that the folder was begun with, or another folder"
        )


def _figures(variant: Variant, evaluation: dict, n_steps: int) -> dict:
    found = evaluation["settings"][_SETTING]["metrics"]
    seconds = evaluation["training_seconds"]
    return {
        "encoder": variant.encoder,
        "conditioning": variant.conditioning,
        "metrics": {name: found[name] for name in METRICS if "value" in found.get(name, {})},
        "parameters": evaluation["model"]["parameters"]["head"],
        "ms_per_step": None if seconds is None else 1000 * seconds["all"] / n_steps,
        "frames_per_second": evaluation["speed"][f"{_SETTING}, kernels only"]["frames_per_second"],
    }
