"""Convert checkpoints of the public ER-NeRF code to run folders, and back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ernerf_ti.audio.ready_made import FORMATS
from ernerf_ti.data.capture import Capture
from ernerf_ti.interop.ngp_files import OfficialFile, copy_tensors, write_official_file
from ernerf_ti.interop.tensors import EMBEDDINGS, N_EMBEDDINGS, RELEASED, by_official_name, official_state
from ernerf_ti.media.files import require_not_replaced
from ernerf_ti.media.provenance.consent import consent_in
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.run.checkpoint import load_checkpoint, save_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict, config_to_dict
from ernerf_ti.train.config import TrainConfig
from ernerf_ti.train.trainer import Trainer

_KEPT_ENTRIES = ("epoch", "global_step", "stats", "mean_count", "mean_density", "mean_density_torso")
_PARAMETER_GROUPS = {  # prefixes of parameter names in the order of their optimizers; without and with a torso
    False: (
        *("audio_net.", "encoder_xy.", "encoder_yz.", "encoder_xz.", "sigma_net.", "color_net.", "audio_att_net."),
        *("individual_codes", "aud_ch_att_net.", "unc_net.", "eye_att_net."),
    ),
    True: ("torso_encoder.", "torso_net.", "torso_deform_net.", "anchor_points", "individual_codes_torso"),
}
_OTHER_EXTRACTOR = "other"
# The camera of the public code's viewer: 450 x 450 pixels, 21.24 degrees, at a distance of 3.35.
_STILL_SIZE, _STILL_FOCAL, _STILL_DISTANCE = 450, 1200.0, 3.35


def extractor_of(feature_dimension: int) -> str:
    """Name of the audio feature extractor with this dimension; "other" if the public code has none."""
    names = [f.extractor for f in FORMATS if f.dimension == feature_dimension]
    return names[0] if names else _OTHER_EXTRACTOR


def write_run(
    source: OfficialFile,
    run: Path,
    capture: Capture,
    config: TrainConfig,
    stage: str | None = None,
    device: torch.device | str = "cpu",
) -> list[str]:
    """Make a run folder that renders like the checkpoint, and in which training can continue.

    The public code has 10,000 appearance embeddings; the run gets the first ones, one per training frame, and keeps
    the others for conversion back. :func:`ernerf_ti.train.trainer.trained_alone` keeps other processes out of the
    folder.

    Args:
        source: the checkpoint.
        run: run folder to write; a run that was converted and not trained since is replaced.
        capture: capture that the checkpoint was trained on.
        config: configuration for further training; its portrait takes the checkpoint's shape, and audio features are
            not standardized.
        stage: stage to continue with, from its first step; None to continue where the checkpoint stopped.
        device: device of the process; the files are the same.

    Returns:
        Lines that say what was written.

    Raises:
        ValueError: the folder has a trained run, the capture's audio features have another dimension, or the capture
            has more frames than the file has embeddings.
    """
    _check_free(run)
    dimension = int(capture.audio_windows.shape[2])
    if dimension != source.feature_dimension:
        raise ValueError(
            f"{capture.folder}: expected audio features of dimension {source.feature_dimension} (from {source.path}), "
            f"got {dimension} ({capture.extractor}); use the extractor that it was trained with"
        )
    config = _as_trained_there(config)
    trainer = Trainer(capture, config, run, device)
    source.fill(trainer.portrait)
    stage, step, ended = _progress(source, config) if stage is None else (stage, 0, False)
    trainer.start_stage(stage)
    trainer.step, trainer.stage_finished = step, ended
    trainer.consent = capture.consent or consent_in(source.entries, source.path)
    lines = [
        f"appearance embeddings: the first {len(capture.train)} of {source.n_embeddings}",
        f"training continues with stage {stage}, step {step}" + (" (its end)" if ended else ""),
        _carry_optimizer(source, trainer),
        _carry_average(source, trainer),
    ]
    trainer.save()
    _add_origin(RunFolder(run).checkpoint, load_checkpoint(RunFolder(run).checkpoint), source)
    return lines


def write_still_run(
    source: OfficialFile, run: Path, config: TrainConfig, device: torch.device | str = "cpu"
) -> list[str]:
    """Make a run folder without a capture: it renders from one fixed camera over white, and can't be trained further.

    Arguments, result and exceptions as :func:`write_run`.
    """
    _check_free(run)
    portrait = source.portrait(device)
    size = _STILL_SIZE
    # In front of the face, looking along -y, with x upwards in the image.
    pose = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, _STILL_DISTANCE], [1, 0, 0, 0], [0, 0, 0, 1]])
    content = {
        "train_config": config_to_dict(_as_trained_there(config)),
        "portrait_config": config_to_dict(_as_trained_there(config).portrait),
        "capture": {
            "extractor": extractor_of(source.feature_dimension),
            "feature_dimension": source.feature_dimension,
            "width": size,
            "height": size,
            "n_train": source.n_embeddings,
        },
        "portrait": portrait.state_dict(),
        "scene": {
            "intrinsics": torch.tensor([_STILL_FOCAL, _STILL_FOCAL, size / 2, size / 2], dtype=torch.float64),
            "poses": pose[None],
            "eye_closures": torch.zeros(1),
            "background": torch.full((size, size, 3), 255, dtype=torch.uint8),
        },
        **_consent_entry(source.entries, source.path),
    }
    run.mkdir(parents=True, exist_ok=True)
    _add_origin(RunFolder(run).checkpoint, content, source)
    return [
        f"appearance embeddings: all {source.n_embeddings}",
        "no capture was given, so that the run has no poses, blinks or background of the person: it renders from one "
        "fixed camera over white, and can't be trained further; pass --capture for both",
    ]


def write_official(run: Path, path: Path) -> list[str]:
    """Write a run's portrait as an ngp.pth of the public code.

    A run that was converted and not trained since gives back its original. In one that was trained here, appearance
    embedding 0, with which the public code renders everything, and the embeddings beyond the training frames are the
    mean embedding, with which we render.

    Args:
        run: run folder or checkpoint file.
        path: the .pth file to write.

    Returns:
        Lines that say what was written.

    Raises:
        FileNotFoundError, ValueError: no such run, a portrait of another shape than the public code's, or a file to
            write that is the run's checkpoint.
    """
    checkpoint = RunFolder.find(run).checkpoint
    require_not_replaced(checkpoint, "checkpoint", path)
    content = load_checkpoint(checkpoint)
    config = config_from_dict(TrainConfig, content["train_config"])
    for part in ("head", "torso", "head_grid", "torso_grid"):
        if getattr(config.portrait, part) != getattr(RELEASED, part):
            raise ValueError(
                f"{checkpoint}: expected a portrait of the shape of ER-NeRF's checkpoints (the preset released), "
                f"got another {part}; train with --preset released"
            )
    capture = content["capture"]
    portrait = Portrait(config.portrait, capture["feature_dimension"], capture["n_train"])
    portrait.load_state_dict(content["portrait"])
    encoder = portrait.head.audio_encoder
    if encoder.feature_mean.any() or encoder.feature_scale != 1:
        raise ValueError(
            f"{checkpoint}: expected a portrait of unscaled audio features, got one of standardized features, which "
            "ER-NeRF can't represent; train with --preset released"
        )
    origin = content.get("official", {})
    has_torso = origin.get("has_torso", False) or bool(portrait.torso_grid.alpha_grid.any())
    tensors = official_state(portrait, has_torso)
    for name in EMBEDDINGS:
        if name in tensors:
            tensors[name] = _all_embeddings(tensors[name], origin.get("codes", {}).get(name))
    tensors |= {name: tensor for name, tensor in origin.get("counters", {}).items() if name in tensors}
    # In the public code, fine-tuning counts on from the steps of the head.
    step = content.get("step", 0) + (config.head.iterations if content.get("stage") == "finetune" else 0)
    entries = {
        "epoch": -(-step // capture["n_train"]),
        "global_step": step,
        "stats": {"loss": [], "valid_loss": [], "results": [], "checkpoints": [], "best_result": None},
        "mean_count": 0,
        "mean_density": float(portrait.head_grid.mean_density),
        "mean_density_torso": float(portrait.torso_grid.mean_alpha) if has_torso else 0,
    }
    # The public code ignores entries that it does not know, so that the record can go with the file.
    entries |= origin.get("entries", {}) | _consent_entry(content, checkpoint)
    write_official_file(path, tensors, entries)
    return [
        f"{'head and torso' if has_torso else 'head'} with {capture['extractor']} features "
        f"({capture['feature_dimension']}), appearance embeddings of {capture['n_train']} frames",
        "unchanged since it was converted" if origin else "trained here: appearance embedding 0 is the mean embedding",
    ]


def _consent_entry(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    consent = consent_in(content, path)
    return {"consent": consent.as_dict()} if consent else {}


def _check_free(run: Path) -> None:
    path = RunFolder(run).checkpoint
    if path.exists() and "official" not in load_checkpoint(path):
        raise ValueError(
            f"{run}: expected a folder without a run, or one whose run was converted and not trained since, "
            "got one with a trained checkpoint; choose another folder, or remove it"
        )


def _as_trained_there(config: TrainConfig) -> TrainConfig:
    """The configuration with what the checkpoint determines."""
    return replace(config, portrait=replace(RELEASED, march=config.portrait.march), standardize_audio=False)


def _progress(source: OfficialFile, config: TrainConfig) -> tuple[str, int, bool]:
    """Stage, step, and whether the stage has ended. In the public code, fine-tuning counts on from the head's steps."""
    stages = ("torso",) if source.has_torso else ("head", "finetune")
    # A bare state dict has no step: it counts as finished.
    step = source.entries.get("global_step", sum(getattr(config, name).iterations for name in stages))
    for name in stages:
        iterations = getattr(config, name).iterations
        if step < iterations:
            return name, step, False
        if name != stages[-1]:
            step -= iterations
    return stages[-1], getattr(config, stages[-1]).iterations, True


