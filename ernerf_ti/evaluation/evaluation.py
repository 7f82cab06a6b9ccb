"""Evaluate a run: render its held-out frames, make the baselines, compute every metric."""

import math
import sys
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.dials import dial_metrics, dial_settings
from ernerf_ti.evaluation.fid_metric import Fid
from ernerf_ti.evaluation.frames_folder import FramesFolder
from ernerf_ti.evaluation.held_out import HeldOutFrames, cross_speaker_settings, held_out_settings, select_frames
from ernerf_ti.evaluation.identity_metric import IdentitySimilarity
from ernerf_ti.evaluation.leak import leak_metrics, leak_settings
from ernerf_ti.evaluation.lip_metrics import lip_metrics
from ernerf_ti.evaluation.lip_settings import SILENCES, closure_setting, silence_setting
from ernerf_ti.evaluation.lpips_metric import Lpips
from ernerf_ti.evaluation.mesh_metrics import mesh_metrics
from ernerf_ti.evaluation.metric import (
    FrameMetric,
    Metric,
    MetricValue,
    NotComputed,
    SequenceMetric,
    Setting,
    mean_over_frames,
)
from ernerf_ti.evaluation.options import EvaluationOptions
from ernerf_ti.evaluation.pixel_metrics import CROPS, Psnr, Ssim
from ernerf_ti.evaluation.run_facts import commit, machine, model_size, versions
from ernerf_ti.evaluation.seam_metric import Seam
from ernerf_ti.evaluation.sound_metric import SoundToMouth
from ernerf_ti.evaluation.speech_metrics import InSpeech, speech_metrics, spoken_frames
from ernerf_ti.evaluation.speed import end_to_end
from ernerf_ti.evaluation.st_lpips_metric import StLpipsMetric
from ernerf_ti.evaluation.sync_metric import Sync
from ernerf_ti.evaluation.weights import weights_folder
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.sound_notes import print_sound_notes
from ernerf_ti.process.graphs import cuda_graphs
from ernerf_ti.process.precision import resolve_precision
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.synthesis.driving import SAMPLES_PER_FRAME, speech_windows
from ernerf_ti.train.config import STAGES, TrainConfig
from ernerf_ti.train.training_log import training_seconds


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation."""

    facts: dict
    """Facts about run, capture, frames, model, training, speed, machine and versions; or about videos, alignment,
    machine and versions."""
    metrics: list[Metric]
    settings: list[Setting]
    results: dict[tuple[str, str], MetricValue | NotComputed]
    """By names of setting and metric; no entry where a metric does not apply to a setting."""


def evaluate(options: EvaluationOptions, frames: FramesFolder, ranks: Ranks | None = None) -> Evaluation:
    """Evaluate a run.

    Args:
        options: what to evaluate.
        frames: folders for the rendered frames, which the result reads them from. They are made once everything else
            has been checked.
        ranks: processes that call this with the same arguments: each renders every so many frames, and measures every
            so many settings. The first one writes the frames and has all results. None for this one alone.

    Raises:
        FileNotFoundError, ValueError: run or capture are missing or do not belong together, the folder has other files,
            or the other speaker's sound can't be read; raised before anything is rendered.
        ImportError: with another speaker's sound, if the portrait's speech model needs a package that is missing.
    """
    ranks = ranks or Ranks()
    run = RunFolder.find(options.run)
    content = load_checkpoint(run.checkpoint)
    capture = open_capture(options.capture or run.capture(), content["capture"]["extractor"])
    _check_capture(content["capture"], capture, run.checkpoint)
    precision = resolve_precision(options.precision, options.device)
    graphs = cuda_graphs(options.cuda_graphs, options.device, partial(tqdm.write, file=sys.stderr), precision)
    trained = load_portrait(options.run, options.device, precision, graphs, options.mouth_gain)
    held_out = select_frames(capture, options.frames, options.max_seconds, options.device, trained.dial_names)
    samples = read_sound(capture.paths.sound, SAMPLE_RATE) if capture.paths.sound.is_file() else None
    other_speaker = None
    if options.cross_speaker_audio is not None:
        other_speaker = _other_speaker(trained, options.cross_speaker_audio, options)
    metrics = all_metrics(capture, options.weights or weights_folder(), options.device)
    metrics += dial_metrics(trained.dial_names, capture)
    missing = {metric.name: metric.missing() for metric in metrics}

    config = config_from_dict(TrainConfig, content["train_config"])
    with_torso = content["stage"] == "torso" and config.torso.iterations > 0
    folder = frames.temporary()
    settings, seconds = held_out_settings(trained, capture, held_out, folder, samples, with_torso, ranks)
    speed = {f"{name}, rendering only": _rendering_speed(value) for name, value in seconds.items()}
    if ranks.is_first:
        speed["end to end"] = end_to_end(trained, capture, held_out, samples, with_torso, options.speech_model)
    ranks.wait()  # with what would take the first one's time
    if other_speaker is not None:
        settings += cross_speaker_settings(trained, capture, held_out, folder, *other_speaker, with_torso, ranks)
    settings.append(closure_setting(trained, capture, held_out, folder, samples, ranks))
    own = np.zeros(0) if samples is None else samples[int(held_out.times[0]) * SAMPLES_PER_FRAME :]
    for name, speech in zip(SILENCES, (own, *(other_speaker or ())[:1]), strict=False):
        settings.append(silence_setting(name, trained, held_out, folder, speech, options.speech_model, ranks))
    settings += leak_settings(trained, capture, held_out, folder, ranks)
    settings += dial_settings(trained, capture, held_out, folder, ranks)
    ranks.wait()  # until the first one has written the frames
    results = measure_all(settings, metrics, missing, options.seed, ranks)
    facts = {
        "run": {
            "folder": str(options.run),
            "stage": content["stage"],
            "step": content["step"],
            "steps": {stage: getattr(config, stage).iterations for stage in STAGES},
            "seed": config.seed,
            "mouth gain": trained.portrait.head.audio_encoder.gain,
            "nearest codes": trained.portrait.head.audio_encoder.nearest,
        },
        "capture": _capture_facts(capture, held_out),
        "model": model_size(trained.portrait, run.checkpoint),
        "training_seconds": _training_facts(run),
        "speed": speed,
        "machine": machine(options.device),
        "versions": versions(),
        "commit": commit(),
        "bootstrap_seed": options.seed,
    }
    return Evaluation(facts, metrics, settings, results)


def all_metrics(capture: Capture, weights: Path, device: torch.device | str) -> list[Metric]:
    """Every metric, in the order of the tables."""
    return [
        *metrics_without_capture(weights, device),
        *lip_metrics(capture),
        SoundToMouth(capture),
        Seam(capture),
        *leak_metrics(capture),
    ]


def metrics_without_capture(weights: Path, device: torch.device | str) -> list[Metric]:
    """The metrics that need no more than a setting."""
    metrics: list[Metric] = [
        *(kind(crop) for kind in (Psnr, Ssim) for crop in CROPS),
        *(StLpipsMetric(crop, device) for crop in ("frame", "lips")),
        *(Lpips(net, weights, device) for net in ("alex", "vgg")),
        Fid(weights, device),
        IdentitySimilarity(weights, device),
        *mesh_metrics(),
        *(Sync(kind, weights, device) for kind in ("confidence", "distance")),
    ]
    return metrics + speech_metrics(metrics)


def measure_all(
    settings: list[Setting],
    metrics: list[Metric],
    missing: dict[str, NotComputed | None],
    seed: int,
    ranks: Ranks | None = None,
) -> dict[tuple[str, str], MetricValue | NotComputed]:
    """Compute metrics in all settings that they apply to; arguments as of :func:`measure`.

    Args:
        ranks: processes that measure every so many settings each; None for this one alone.

    Returns:
        Results by names of setting and metric: all of them in the first process.
    """
    ranks = ranks or Ranks()
    results: dict[tuple[str, str], MetricValue | NotComputed] = {}
    for setting in tqdm(settings[ranks.index :: ranks.count], "settings", unit="setting"):
        applicable = [metric for metric in metrics if metric.applies_to(setting)]
        for name, result in measure(setting, applicable, missing, seed).items():
            results[setting.name, name] = result
    return reduce(or_, ranks.gather(results), {})


def measure(
    setting: Setting, metrics: list[Metric], missing: dict[str, NotComputed | None], seed: int
) -> dict[str, MetricValue | NotComputed]:
    """Compute metrics in a setting; those of single frames share one pass over the images.

    Args:
        setting: the setting.
        metrics: metrics to compute.
        missing: by name of a metric, what it lacks, or None.
        seed: seed of the bootstrap.
    """
    results: dict[str, MetricValue | NotComputed] = {
        metric.name: problem for metric in metrics if (problem := missing[metric.name] or setting.problem) is not None
    }
    available = [metric for metric in metrics if metric.name not in results]
    of_frames = [metric for metric in available if isinstance(metric, FrameMetric)]
    values = np.full((len(of_frames), len(setting)), math.nan)
    if of_frames:
        assert setting.truth is not None  # they need it
        for i in tqdm(range(len(setting)), setting.name, unit="frame", leave=False):
            frame = setting.images[i], setting.truth[i], setting.landmarks(i)
            values[:, i] = [metric.of_frame(*frame) for metric in of_frames]
    for frame_metric, per_frame in zip(of_frames, values, strict=True):
        results[frame_metric.name] = mean_over_frames(per_frame, setting.times, seed)
    for metric in available:
        if isinstance(metric, SequenceMetric):
            results[metric.name] = metric.measure(setting, seed)
    in_speech = [metric for metric in available if isinstance(metric, InSpeech)]
    if in_speech:
        assert setting.samples is not None  # they need it
        spoken = spoken_frames(setting.samples, setting.times)
        for metric in in_speech:
            results[metric.name] = metric.of_speech(results[metric.whole.name], spoken, setting.times, seed)
    return results


def _check_capture(expected: dict, capture: Capture, checkpoint: Path) -> None:
    """Raises ValueError if the capture can't be the one that the run was trained on."""
    got = {
        "feature_dimension": int(capture.audio_windows.shape[2]),
        "width": capture.width,
        "height": capture.height,
        "n_train": len(capture.train),
    }
    wrong = [f"{name} {expected[name]}, got {value}" for name, value in got.items() if expected[name] != value]
    made = None if capture.projection is None else capture.projection.facts
    if expected.get("speech") != made:
        wrong.append(f"speech features {expected.get('speech')}, got {made}")
    if wrong:
        raise ValueError(
            f"{checkpoint}: expected the capture of the run, with {'; '.join(wrong)} in {capture.folder}; "
            "pass the capture that the run was trained on"
        )


