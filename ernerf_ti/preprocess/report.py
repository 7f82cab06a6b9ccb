"""What preprocessing found, in numbers, warnings and one page to look at."""

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

_SHEET = 12  # frames on the contact sheet
_LOOKED_AT = 48  # frames in which sharpness and the picture's edge are judged
_LABEL_TINTS = np.array([[255, 255, 255], [70, 110, 255], [60, 220, 90], [240, 80, 70]], np.float32)

# Where a warning begins. Each message states the measured number beside it.
_SHORT = 60.0  # s; the field's captures are 3 to 5 minutes
_BLURRED = 0.6  # compressed but focused video has 0.45, the same after a Gaussian of 1 px at 512 has 0.61
_SMALL_FACE = 0.3  # of the picture's height
_SMALL_SOURCE_FACE = 120  # px; below it the capture is mostly interpolation
_MOVING_SHARE, _MOVING_SPREAD = 0.1, 5.0  # share of the plate whose gray level changes by more over time
_QUIET_DB, _CLIPPED_SHARE, _SILENT_SHARE = -40.0, 1e-3, 0.6
_JUMPY = 0.3  # px; step of the nose texture
_CUT_TURN, _CUT_SHIFT = 3.0, 1.5  # degrees, cm: farther no head moves within a frame's 40 ms while it talks


@dataclass(frozen=True)
class Report:
    """`figures` is report.json; the rest is for the page."""

    figures: dict
    sheet: np.ndarray
    """[h, w, 3] uint8 RGB: frames with labels and landmarks, and the layers."""
    curves: dict[str, np.ndarray]
    """Name -> [n_frames] or [n_frames, k], NaN where unknown."""


def alignment_figures(alignment: TextureAlignment) -> dict:
    """As JSON, in pixels of the capture."""
    regions = {
        name: {"deviation_px": list(region.deviation), "step_px": list(region.step)}
        for name, region in alignment.regions.items()
    }
    return {"residual": alignment.residual, **regions}


def measure(capture: Capture, notes: Path) -> Report:
    """Judge a capture.

    Args:
        capture: the finished one.
        notes: folder with what the stages noted.
    """
    found, counts = read_json(notes / "crop.json"), read_json(notes / "frames.json")
    mesh, head, plate = (read_arrays(notes / f"{name}.npz") for name in ("mesh", "head", "plate"))
    ids = np.flatnonzero(np.isfinite(head["poses"]).all((1, 2)))
    angles = head_angles(head["poses"])
    loudness, sound = _judge_sound(read_sound(capture.paths.sound))
    chosen = ids[np.linspace(0, len(ids) - 1, min(_LOOKED_AT, len(ids))).astype(int)]
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
            # In the whole picture: the crop may have cut the others off.
            "searched": found["searched"],
            "with_several_faces": found["with_several_faces"],
            "gaps_in_source": counts["gaps"],
            "repeated_in_source": counts["repeated"],
        },
        "capture": {"width": capture.width, "height": capture.height},
        "source": found["source"],
        "crop": found["crop"],
        "face": {
            "height_px": face_height,
            "height_in_source_px": face_height * crop_scale,
            "blur": float(np.median([_face_blur(capture.frame(k), mesh["points"][k]) for k in chosen])),
            "frames_at_edge_of_picture": float(np.mean([_touches_edge(capture.labels(k)) for k in chosen])),
        },
        "head": {
            "yaw_pitch_roll_range_deg": [float(np.ptp(angles[ids, axis])) for axis in range(3)],
            "cuts_at_s": [float(k / FPS) for k in _cuts(head["poses"])],
            "distance_m": float(np.median(np.linalg.norm(head["poses"][ids, :3, 3], axis=-1))),
            **read_json(notes / "alignment.json"),
        },
        "background": {
            "never_seen": float(1 - plate["seen"].mean()),
            "moving": float((plate["spread"][plate["seen"]] > _MOVING_SPREAD).mean()) if plate["seen"].any() else 1.0,
            "spread_grey_levels": float(np.median(plate["spread"][plate["seen"]])) if plate["seen"].any() else 0.0,
        },
        "sound": sound,
        "blink": {
            "share_closed": float((capture.eye_closures > 0.5).mean()),
            "per_minute": _blinks(capture.eye_closures),
        },
        "features": {"extractor": capture.extractor, "dimension": int(capture.audio_windows.shape[2])},
    }
    figures["warnings"] = warnings(figures)
    curves = {
        "yaw, pitch, roll (degrees)": angles,
        "position of the head (cm): x, y, distance": _positions(head["poses"]),
        "blink": capture.eye_closures,
        "loudness (dB)": loudness,
        "nose texture, shift x, y (px)": head["shifts"][1],
    }
    return Report(figures, _contact_sheet(capture, ids, mesh["points"]), curves)


