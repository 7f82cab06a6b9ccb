"""An evaluation as one self-contained HTML page: tables, plots, and the worst frames."""

import base64
import html

import cv2
import numpy as np

from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.evaluation import Evaluation
from ernerf_ti.evaluation.held_out import CROSS_SPEAKER
from ernerf_ti.evaluation.metric import MetricValue, Setting
from ernerf_ti.evaluation.results_text import headlines, not_computed, notes, subject, table
from ernerf_ti.evaluation.statistics import INTERVAL

_N_WORST = 3
_WORST_BY = (
    *("PSNR face", "PSNR lips", "LPIPS alex", "LMD", "mesh AUE upper", "mesh AUE lower"),
    *("CSIM", "opening in silence", "wobble"),
)
_SHOWN = ("head", "portrait", "video")
_MAX_HEIGHT = 256  # of a shown frame, in pixels
_GAIN = 4  # of the differences shown
_COLORS = "#1f77b4", "#2ca02c", "#d62728", "#999999", "#cc9944"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000, 170, 60, 22  # of a plot and its left and bottom margins
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1300px; margin: 2em auto; padding: 0 1em; color: #222 }
img, svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px }
th { text-align: left; font-weight: normal; color: #555; padding-right: 1.5em; vertical-align: top }
td { font-variant-numeric: tabular-nums; padding-right: 1.2em; white-space: nowrap }
td.text { white-space: normal } .wide th { white-space: nowrap }
tr:first-child th { color: #222 } .interval { color: #888 }
figure { margin: 1em 0 } figcaption { color: #555; font-size: 13px }
"""


def page(evaluation: Evaluation) -> str:
    """HTML of the page."""
    facts = evaluation.facts
    kind, path = subject(facts)
    title = f"Evaluation of {html.escape(path)}"
    descriptions = [(metric.name, metric.description) for metric in evaluation.metrics]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<h2>Metrics</h2><div class="wide">{_metric_table(evaluation)}</div>
<p>Mean and {INTERVAL}. &uarr; higher is better, &darr; lower is better.</p>
<h2>Notes</h2>{_list(notes(evaluation))}
<h2>Not computed</h2>{_list(not_computed(evaluation))}
<h2>Settings</h2>{_pairs([(setting.name, setting.description) for setting in evaluation.settings])}
<h2>{kind.capitalize()}</h2>{_pairs(list(headlines(facts).items()))}
<h2>Worst frames</h2>{_worst_frames(evaluation)}
<h2>Frame by frame</h2>{_curves(evaluation)}
<h2>How each metric is computed</h2>{_pairs(descriptions)}
</body></html>
"""


def worst(result: MetricValue, better: str, n: int = _N_WORST) -> list[int]:
    """Indices of the frames with the worst values, the worst first, at least half a second apart."""
    values = result.per_frame
    assert values is not None
    order = np.argsort(values if better == "higher" else -values)  # NaN last in both
    indices: list[int] = []
    for i in map(int, order):
        if np.isfinite(values[i]) and all(abs(i - other) >= FPS / 2 for other in indices):
            indices.append(i)
        if len(indices) == n:
            break
    return indices


def plot(title: str, curves: dict[str, np.ndarray], times: np.ndarray) -> str:
    """An SVG with a line per curve [n] at times [n] in seconds; NaN leaves a gap."""
    values = np.concatenate(list(curves.values()))
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    span, length = (high - low) or 1.0, float(times[-1] - times[0]) or 1.0
    parts = []
    for number, (name, curve) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        x = _LEFT + (times - times[0]) / length * (_WIDTH - _LEFT - 10)
        y = 30 + (high - curve) / span * (_HEIGHT - 30 - _BOTTOM)
        for line in _runs(np.isfinite(curve)):
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[line], y[line], strict=True))
            parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.2" points="{points}"/>')
        parts.append(f'<text x="{_LEFT + 340 + 130 * number}" y="14" fill="{color}">{html.escape(name)}</text>')
    bottom = _HEIGHT - _BOTTOM
    parts += [
        f'<text x="{_LEFT}" y="14">{html.escape(title)}</text>',
        f'<text x="{_LEFT - 6}" y="36" text-anchor="end">{high:.3g}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{times[0]:.1f} s</text>',
        f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 6}" text-anchor="end">{times[-1]:.1f} s</text>',
        f'<path d="M{_LEFT} 30V{bottom}H{_WIDTH - 10}" fill="none" stroke="#ccc"/>',
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="#444">'
        + "".join(parts)
        + "</svg>"
    )


