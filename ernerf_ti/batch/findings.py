"""What the page of a batch shows of a row: a picture, metrics and warnings."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from ernerf_ti.batch.speakers import Speaker

THUMBNAIL = "thumbnail.jpg"
METRICS = ("PSNR face", "PSNR lips", "SSIM frame", "LMD", "sound-to-mouth correlation")
"""Metrics of the evaluation that the page lists."""
_SETTINGS = ("portrait", "head")
_HEIGHT = 128  # of a thumbnail, in pixels
_FRAME = 12  # of the video that is shown: half a second in


def findings(folder: Path, speaker: Speaker) -> dict[str, Any]:
    """Metrics, warnings and links of a row, with paths relative to its folder; writes its thumbnail.

    What is missing or can't be read is left out: it belongs to a stage that failed.
    """
    capture = Path(speaker.video) if speaker.is_capture else folder / "capture"
    found: dict[str, Any] = {"metrics": _metrics(folder / "evaluation" / "metrics.json")}
    report = _json(capture / "report.json")
    found["warnings"] = [str(text) for text in report.get("warnings", [])]
    links = {
        "capture": folder / "capture" / "report.html",
        "evaluation": folder / "evaluation" / "evaluation.html",
        **{path.name: path for path in sorted((folder / "videos").glob("*.mp4"))},
    }
    found["links"] = {name: path.relative_to(folder).as_posix() for name, path in links.items() if path.is_file()}
    found["thumbnail"] = _write_thumbnail(folder)
    return found


def _metrics(path: Path) -> dict[str, dict[str, Any]]:
    content = _json(path)
    settings = content.get("settings", {})
    found: dict[str, dict[str, Any]] = {}
    for name in METRICS:
        for setting in _SETTINGS:
            result = settings.get(setting, {}).get("metrics", {}).get(name, {})
            if result.get("value") is not None:
                unit = content.get("metrics", {}).get(name, {}).get("unit", "")
                found[name] = {"value": result["value"], "unit": unit, "of": setting}
                break
    return found


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_thumbnail(folder: Path) -> str | None:
    """Name of a small JPEG of the first video, else of the last validation image; None without either."""
    import cv2

    from ernerf_ti.media.video import read_frames

    image = None
    for path in sorted((folder / "videos").glob("*.mp4")):
        try:
            frames = list(islice(read_frames(path, 25), _FRAME + 1))
        except (OSError, ValueError):
            continue
        image = cv2.cvtColor(frames[-1], cv2.COLOR_RGB2BGR)
        break
    pictures = sorted((folder / "run" / "validation").glob("*.png"), key=lambda path: path.stat().st_mtime)
    if image is None and pictures:
        image = cv2.imread(str(pictures[-1]))
    if image is None:
        return None
    scale = min(1.0, _HEIGHT / len(image))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / THUMBNAIL), small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return THUMBNAIL
