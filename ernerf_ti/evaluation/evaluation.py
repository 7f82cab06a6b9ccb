"""Evaluate a run: render its held-out frames, make the baselines, compute every metric."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.fid_metric import Fid
from ernerf_ti.evaluation.held_out import Chosen, choose_frames, cross_speaker_settings, held_out_settings
from ernerf_ti.evaluation.lpips_metric import Lpips
from ernerf_ti.evaluation.mesh_metrics import mesh_metrics
from ernerf_ti.evaluation.metric import (
    FrameMetric,
    Measured,
    Metric,
    NotComputed,
    SequenceMetric,
    Setting,
    measured_frames,
)
from ernerf_ti.evaluation.pixel_metrics import CROPS, Psnr, Ssim
from ernerf_ti.evaluation.run_facts import commit, machine, model_size, versions
from ernerf_ti.evaluation.sound_metric import SoundToMouth
from ernerf_ti.evaluation.speed import end_to_end
from ernerf_ti.evaluation.sync_metric import Sync
from ernerf_ti.evaluation.weights import weights_folder
from ernerf_ti.media.sound import read_sound
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.synthesis.driving import speech_windows
from ernerf_ti.train.config import STAGES, TrainConfig
from ernerf_ti.train.training_log import training_seconds


@dataclass(frozen=True)
class Task:
    """What is evaluated, and how much of it."""

    run: Path
    """Folder of a run."""
    folder: Path
    """Where rendered frames and results go."""
    capture: Path | None = None
    """The run's; None for the folder that it was trained on."""
    device: str = "cpu"
    n_frames: int | None = None
    max_seconds: float | None = None
    cross_speaker_audio: Path | None = None
    speech_model: Path | None = None
    weights: Path | None = None
    """Folder; None for torch's own."""
    seed: int = 0
    """Of the bootstrap."""


@dataclass(frozen=True)
class Evaluation:
    """What was found."""

    facts: dict
    """Run, capture, frames, model, training, speed, machine, versions."""
    metrics: list[Metric]
    settings: list[Setting]
    results: dict[tuple[str, str], Measured | NotComputed]
    """By the names of setting and metric; none for a metric that a setting does not ask for."""


def evaluate(task: Task) -> Evaluation:
    """Do it all.

    Raises:
        FileNotFoundError, ValueError: no run or no capture there, they do not belong together, or the foreign sound
            can't be read; before anything is rendered.
        ImportError: the portrait's speech model needs a package, with a foreign sound.
    """
    checkpoint = RunFolder(task.run).checkpoint
    content = load_checkpoint(checkpoint, task.device)
    capture = open_capture(task.capture or RunFolder(task.run).capture(), content["capture"]["extractor"])
    _check_same(content["capture"], capture, checkpoint)
    trained = load_portrait(task.run, task.device)
    chosen = choose_frames(capture, task.n_frames, task.max_seconds, task.device)
    samples = read_sound(capture.paths.sound, SAMPLE_RATE) if capture.paths.sound.is_file() else None
    foreign = None
    if task.cross_speaker_audio is not None:
        foreign = _foreign_sound(trained, task)
    metrics = all_metrics(capture, task.weights or weights_folder(), task.device)
    lacking = {metric.name: metric.missing() for metric in metrics}

    torso = _has_torso(content)
    frames = task.folder / "frames"
    settings, seconds = held_out_settings(trained, capture, chosen, frames, samples, torso)
    speed = {f"{what}, kernels only": _rendering_speed(value) for what, value in seconds.items()}
    speed["end to end"] = end_to_end(trained, capture, chosen, samples, torso, task.speech_model)
    if foreign is not None:
        settings += cross_speaker_settings(trained, capture, chosen, frames, *foreign, torso)
    results = {}
    for setting in tqdm(settings, "settings", unit="setting"):
        asked = [metric for metric in metrics if setting.truth is not None or not metric.needs_truth]
        for name, result in measure(setting, asked, lacking, task.seed).items():
            results[setting.name, name] = result
    facts = {
        "run": {
            "folder": str(task.run),
            "stage": content["stage"],
            "step": content["step"],
            "steps": {stage: content["train_config"][stage]["iterations"] for stage in STAGES},
            "seed": content["train_config"]["seed"],
        },
        "capture": _capture_facts(capture, chosen),
        "model": model_size(trained.portrait, checkpoint),
        "training_seconds": _training_facts(task.run),
        "speed": speed,
        "machine": machine(task.device),
        "versions": versions(),
        "commit": commit(),
        "bootstrap_seed": task.seed,
    }
    return Evaluation(facts, metrics, settings, results)


