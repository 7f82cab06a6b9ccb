"""The preprocessing report: figures, warnings and an HTML page."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.media.files import read_arrays, read_json
from ernerf_ti.media.sound import read_sound
from ernerf_ti.preprocess.sharpness import blur
from ernerf_ti.preprocess.texture_alignment import TextureAlignment

_SHEET_FRAMES = 12  # on the contact sheet
_SAMPLED_FRAMES = 48  # for sharpness and for contact with the image border
_LABEL_TINTS = np.array([[255, 255, 255], [70, 110, 255], [60, 220, 90], [240, 80, 70]], np.float32)

# Thresholds of the warnings.
_SHORT = 60.0  # s; published captures have 3 to 5 minutes
_BLURRED = 0.6  # sharp compressed video has 0.45; after a Gaussian of 1 px at 512x512 it has 0.61
_SMALL_FACE = 0.3  # of the image height
_SMALL_SOURCE_FACE = 120  # px; a smaller one is mostly interpolated in the capture
_MOVING_FRACTION, _MOVING_SPREAD = 0.1, 5.0  # fraction of the background that changes by more gray levels over time
_UNSTEADY = 0.3  # px; frame-to-frame motion of the nose texture
_CUT_TURN, _CUT_SHIFT = 3.0, 1.5  # degrees, cm; a talking head moves less within the 40 ms of a frame


@dataclass(frozen=True)
class Report:
    """`figures` is the content of report.json; the rest is for the HTML page."""

    figures: dict
    sheet: np.ndarray
    """[h, w, 3] uint8 RGB contact sheet: frames with labels and landmarks, and the layers."""
    curves: dict[str, np.ndarray]
    """Title -> [n_frames] or [n_frames, k] values, NaN where unknown."""


def alignment_figures(alignment: TextureAlignment) -> dict:
    """Figures for JSON, in pixels of the capture."""
    regions = {
        name: {"deviation_px": list(region.deviation), "step_px": list(region.step)}
        for name, region in alignment.regions.items()
    }
    return {"residual": alignment.residual, **regions}


def measure(capture: Capture, work: Path) -> Report:
    """Measure the quality of a finished capture.

    Args:
        capture: to measure.
        work: folder with the intermediate files of the stages.
    """
    found, counts = read_json(work / "crop.json"), read_json(work / "frames.json")
    mesh, head, background = (read_arrays(work / f"{name}.npz") for name in ("mesh", "head", "background"))
    spread = background["spread"][background["seen"]]
    ids = np.flatnonzero(np.isfinite(head["poses"]).all((1, 2)))
    angles = head_angles(head["poses"])
    loudness, sound = _measure_sound(read_sound(capture.paths.sound))
    sound |= read_json(work / "sound.json")
    selected = ids[np.linspace(0, len(ids) - 1, min(_SAMPLED_FRAMES, len(ids))).astype(int)]
    heights = np.ptp(mesh["points"][ids, :468, 1], axis=1)
    face_height = float(np.median(heights))
    crop_scale = found["crop"]["side"] / capture.height
    reasons, times = np.unique(mesh["reasons"][~mesh["valid"]], return_counts=True)
    figures = {
        "frames": {
            "n": counts["written"],
            "seconds": counts["written"] / FPS,
            "with_pose": len(ids),
            "without_pose": {_kind(reason): int(n) for reason, n in zip(reasons, times, strict=True)},
            # In the whole video: other faces may lie outside the crop.
            "searched": found["searched"],
            "with_several_faces": found["with_several_faces"],
            "gaps_in_source": counts["gaps"],
            "repeated_in_source": counts["repeated"],
            # Captures of earlier versions lack these.
            "held_in_source": counts.get("held", 0),
            "standstills_in_source": counts.get("standstills", 0),
            "longest_gap_in_source": counts.get("longest_gap", 0.0),
        },
        "capture": {"width": capture.width, "height": capture.height},
        "source": found["source"],
        "crop": found["crop"],
        "face": {
            "height_px": face_height,
            "height_in_source_px": face_height * crop_scale,
            "blur": float(np.median([_face_blur(capture.frame(k), mesh["points"][k]) for k in selected])),
            "frames_at_image_border": float(np.mean([_touches_border(capture.labels(k)) for k in selected])),
        },
        "head": {
            "yaw_pitch_roll_range_deg": [float(np.ptp(angles[ids, axis])) for axis in range(3)],
            "cuts_at_s": [float(k / FPS) for k in _cuts(head["poses"])],
            "distance_m": float(np.median(np.linalg.norm(head["poses"][ids, :3, 3], axis=-1))),
            **read_json(work / "alignment.json"),
        },
        "background": {
            "never_seen": float(1 - background["seen"].mean()),
            "moving": float((spread > _MOVING_SPREAD).mean()) if spread.size else 1.0,
            "spread_gray_levels": float(np.median(spread)) if spread.size else 0.0,
        },
        "sound": sound,
        "blink": {
            "fraction_closed": float((capture.eye_closures > 0.5).mean()),
            "per_minute": _blinks(capture.eye_closures),
        },
        "features": {"extractor": capture.extractor, "dimension": int(capture.audio_windows.shape[2])},
    }
    figures["warnings"] = warnings(figures)
    curves = {
        "yaw, pitch, roll (degrees)": angles,
        "head position (cm): x, y, distance": _positions(head["poses"]),
        "eye closure": capture.eye_closures,
        "loudness (dBFS)": loudness,
        "shift of the nose texture (px): x, y": head["shifts"][1],
    }
    return Report(figures, _contact_sheet(capture, ids, mesh["points"]), curves)


def warnings(figures: dict) -> list[str]:
    """Problems that are likely to degrade a portrait, each with the measured value."""
    frames, face, head = figures["frames"], figures["face"], figures["head"]
    background, sound, found = figures["background"], figures["sound"], []

    def warn(condition: bool, text: str) -> None:
        if condition:
            found.append(text)

    n, missing = frames["n"], frames["n"] - frames["with_pose"]
    warn(frames["seconds"] < _SHORT, f"short video: {frames['seconds']:.1f} s; use at least {_SHORT:g} s")
    reasons = ", ".join(f"{why}: {count}" for why, count in frames["without_pose"].items())
    warn(missing > 0, f"{missing} of {n} frames have no head pose and are not used ({reasons})")
    crowded = frames["with_several_faces"]
    warn(
        crowded > 0,
        f"several faces in {crowded} of {frames['searched']} searched frames; the largest or the tracked one is used",
    )
    for note in figures["source"].get("notes", ()):
        warn(True, f"video: {note}")
    gaps, standstills, longest = (frames.get(f"{name}_in_source", 0) for name in ("gaps", "standstills", "longest_gap"))
    warn(gaps > 0, f"dropped frames: {gaps} gaps in the time stamps of the video")
    warn(
        standstills > 0,
        f"the picture stands still: {standstills} times there is no new frame for more than 0.2 s, at most "
        f"{longest:.1f} s",
    )
    # Those that are shown longer are not frozen: the video has no other picture for their time.
    held = frames.get("held_in_source", 0)
    frozen, rate = frames["repeated_in_source"] - held, figures["source"]["rate"]
    warn(frozen > 0.02 * n, f"frozen video: {frozen} of {n} frames repeat the previous one")
    warn(rate < FPS - 0.1, f"low frame rate: {rate:.3g} fps; frames are repeated to reach {FPS:g} fps")
    warn(
        held > 0.02 * n and rate >= FPS - 0.1,
        f"uneven frame rate: {held} of {n} frames repeat the previous one, since the video has no newer picture for "
        f"their time ({rate:.3g} fps on average)",
    )
    fraction = face["height_px"] / figures["capture"]["height"]
    warn(fraction < _SMALL_FACE, f"small face: {fraction:.0%} of the image height; use a closer crop")
    small = face["height_in_source_px"]
    warn(
        small < _SMALL_SOURCE_FACE,
        f"small face: {small:.0f} px high in the video; record from closer or at a higher resolution",
    )
    warn(face["blur"] > _BLURRED, f"blurry face: {face['blur']:.2f} on a scale from 0 (sharp) to 1 (blurred)")
    border = face["frames_at_image_border"]
    warn(border > 0.02, f"the head touches the image border in {border:.0%} of the frames")
    step = max(head["refined"]["nose"]["step_px"])
    warn(step > _UNSTEADY, f"unsteady tracking: the texture of the nose moves {step:.2f} px from frame to frame")
    cuts = ", ".join(f"{second:.1f} s" for second in head["cuts_at_s"][:5])
    warn(bool(cuts), f"cuts: the head jumps at {cuts} ({len(head['cuts_at_s'])} in total); use a continuous take")
    moving = background["moving"]
    warn(
        moving > _MOVING_FRACTION,
        f"moving background: {moving:.0%} of it varies by more than {_MOVING_SPREAD:g} gray levels",
    )
    return found + sound["notes"]


def head_angles(poses: np.ndarray) -> np.ndarray:
    """pose_world_from_camera [F, 4, 4] -> [F, 3] yaw, pitch and roll of the head in degrees, NaN for NaN.

    Positive yaw turns the face to the right of the image, positive pitch up, positive roll clockwise.
    """
    rotations = poses[:, :3, :3].swapaxes(1, 2)  # camera from head
    forward, up = rotations[..., 2], rotations[..., 1]
    yaw = np.arctan2(forward[:, 0], forward[:, 2])
    pitch = np.arcsin(np.clip(forward[:, 1], -1, 1))
    roll = np.arctan2(up[:, 0], up[:, 1])
    return np.degrees(np.stack((yaw, pitch, roll), -1))


def page(report: Report) -> str:
    """A self-contained HTML page."""
    figures = report.figures
    listed = "".join(f"<li>{html.escape(text)}</li>" for text in figures["warnings"]) or "<li>none</li>"
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in _flat(figures)
    )
    name = html.escape(figures["source"]["name"])
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Preprocessing report: {name}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }}
img, svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse }} th {{ text-align: left; font-weight: normal; color: #555; padding-right: 2em }}
td {{ font-variant-numeric: tabular-nums }} .warnings li {{ color: #a40 }}
</style></head><body>
<h1>Preprocessing report: {name}</h1>
<h2>Warnings</h2><ul class="warnings">{listed}</ul>
<h2>Frames</h2>
<p>From top to bottom: the frame with landmarks and labels (head blue, neck green, torso red); the person composited
over the background; the torso layer composited over the background.</p>
<img alt="contact sheet" src="data:image/jpeg;base64,{_jpeg(report.sheet)}">
<h2>Curves</h2>{_plots(report.curves)}
<h2>Figures</h2><table>{rows}</table>
</body></html>
"""