def _runs(known: np.ndarray) -> list[slice]:
    """Runs of consecutive true values in known [n]."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], known.astype(int), [0]))))
    return [slice(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _metric_table(evaluation: Evaluation) -> str:
    head, *rows = table(evaluation)
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for name, *cells in rows:
        name = html.escape(name[:-1]) + {"^": "&uarr;", "v": "&darr;"}[name[-1]]
        shown = (html.escape(cell).replace("[", '<span class="interval">[').replace("]", "]</span>") for cell in cells)
        lines.append(f"<tr><th>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in shown) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _list(entries: list[tuple[str, str]]) -> str:
    items = "".join(f"<li>{html.escape(name)}: {html.escape(text)}</li>" for name, text in entries)
    return f"<ul>{items or '<li>none</li>'}</ul>"


def _pairs(rows: list[tuple[str, str]]) -> str:
    cells = (f'<tr><th>{html.escape(a)}</th><td class="text">{html.escape(b)}</td></tr>' for a, b in rows)
    return f"<table>{''.join(cells)}</table>"


def _curves(evaluation: Evaluation) -> str:
    """A plot per metric with per-frame values, and per metric and setting of the quantities that it compares."""
    plots = []
    for metric in evaluation.metrics:
        unit = f", {metric.unit}" if metric.unit else ""
        found: dict[str, tuple[np.ndarray, MetricValue]] = {}
        for setting in evaluation.settings:
            result = evaluation.results.get((setting.name, metric.name))
            if isinstance(result, MetricValue):
                found[setting.name] = setting.times, result
        rows = {
            name: (times, result.per_frame) for name, (times, result) in found.items() if result.per_frame is not None
        }
        # The other speaker's sound has a time axis of its own.
        for cross_speaker in (False, True):
            group = {name: row for name, row in rows.items() if name.startswith(CROSS_SPEAKER) == cross_speaker}
            if group:
                times = next(iter(group.values()))[0]
                values = {name: per_frame for name, (_, per_frame) in group.items()}
                plots.append(plot(metric.name + unit, values, times / FPS))
        for name, (times, result) in found.items():
            if result.curves is not None:
                plots.append(plot(f"{metric.name} = {result.value:.2f} ({name})", result.curves, times / FPS))
    return "".join(plots)


def _worst_frames(evaluation: Evaluation) -> str:
    figures, intro = [], "The frames."
    for setting in (s for s in evaluation.settings if s.name in _SHOWN):
        shown: list[tuple[int, str]] = []
        for metric in (m for m in evaluation.metrics if m.name in _WORST_BY):
            result = evaluation.results.get((setting.name, metric.name))
            if not isinstance(result, MetricValue) or result.per_frame is None:
                continue
            for i in worst(result, metric.better):
                caption = f"{setting.name}, frame at {setting.times[i] / FPS:.2f} s: {metric.name} "
                caption += f"{result.per_frame[i]:.4g} {metric.unit} (mean {result.value:.4g})"
                shown.append((i, caption))
        # Videos are decoded in ascending order.
        pictures = {i: _jpeg(_shrunk(_picture(setting, i))) for i in sorted({i for i, _ in shown})}
        figures += [
            f'<figure><img alt="" src="data:image/jpeg;base64,{pictures[i]}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for i, caption in shown
        ]
        if setting.truth is not None:
            intro = f"True frame, rendered frame, and their difference times {_GAIN}."
    return f"<p>{intro}</p>" + "".join(figures)


def _picture(setting: Setting, i: int) -> np.ndarray:
    """Image i of a setting, beside the true one and their difference if there is a true one."""
    image = setting.images[i]
    if setting.truth is None:
        return image
    truth = setting.truth[i]
    difference = np.abs(truth.astype(np.int16) - image.astype(np.int16))
    return np.concatenate((truth, image, np.minimum(_GAIN * difference, 255).astype(np.uint8)), 1)


def _shrunk(row: np.ndarray) -> np.ndarray:
    shrink = min(1.0, _MAX_HEIGHT / len(row))
    return cv2.resize(row, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else row


def _jpeg(image: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return base64.b64encode(data.tobytes()).decode()