def all_metrics(capture: Capture, weights: Path, device: torch.device | str) -> list[Metric]:
    """Every metric, in the order of the tables."""
    return [
        *(kind(crop) for kind in (Psnr, Ssim) for crop in CROPS),
        *(Lpips(net, weights, device) for net in ("alex", "vgg")),
        Fid(weights, device),
        *mesh_metrics(),
        *(Sync(kind, weights, device) for kind in ("confidence", "distance")),
        SoundToMouth(capture),
    ]


def measure(
    setting: Setting, metrics: list[Metric], lacking: dict[str, NotComputed | None], seed: int
) -> dict[str, Measured | NotComputed]:
    """Compute metrics of a setting; those that need single frames only go through them together, once."""
    results = {metric.name: lacking[metric.name] for metric in metrics if lacking[metric.name] is not None}
    ready = [metric for metric in metrics if metric.name not in results]
    single = [metric for metric in ready if isinstance(metric, FrameMetric)]
    values = np.full((len(single), len(setting)), math.nan)
    if single:
        for i in tqdm(range(len(setting)), setting.name, unit="frame", leave=False):
            pair = setting.pictures[i], setting.truth[i], setting.landmarks(i)
            values[:, i] = [metric.of_frame(*pair) for metric in single]
    for metric, row in zip(single, values, strict=True):
        results[metric.name] = measured_frames(row, setting.times, seed)
    for metric in ready:
        if isinstance(metric, SequenceMetric):
            results[metric.name] = metric.measure(setting, seed)
    return results


def _check_same(expected: dict, capture: Capture, checkpoint: Path) -> None:
    got = {
        "feature_dimension": int(capture.audio_windows.shape[2]),
        "width": capture.width,
        "height": capture.height,
        "n_train": len(capture.train),
    }
    wrong = [f"{name} {expected[name]}, got {value}" for name, value in got.items() if expected[name] != value]
    if wrong:
        raise ValueError(
            f"{checkpoint}: expected the capture of the run, with {'; '.join(wrong)} in {capture.folder}; "
            "pass the capture that the run was trained on"
        )


def _foreign_sound(trained: TrainedPortrait, task: Task) -> tuple[np.ndarray, torch.Tensor]:
    samples = read_sound(task.cross_speaker_audio, SAMPLE_RATE)
    if task.max_seconds is not None:
        samples = samples[: round(task.max_seconds * SAMPLE_RATE)]
    windows = speech_windows(trained, samples, task.speech_model)
    if not len(windows):
        raise ValueError(f"{task.cross_speaker_audio}: expected speech, got no sound; pass a longer recording")
    return samples, windows


def _has_torso(content: dict) -> bool:
    config = config_from_dict(TrainConfig, content["train_config"])
    return content["stage"] == "torso" and config.torso.iterations > 0


def _rendering_speed(seconds: float) -> dict:
    return {
        "frames_per_second": 1 / seconds,
        "how": "median over the frames of one picture, the audio window on the device to pixels on the device",
    }


def _capture_facts(capture: Capture, chosen: Chosen) -> dict:
    val = capture.val
    return {
        "folder": str(capture.folder),
        "size": [capture.width, capture.height],
        "extractor": capture.extractor,
        "training_frames": len(capture.train),
        "held_out_frames": len(val),
        "held_out_ids": [int(val.frame_ids[0]), int(val.frame_ids[-1])],
        "evaluated_frames": len(chosen),
        "evaluated_seconds": float((chosen.times[-1] - chosen.times[0] + 1) / FPS),
    }


def _training_facts(run: Path) -> dict | None:
    seconds = training_seconds(RunFolder(run).log)
    return None if seconds is None else {**seconds, "all": sum(seconds.values())}