def _measure_sound(samples: np.ndarray) -> tuple[np.ndarray, dict]:
    """Loudness of each frame in dBFS, and figures for the whole recording."""
    n = round(16_000 / FPS)
    frames = samples[: len(samples) // n * n].reshape(-1, n)
    power = np.square(frames.astype(np.float64)).mean(1)
    loudness = 10 * np.log10(power + 1e-10)
    speech = np.percentile(loudness, 90) if len(loudness) else -100.0
    return loudness, {
        "peak": float(np.abs(samples).max(initial=0)),
        "speech_db": float(speech),
        "clipped": float((np.abs(samples) > 0.999).mean()) if len(samples) else 0.0,
        "silent": float((loudness < max(speech - 30, -60)).mean()) if len(loudness) else 1.0,
    }


def _face_blur(frame: np.ndarray, points: np.ndarray) -> float:
    low = np.maximum(points[:468, :2].min(0).astype(int), 0)
    high = points[:468, :2].max(0).astype(int) + 1
    face = cv2.cvtColor(frame[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)
    return blur(face)


def _touches_border(labels: np.ndarray) -> bool:
    head = labels == 1
    return bool(head[0].any() or head[:, 0].any() or head[:, -1].any())


def _blinks(eye_closures: np.ndarray) -> float:
    closed = eye_closures > 0.5
    return float((closed[1:] & ~closed[:-1]).sum() / (len(eye_closures) / FPS / 60))


def _positions(poses: np.ndarray) -> np.ndarray:
    """[F, 3] x, y and distance of the head in camera coordinates relative to their medians, cm."""
    heads = -np.einsum("fji,fj->fi", poses[:, :3, :3], poses[:, :3, 3]) * (1, 1, -1)
    return 100 * (heads - np.nanmedian(heads, 0))


def _cuts(poses: np.ndarray) -> np.ndarray:
    """Indices of frames in which the head has jumped."""
    rotations = poses[:, :3, :3]
    cosine = (np.einsum("fij,fij->f", rotations[1:], rotations[:-1]) - 1) / 2
    turn = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    shift = np.linalg.norm(np.diff(_positions(poses)[:, :2], axis=0), axis=1)  # the distance is too noisy
    return np.flatnonzero((turn > _CUT_TURN) | (shift > _CUT_SHIFT)) + 1


def _kind(reason: str) -> str:
    """A reason without its numbers, for counting."""
    return reason.split(":")[0] if ":" in reason else " ".join(w for w in reason.split() if not w[0].isdigit())


def _contact_sheet(capture: Capture, ids: np.ndarray, points: np.ndarray) -> np.ndarray:
    side = 256
    selected = ids[np.linspace(0, len(ids) - 1, min(_SHEET_FRAMES, len(ids))).astype(int)]
    cells = []
    for k in selected:
        tint = _LABEL_TINTS[capture.labels(k)]
        overlay = (0.65 * capture.frame(k) + 0.35 * tint).astype(np.uint8)
        for x, y in capture.landmarks(k):
            cv2.circle(overlay, (round(float(x)), round(float(y))), max(1, capture.height // 256), (255, 255, 0), -1)
        layer = capture.torso(k).astype(np.float32)
        alpha = layer[..., 3:] / 255
        torso = (layer[..., :3] * alpha + capture.background * (1 - alpha)).astype(np.uint8)
        views = (overlay, capture.image(k), torso)
        cell = np.concatenate([cv2.resize(v, (side, side), interpolation=cv2.INTER_AREA) for v in views], 0)
        cv2.putText(cell, str(k), (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(cell)
    while len(cells) % 4:
        cells.append(np.full_like(cells[0], 255))
    return np.concatenate([np.concatenate(cells[i : i + 4], 1) for i in range(0, len(cells), 4)], 0)


def _plots(curves: dict[str, np.ndarray]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "ernerf-ti", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = pyplot.subplots(len(curves), 1, figsize=(11, 1.7 * len(curves)), layout="constrained")
        for axis, (title, values) in zip(axes, curves.items(), strict=True):
            axis.plot(np.arange(len(values)) / FPS, values, linewidth=0.7)
            axis.set_title(title, loc="left", fontsize=8)
            axis.margins(x=0)
        axes[-1].set_xlabel("time (s)")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _jpeg(image: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return base64.b64encode(data.tobytes()).decode()


def _flat(figures: dict, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in figures.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name.replace('_', ' ')}: ")
        elif name != "warnings":
            rows.append((prefix + name.replace("_", " "), _text(value)))
    return rows


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