def _trained(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in trainer.portrait.named_parameters() if p.requires_grad}


def _carry_optimizer(source: OfficialFile, trainer: Trainer) -> str:
    """Take over the optimizer's moments of the parameters that the stage trains; returns a line that says so."""
    content = source.entries.get("optimizer")
    if not isinstance(content, dict):
        return "optimizer: reset (the file has none; epoch files have)"
    if source.has_torso != (trainer.stage == "torso"):
        return f"optimizer: reset (the file's belongs to another stage than {trainer.stage})"
    try:
        return _moments_carried(source, trainer, content)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # whatever is in its place
        return f"optimizer: reset (the file's can't be read: {type(error).__name__})"


def _moments_carried(source: OfficialFile, trainer: Trainer, content: dict[str, Any]) -> str:
    """Raises whatever Python and torch raise where the optimizer's state has other content, before anything changes."""
    trained = by_official_name(_trained(trainer))
    names = [name for prefix in _PARAMETER_GROUPS[source.has_torso] for name in trained if name.startswith(prefix)]
    indices = [index for group in content["param_groups"] for index in group["params"]]
    state = content["state"]
    if len(indices) != len(names) or any(
        index in state and state[index]["exp_avg"].shape != source.tensors[name].shape
        for index, name in zip(indices, names, strict=True)
    ):
        return f"optimizer: reset (the file's has {len(indices)} parameters that do not match our {len(names)})"
    ours = _trained(trainer)
    moments = {key: {name: torch.zeros_like(p) for name, p in ours.items()} for key in ("exp_avg", "exp_avg_sq")}
    steps = [float(state[index]["step"]) for index in indices if index in state]
    for key, zeros in moments.items():
        found = {name: state[index][key] for index, name in zip(indices, names, strict=True) if index in state}
        targets = {name: tensor for name, tensor in by_official_name(zeros).items() if name in found}
        copy_tensors(source.path, found, targets)
    for name, parameter in ours.items():
        trainer.optimizer.state[parameter] = {
            "step": torch.tensor(max(steps, default=0.0), device=parameter.device),
            **{key: values[name] for key, values in moments.items()},
        }
    return f"optimizer: converted ({len(steps)} of {len(indices)} parameters)"


