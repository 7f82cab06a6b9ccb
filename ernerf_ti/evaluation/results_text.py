"""An evaluation as plain values and as a table."""

import math

import numpy as np

from ernerf_ti.evaluation.evaluation import Evaluation
from ernerf_ti.evaluation.metric import Measured, NotComputed
from ernerf_ti.evaluation.statistics import INTERVAL

_FORMATS = {"dB": ".2f", "r": ".3f", "px": ".2f", "% of eye distance": ".2f", "": ".4f"}


def as_json(evaluation: Evaluation) -> dict:
    """What metrics.json holds: facts, metrics, and per setting the values, with those of each frame."""
    settings = {}
    for setting in evaluation.settings:
        results = {
            metric.name: _result_json(evaluation.results[setting.name, metric.name])
            for metric in evaluation.metrics
            if (setting.name, metric.name) in evaluation.results
        }
        times = [int(time) for time in setting.times]
        settings[setting.name] = {"what": setting.what, "times": times, "metrics": results}
    metrics = {
        metric.name: {"unit": metric.unit, "better": metric.better, "how": metric.how} for metric in evaluation.metrics
    }
    return {**evaluation.facts, "interval": INTERVAL, "metrics": metrics, "settings": settings}


def table(evaluation: Evaluation) -> list[list[str]]:
    """Rows of cells: a heading, then one row per metric that has a value, one column per setting.

    A cell is the mean and its 95 % interval; "-" where the setting does not ask for the metric, or has no value.
    """
    rows = [["", *(setting.name for setting in evaluation.settings)]]
    for metric in evaluation.metrics:
        cells = [evaluation.results.get((setting.name, metric.name)) for setting in evaluation.settings]
        if any(isinstance(cell, Measured) for cell in cells):
            unit = f" ({metric.unit})" if metric.unit not in ("", "r") else ""
            arrow = "^" if metric.better == "higher" else "v"
            rows.append([f"{metric.name}{unit} {arrow}", *(_cell(cell, metric.unit) for cell in cells)])
    return rows


def not_computed(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Metric, with the settings if others have it, and why there is no value."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for setting in evaluation.settings:
        for metric in evaluation.metrics:
            result = evaluation.results.get((setting.name, metric.name))
            if isinstance(result, NotComputed):
                reasons.setdefault((metric.name, reason_text(result)), []).append(setting.name)
    listed = []
    for (name, reason), settings in reasons.items():
        asked = sum((setting.name, name) in evaluation.results for setting in evaluation.settings)
        listed.append((name if len(settings) == asked else f"{name} ({', '.join(settings)})", reason))
    return listed


def reason_text(result: NotComputed) -> str:
    if result.file is None:
        return result.reason
    return f"{result.reason}: {result.file}, which goes to {result.place}"


def summary(evaluation: Evaluation) -> str:
    """The table and what belongs to it, for the screen."""
    rows = table(evaluation)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("mean [95 % interval]; ^ higher is better, v lower is better")
    lines += [f"not computed: {name}: {reason}" for name, reason in not_computed(evaluation)]
    lines += [f"{name}: {value}" for name, value in headlines(evaluation.facts).items()]
    return "\n".join(lines)


def headlines(facts: dict) -> dict[str, str]:
    """The facts that stand beside the table."""
    capture, model, training = facts["capture"], facts["model"], facts["training_seconds"]
    run, trained = facts["run"], "time not recorded"
    if training is not None:
        stages = ", ".join(f"{stage} {value / 60:.1f}" for stage, value in training.items() if stage != "all")
        trained = f"{training['all'] / 60:.1f} minutes ({stages})"
    lines = {
        "frames": f"{capture['evaluated_frames']} of {capture['held_out_frames']} held out (frames "
        f"{capture['held_out_ids'][0]} to {capture['held_out_ids'][1]}), {capture['training_frames']} trained on, "
        f"{capture['size'][0]} x {capture['size'][1]} pixels",
        "run": f"stage {run['stage']}, step {run['step']}",
        "model": f"{model['parameters']['all']:,} parameters, {model['megabytes']:.2f} MB as 32-bit floats; "
        f"checkpoint {model['checkpoint_megabytes']:.1f} MB",
        "training": trained,
    }
    for name, figure in facts["speed"].items():
        lines[f"speed, {name}"] = f"{figure['frames_per_second']:.2f} frames/s ({figure['how']})"
    lines["machine"] = f"{facts['machine']['device']}, {facts['machine']['threads']} threads"
    lines["versions"] = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines["commit"] = facts["commit"] or "not in a git tree"
    return lines


def _cell(result: Measured | NotComputed | None, unit: str) -> str:
    if not isinstance(result, Measured):
        return "-"
    form = _FORMATS[unit]
    if result.interval is None:
        return format(result.value, form)
    return f"{result.value:{form}} [{result.interval[0]:{form}} {result.interval[1]:{form}}]"


def _result_json(result: Measured | NotComputed) -> dict:
    if isinstance(result, NotComputed):
        missing = {"file": result.file, "place": result.place} if result.file else {}
        return {"not_computed": result.reason, **missing}
    values = {}
    if result.per_frame is not None:
        values["per_frame"] = _plain(result.per_frame)
    if result.motions is not None:
        values["motions"] = {name: _plain(motion) for name, motion in result.motions.items()}
    note = {"note": result.note} if result.note else {}
    interval = list(result.interval) if result.interval else None
    return {"value": result.value, "interval_95": interval, "n_frames": result.n_frames, **note, **values}


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]