def warnings(figures: dict) -> list[str]:
    """What is likely to spoil a portrait, each with the number that was measured."""
    frames, face, head = figures["frames"], figures["face"], figures["head"]
    background, sound, found = figures["background"], figures["sound"], []

    def warn(condition: bool, text: str) -> None:
        if condition:
            found.append(text)

    n, missing = frames["n"], frames["n"] - frames["with_pose"]
    warn(frames["seconds"] < _SHORT, f"short: {frames['seconds']:.1f} s of video; portraits want {_SHORT:g} s or more")
    reasons = ", ".join(f"{why}: {count}" for why, count in frames["without_pose"].items())
    warn(missing > 0, f"{missing} of {n} frames have no head pose and are left out ({reasons})")
    crowded = frames["with_several_faces"]
    warn(
        crowded > 0,
        f"several faces in {crowded} of {frames['searched']} searched frames; the largest, or the one followed, "
        "was taken",
    )
    warn(frames["gaps_in_source"] > 0, f"dropped frames: {frames['gaps_in_source']} gaps in the video's time stamps")
    repeated = frames["repeated_in_source"]
    rate = figures["source"]["rate"]
    warn(repeated > 0.02 * n and rate >= FPS, f"frozen frames: {repeated} of {n} repeat the one before")
    warn(rate < FPS - 0.1, f"low frame rate: {rate:g} per second; frames were repeated to reach {FPS:g}")
    share = face["height_px"] / figures["capture"]["height"]
    warn(share < _SMALL_FACE, f"small face: {share:.0%} of the picture's height; crop closer")
    small = face["height_in_source_px"]
    warn(small < _SMALL_SOURCE_FACE, f"small face: {small:.0f} px high in the source; film closer or at a higher size")
    warn(face["blur"] > _BLURRED, f"blurry face: {face['blur']:.2f} on a scale from 0 sharp to 1 blurred")
    edge = face["frames_at_edge_of_picture"]
    warn(edge > 0.02, f"the head leaves the picture in {edge:.0%} of the frames")
    step = max(head["refined"]["nose"]["step_px"])
    warn(step > _JUMPY, f"unsteady tracking: the nose's texture moves {step:.2f} px from frame to frame")
    cuts = ", ".join(f"{second:.1f} s" for second in head["cuts_at_s"][:5])
    warn(bool(cuts), f"cuts: the head jumps {len(head['cuts_at_s'])} times (at {cuts}); use one uncut take")
    moving = background["moving"]
    warn(
        moving > _MOVING_SHARE, f"moving background: {moving:.0%} of it changes by over {_MOVING_SPREAD:g} gray levels"
    )
    warn(sound["peak"] == 0, "silent: the sound track is empty")
    warn(0 < sound["peak"] and sound["speech_db"] < _QUIET_DB, f"quiet sound: speech at {sound['speech_db']:.0f} dB")
    warn(sound["clipped"] > _CLIPPED_SHARE, f"clipped sound: {sound['clipped']:.2%} of the samples at full scale")
    warn(sound["silent"] > _SILENT_SHARE, f"little speech: {sound['silent']:.0%} of the time is silent")
    return found