def _other_speaker(
    trained: TrainedPortrait, audio: Path, options: EvaluationOptions
) -> tuple[np.ndarray, torch.Tensor]:
    """[S] mono sound of the other speaker at 16 kHz, and [T, steps, C] audio windows of it."""
    print_sound_notes(audio)
    samples = read_sound(audio, SAMPLE_RATE)
    if options.max_seconds is not None:
        samples = samples[: round(min(options.max_seconds * SAMPLE_RATE, len(samples)))]
    windows = speech_windows(trained, samples, options.speech_model)
    if not len(windows):
        raise ValueError(f"{audio}: expected speech, got no sound; pass a longer recording")
    return samples, windows


def _rendering_speed(seconds: float) -> dict:
    return {
        "frames_per_second": 1 / seconds,
        "how": "one frame from the audio window to the pixels, both on the device; median over the frames",
    }


def _capture_facts(capture: Capture, held_out: HeldOutFrames) -> dict:
    val = capture.val
    return {
        "folder": str(capture.folder),
        "size": [capture.width, capture.height],
        "extractor": capture.extractor,
        "training_frames": len(capture.train),
        "held_out_frames": len(val),
        "held_out_ids": [int(val.frame_ids[0]), int(val.frame_ids[-1])],
        "evaluated_frames": len(held_out),
        "evaluated_seconds": float((held_out.times[-1] - held_out.times[0] + 1) / FPS),
    }


def _training_facts(run: RunFolder) -> dict | None:
    seconds = training_seconds(run.log)
    return None if seconds is None else {**seconds, "all": sum(seconds.values())}
