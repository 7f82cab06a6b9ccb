"""Variants of the head, each trained on one capture for the same number of steps: the paper's tables 4 and 5.

Each variant has a run folder, which keeps its row of figures too, so that an interrupted ablation can continue.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.evaluation.options import EvaluationOptions
from ernerf_ti.evaluation.report import evaluate_and_report
from ernerf_ti.evaluation.results_text import as_json
from ernerf_ti.experiments.ablation_options import VARIANT_NAMES, AblationOptions
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
from ernerf_ti.run.serialization import config_from_dict, config_to_dict
from ernerf_ti.train.config import STAGES, TrainConfig
from ernerf_ti.train.perceptual import resolve_perceptual
from ernerf_ti.train.trainer import Trainer, trained_alone

FIGURES = "figures.json"
_SETTING = "head"
_PLANE_FEATURES = 16
METRICS = (
    *("PSNR frame", "PSNR lips", "SSIM lips", "LPIPS alex", "LMD", "mesh AUE upper", "mesh AUE lower"),
    *("mouth-opening correlation", "SyncNet confidence"),
)
"""Metrics of the head composited over the capture's torso, where they could be computed."""
_RENAMED_METRICS = {"mouth opening r": "mouth-opening correlation"}


@dataclass(frozen=True)
class Variant:
    """A variant of the head."""

    name: str
    """Name of its run folder."""
    encoder: str
    """Description of the position encoder."""
    conditioning: str
    """Description of how audio conditions the field."""
    position_encoder: PositionEncoderConfig
    attention: str


def variants(triplane: TriplaneHashConfig) -> list[Variant]:
    """The rows of the paper's tables 4 and 5, with encoders of about the same number of parameters.

    Args:
        triplane: the preset's encoder, whose size the others match.
    """
    n_parameters = _size(triplane)

    def hash_grid(log2_table_size: int) -> HashGridConfig:
        return HashGridConfig(triplane.n_levels, 16, triplane.finest_resolution, log2_table_size, 2)

    hash3d = min(map(hash_grid, range(10, 20)), key=lambda config: abs(math.log(_size(config) / n_parameters)))
    planes = PlainTriplaneConfig(round(math.sqrt(n_parameters / (3 * _PLANE_FEATURES))), _PLANE_FEATURES)
    encoders: dict[str, tuple[str, PositionEncoderConfig]] = {
        "frequency": ("frequency encoding (AD-NeRF)", FrequencyConfig()),
        "planes": ("dense tri-plane (EG3D)", planes),
        "hash3d": ("3-D hash grid (Instant-NGP)", hash3d),
        "triplane_hash": ("tri-plane hash (ER-NeRF)", triplane),
    }
    conditionings = {
        "concatenation": ("concatenation", "none"),
        "channel": ("channel attention", "channel"),
        "feature": ("feature attention", "feature"),
    }
    found = []
    for name in VARIANT_NAMES:
        encoder, conditioning = name.rsplit("_", 1)
        (encoder_text, config), (conditioning_text, attention) = encoders[encoder], conditionings[conditioning]
        found.append(Variant(name, encoder_text, conditioning_text, config, attention))
    return found


def _size(config: PositionEncoderConfig) -> int:
    return sum(parameter.numel() for parameter in position_encoder(config, 1.0).parameters())


def run_ablation(options: AblationOptions, should_stop: Callable[[], bool] = lambda: False) -> list[dict] | None:
    """Train and evaluate the variants that are not finished yet.

    Args:
        options: capture, variants, training configuration and output folder.
        should_stop: asked between training steps and between variants.

    Returns:
        A row of figures per variant; None if stopped, in which case the same call continues.

    Raises:
        ValueError: the output folder holds a variant trained with another configuration.
        TrainingError, FileNotFoundError: as :meth:`Trainer.run`.
    """
    capture, rows = open_capture(options.capture), []
    encoder = options.config.portrait.head.position_encoder
    assert isinstance(encoder, TriplaneHashConfig)  # all presets have one
    for variant in variants(encoder):
        if variant.name not in options.variant_names:
            continue
        row = _row(options, capture, variant, should_stop)
        if row is None or should_stop():
            return None
        rows.append(row)
    return rows


def _row(options: AblationOptions, capture: Capture, variant: Variant, should_stop: Callable[[], bool]) -> dict | None:
    folder = options.output / variant.name
    config = _config(options.config, variant)
    if (folder / FIGURES).is_file():
        return _kept_row(folder / FIGURES, options, config)
    with trained_alone(folder):
        if RunFolder(folder).checkpoint.is_file():
            trainer = Trainer.resume(capture, folder, options.device)
            _check_same(RunFolder(folder).checkpoint, {"configuration": config}, {"configuration": trainer.config})
        else:
            trainer = Trainer(capture, config, folder, options.device)
        if not trainer.run(options.stages, should_stop):
            return None
    evaluation, _ = evaluate_and_report(
        EvaluationOptions(folder, capture=options.capture, device=options.device, frames=options.frames)
    )
    n_steps = sum(getattr(config, stage).iterations for stage in options.stages)
    row = _figures(variant, as_json(evaluation), n_steps)
    asked = {"config": config_to_dict(config), "stages": list(options.stages), "n_frames": options.frames}
    write_json(folder / FIGURES, {"asked": asked, "row": row})
    return row


def _kept_row(path: Path, options: AblationOptions, config: TrainConfig) -> dict:
    """Row of a finished variant, which an earlier version may have written."""
    content = json.loads(path.read_text())
    kept, row = content["asked"], content["row"]
    _check_same(
        path,
        {"configuration": config, "stages": options.stages, "frames": options.frames},
        {
            "configuration": config_from_dict(TrainConfig, kept["config"], f"{path}: config"),
            "stages": tuple("finetune" if stage == "fine" else stage for stage in kept["stages"]),
            "frames": kept["n_frames"],
        },
    )
    return {**row, "metrics": {_RENAMED_METRICS.get(name, name): value for name, value in row["metrics"].items()}}


def _config(config: TrainConfig, variant: Variant) -> TrainConfig:
    head = replace(config.portrait.head, position_encoder=variant.position_encoder, attention=variant.attention)
    stages = {name: replace(getattr(config, name), most_visits=0) for name in STAGES}  # as many steps as were asked for
    config, _ = resolve_perceptual(replace(config, portrait=replace(config.portrait, head=head), **stages))
    return config


def _check_same(path: Path, expected: dict, kept: dict) -> None:
    different = [name for name in expected if expected[name] != kept[name]]
    if different:
        raise ValueError(
            f"{path}: expected the {' and '.join(different)} of this ablation, got others; "
            "use the options that the folder was started with, or another folder"
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
        "frames_per_second": evaluation["speed"][f"{_SETTING}, rendering only"]["frames_per_second"],
    }