def head_angles(poses: np.ndarray) -> np.ndarray:
    """pose_world_from_camera [F, 4, 4] -> [F, 3] yaw, pitch, roll of the head in degrees; NaN stays.

    Yaw turns the face to the right of the picture, pitch up, roll clockwise.
    """
    turns = poses[:, :3, :3].swapaxes(1, 2)  # camera from head
    forward, up = turns[..., 2], turns[..., 1]
    yaw = np.arctan2(forward[:, 0], forward[:, 2])
    pitch = np.arcsin(np.clip(forward[:, 1], -1, 1))
    roll = np.arctan2(up[:, 0], up[:, 1])
    return np.degrees(np.stack((yaw, pitch, roll), -1))


def page(report: Report) -> str:
    """One HTML page that needs no other file."""
    figures = report.figures
    listed = "".join(f"<li>{html.escape(text)}</li>" for text in figures["warnings"]) or "<li>none</li>"
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in _flat(figures)
    )
    name = html.escape(figures["source"]["name"])
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Capture of {name}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }}
img, svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse }} th {{ text-align: left; font-weight: normal; color: #555; padding-right: 2em }}
td {{ font-variant-numeric: tabular-nums }} .warnings li {{ color: #a40 }}
</style></head><body>
<h1>Capture of {name}</h1>
<h2>Warnings</h2><ul class="warnings">{listed}</ul>
<h2>Frames</h2>
<p>Labels over the frame (blue head, green neck, red torso) with landmarks; the person before the plate;
the torso layer before the plate.</p>
<img alt="contact sheet" src="data:image/jpeg;base64,{_jpeg(report.sheet)}">
<h2>Curves</h2>{_plots(report.curves)}
<h2>Figures</h2><table>{rows}</table>
</body></html>
"""


def _judge_sound(samples: np.ndarray) -> tuple[np.ndarray, dict]:
    """Loudness of each frame in dB of full scale, and figures of the whole."""
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


def _touches_edge(labels: np.ndarray) -> bool:
    head = labels == 1
    return bool(head[0].any() or head[:, 0].any() or head[:, -1].any())


def _blinks(eye_closures: np.ndarray) -> float:
    closed = eye_closures > 0.5
    return float((closed[1:] & ~closed[:-1]).sum() / (len(eye_closures) / FPS / 60))


def _positions(poses: np.ndarray) -> np.ndarray:
    """[F, 3] the head's x, y and distance in the camera, cm, about their medians."""
    heads = -np.einsum("fji,fj->fi", poses[:, :3, :3], poses[:, :3, 3]) * (1, 1, -1)
    return 100 * (heads - np.nanmedian(heads, 0))


def _cuts(poses: np.ndarray) -> np.ndarray:
    """Frames before which the head jumps."""
    turns = poses[:, :3, :3]
    cosine = (np.einsum("fij,fij->f", turns[1:], turns[:-1]) - 1) / 2
    turn = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    shift = np.linalg.norm(np.diff(_positions(poses)[:, :2], axis=0), axis=1)  # the distance is noisier
    return np.flatnonzero((turn > _CUT_TURN) | (shift > _CUT_SHIFT)) + 1


def _kind(reason: str) -> str:
    """A reason without its numbers, so that alike ones are counted together."""
    return reason.split(":")[0] if ":" in reason else " ".join(w for w in reason.split() if not w[0].isdigit())


def _contact_sheet(capture: Capture, ids: np.ndarray, points: np.ndarray) -> np.ndarray:
    side = 256
    chosen = ids[np.linspace(0, len(ids) - 1, min(_SHEET, len(ids))).astype(int)]
    cells = []
    for k in chosen:
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
        axes[-1].set_xlabel("s")
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
            rows += _flat(value, f"{prefix}{name}: ")
        elif name != "warnings":
            rows.append((prefix + name.replace("_", " "), _text(value)))
    return rows


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