def _carry_average(source: OfficialFile, trainer: Trainer) -> str:
    """Take over the moving average of the weights; returns a line that says so."""
    if "ema" not in source.entries:
        return "moving average of the weights: starts with the file's weights"
    shadows = source.average()
    state = trainer.average.state_dict()
    named = {name.removeprefix("average."): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    copy_tensors(source.path, shadows, by_official_name(named))
    given = source.entries["ema"].get("num_updates")
    n = given if isinstance(given, int) and given > 0 else 0
    trainer.average.load_state_dict({"n": n, **{f"average.{name}": tensor for name, tensor in named.items()}})
    return f"moving average of the weights: converted ({n} updates)"


def _add_origin(path: Path, content: Mapping[str, Any], source: OfficialFile) -> None:
    """Write a checkpoint together with what only the official file has; training drops that, as it becomes stale."""
    n_train = content["capture"]["n_train"]
    origin = {
        "has_torso": source.has_torso,
        "codes": {name: source.tensors[name][n_train:].clone() for name in EMBEDDINGS if name in source.tensors},
        "counters": {"step_counter": source.tensors["step_counter"]},
        "entries": {name: source.entries[name] for name in _KEPT_ENTRIES if name in source.entries},
    }
    save_checkpoint(path, {**content, "official": origin})


def _all_embeddings(embeddings: Tensor, others: Tensor | None) -> Tensor:
    """As many rows as the public code has: the file's own others, or the mean of all if there are none."""
    if others is not None:
        return torch.cat((embeddings, others))
    mean = embeddings.mean(0, keepdim=True)
    return torch.cat((mean, embeddings[1:], mean.expand(max(0, N_EMBEDDINGS - len(embeddings)), -1)))
