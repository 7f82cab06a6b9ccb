"""An evaluation as JSON values and as text."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ernerf_ti.evaluation.evaluation import Evaluation
from ernerf_ti.evaluation.metric import MetricValue, NotComputed
from ernerf_ti.evaluation.statistics import INTERVAL

_FORMATS = {
    "dB": ".2f",
    "r": ".3f",
    "px": ".2f",
    "frames": ".2f",
    "frames per minute": ".2f",
    "gray levels": ".2f",
    "gray levels/px": ".2f",
    "% of eye distance": ".2f",
    "%": ".0f",
    "": ".4f",
}


def as_json(evaluation: Evaluation) -> dict:
    """Content of metrics.json: facts, metrics, and per setting the values, with those of each frame."""
    settings = {}
    for setting in evaluation.settings:
        results = {
            metric.name: _result_json(evaluation.results[setting.name, metric.name])
            for metric in evaluation.metrics
            if (setting.name, metric.name) in evaluation.results
        }
        times = [int(time) for time in setting.times]
        settings[setting.name] = {"description": setting.description, "times": times, "metrics": results}
    metrics = {
        metric.name: {"unit": metric.unit, "better": metric.better, "description": metric.description}
        for metric in evaluation.metrics
    }
    return {**evaluation.facts, "interval": INTERVAL, "metrics": metrics, "settings": settings}


def table(evaluation: Evaluation) -> list[list[str]]:
    """Rows of cells: a heading, then one row per metric that has a value, with one column per setting.

    A cell has the mean and its confidence interval; "-" where the metric does not apply or has no value.
    """
    rows = [["", *(setting.name for setting in evaluation.settings)]]
    for metric in evaluation.metrics:
        cells = [evaluation.results.get((setting.name, metric.name)) for setting in evaluation.settings]
        if any(isinstance(cell, MetricValue) for cell in cells):
            unit = f" ({metric.unit})" if metric.unit not in ("", "r") else ""
            arrow = "^" if metric.better == "higher" else "v"
            rows.append([f"{metric.name}{unit} {arrow}", *(_cell(cell, metric.unit) for cell in cells)])
    return rows


def notes(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Metric and settings, and the note on their values."""
    return _grouped(evaluation, lambda result: result.note if isinstance(result, MetricValue) else "")


def not_computed(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Metric and settings, and why there is no value."""
    return _grouped(evaluation, lambda result: reason_text(result) if isinstance(result, NotComputed) else "")


def _grouped(evaluation: Evaluation, text_of: Callable[[MetricValue | NotComputed], str]) -> list[tuple[str, str]]:
    """Texts that are not empty, each once per metric, with the settings unless they are all of the metric's."""
    found: dict[tuple[str, str], list[str]] = {}
    for setting in evaluation.settings:
        for metric in evaluation.metrics:
            result = evaluation.results.get((setting.name, metric.name))
            text = "" if result is None else text_of(result)
            if text:
                found.setdefault((metric.name, text), []).append(setting.name)
    listed = []
    for (name, text), settings in found.items():
        applicable = sum((setting.name, name) in evaluation.results for setting in evaluation.settings)
        listed.append((name if len(settings) == applicable else f"{name} ({', '.join(settings)})", text))
    return listed


def reason_text(result: NotComputed) -> str:
    """Why there is no value, with the missing file and its folder."""
    return result.reason if result.file is None else f"{result.reason}: put {result.file} into {result.folder}"


def summary(evaluation: Evaluation) -> str:
    """The table and what belongs to it, for a terminal."""
    rows = table(evaluation)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("mean [95 % confidence interval]; ^ higher is better, v lower is better")
    lines += [f"note: {name}: {text}" for name, text in notes(evaluation)]
    lines += [f"not computed: {name}: {reason}" for name, reason in not_computed(evaluation)]
    lines += [f"{name}: {value}" for name, value in headlines(evaluation.facts).items()]
    return "\n".join(lines)


def subject(facts: dict) -> tuple[str, str]:
    """What was evaluated: "run" or "video", and its path."""
    return ("video", facts["video"]["path"]) if "video" in facts else ("run", facts["run"]["folder"])


def headlines(facts: dict) -> dict[str, str]:
    """The facts shown beside the table, by their headings."""
    lines = _of_videos(facts) if "video" in facts else _of_run(facts)
    lines["machine"] = f"{facts['machine']['device']}, {facts['machine']['threads']} threads"
    lines["versions"] = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines["commit"] = facts["commit"] or "not in a git repository"
    return lines


def _of_videos(facts: dict) -> dict[str, str]:
    lines, comparison = {}, facts["comparison"]
    for name in ("video", "reference"):
        if facts[name] is not None:
            video = facts[name]
            width, height = video["size"]
            lines[name] = (
                f"{video['path']}: {width}x{height} pixels, {video['frames_per_second']:.2f} frames/s, "
                f"{video['seconds']:.2f} s"
            )
    lines["frames"] = f"{comparison['frames']} at 25 frames/s, {comparison['seconds']:.2f} s"
    return {**lines, **comparison["notes"]}


def _of_run(facts: dict) -> dict[str, str]:
    capture, model, training = facts["capture"], facts["model"], facts["training_seconds"]
    run, trained = facts["run"], "time not recorded"
    if training is not None:
        stages = ", ".join(f"{stage} {value / 60:.1f}" for stage, value in training.items() if stage != "all")
        trained = f"{training['all'] / 60:.1f} minutes ({stages})"
    first, last = capture["held_out_ids"]
    lines = {
        "frames": f"{capture['evaluated_frames']} of {capture['held_out_frames']} held-out frames ({first} to {last}), "
        f"{capture['training_frames']} training frames, {capture['size'][0]} x {capture['size'][1]} pixels",
        "run": f"stage {run['stage']}, step {run['step']}",
        "model": f"{model['parameters']['all']:,} parameters, {model['megabytes']:.2f} MB as 32-bit floats; "
        f"checkpoint {model['checkpoint_megabytes']:.1f} MB",
        "training": trained,
    }
    for name, speed in facts["speed"].items():
        lines[f"speed, {name}"] = f"{speed['frames_per_second']:.2f} frames/s ({speed['how']})"
    return lines


def _cell(result: MetricValue | NotComputed | None, unit: str) -> str:
    if not isinstance(result, MetricValue):
        return "-"
    form = _FORMATS[unit]
    if result.interval is None:
        return format(result.value, form)
    return f"{result.value:{form}} [{result.interval[0]:{form}} {result.interval[1]:{form}}]"


def _result_json(result: MetricValue | NotComputed) -> dict:
    if isinstance(result, NotComputed):
        missing = {"file": result.file, "folder": result.folder} if result.file else {}
        return {"not_computed": result.reason, **missing}
    values: dict[str, Any] = {}
    if result.per_frame is not None:
        values["per_frame"] = _plain(result.per_frame)
    if result.curves is not None:
        values["curves"] = {name: _plain(curve) for name, curve in result.curves.items()}
    note = {"note": result.note} if result.note else {}
    interval = list(result.interval) if result.interval else None
    return {"value": result.value, "interval_95": interval, "n_frames": result.n_frames, **note, **values}


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]
