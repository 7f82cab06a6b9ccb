"""What a media file, a manifest or a folder of pictures says about itself, as plain values."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from ernerf_ti.media.container import open_media
from ernerf_ti.media.images import read_image
from ernerf_ti.media.provenance.manifest import read_manifest
from ernerf_ti.media.provenance.note import COMPOSITE_TYPE, SOURCE_TYPE, png_size, read_picture_note

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
_TAGS = {"title", "comment", "description"}
_N_NAMES = 5  # of files that are listed by name

Facts = dict[str, Any]
"""JSON values by name; those that are None are not known."""


def media_facts(path: Path, trust: Path | None = None) -> Facts:
    """What a video, a sound, a picture or a .c2pa file is, its note, and its manifest.

    `intact` is False if the file was changed after it was signed, or its manifest can't be relied on; None without a
    manifest that could be checked.

    Args:
        path: the file.
        trust: see :func:`ernerf_ti.media.provenance.manifest.read_manifest`.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: no such file, or one of another kind.
    """
    if path.suffix.lower() == ".c2pa":
        return {"file": path.name, "kind": "manifest", **_manifest_facts(path, trust)}
    try:
        content = _picture_facts(path) if path.suffix.lower() in PICTURES else _stream_facts(path)
    except ValueError as error:
        manifest = _manifest_facts(path, trust)
        if manifest["intact"] is None:
            raise
        return {"file": path.name, "kind": "damaged file", "problem": str(error), **manifest}
    return {"file": path.name, **content, **_manifest_facts(path, trust)}


def pictures_facts(folder: Path, trust: Path | None = None) -> Facts | None:
    """The same of a folder of pictures, as `ernerf-ti synthesize` writes it; None for a folder without pictures."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())
    if not paths:
        return None
    facts = [media_facts(path, trust) for path in paths]
    kinds = Counter(_kind(of_one["manifest"]) for of_one in facts)
    wrong = [of_one["file"] for of_one in facts if of_one["intact"] is False]
    return {
        "file": folder.resolve().name,  # "." is one too
        "kind": "folder of pictures",
        "pictures": len(paths),
        "picture": ", ".join(sorted({of_one.get("picture", "damaged") for of_one in facts})),
        "said to be synthesized": sum(of_one.get("synthesized", False) for of_one in facts),
        "manifests": dict(kinds),
        "not intact": wrong[:_N_NAMES] + ([f"{len(wrong) - _N_NAMES} others"] if len(wrong) > _N_NAMES else []),
        "manifest": facts[0]["manifest"],
        "intact": False if wrong else all(of_one["intact"] for of_one in facts) or None,
    }


def _kind(manifest: object) -> str:
    return manifest["verdict"] if isinstance(manifest, dict) else str(manifest)


def _manifest_facts(path: Path, trust: Path | None) -> Facts:
    try:
        manifest = read_manifest(path, trust)
    except ImportError as error:
        return {"manifest": f"not checked ({error})", "intact": None}
    if manifest is None:
        return {"manifest": "none", "intact": None}
    return {"manifest": asdict(manifest), "intact": manifest.is_intact}


def _note(texts: dict[str, str]) -> Facts:
    """Texts of a file by name, and whether they call it synthesized."""
    named = any(kind in text for kind in (SOURCE_TYPE, COMPOSITE_TYPE) for text in texts.values())
    return {"synthesized": named, "note": texts}


def _picture_facts(path: Path) -> Facts:
    # A PNG need not be decoded, which for a damaged one may take gigabytes.
    width, height = png_size(path) or read_image(path).shape[1::-1]
    return {"kind": "picture", **_note(read_picture_note(path)), "picture": f"{width}x{height}"}


def _stream_facts(path: Path) -> Facts:
    with open_media(path) as file:
        texts = {name.lower(): _printable(text) for name, text in file.metadata.items() if name.lower() in _TAGS}
        seconds = None if file.duration is None else round(file.duration / 1e6, 3)
        facts: Facts = {"kind": "video" if file.streams.video else "sound", **_note(texts), "seconds": seconds}
        if file.streams.video:
            video = file.streams.video[0]
            rate = None if video.average_rate is None else round(float(video.average_rate), 3)
            facts["video"] = {
                "codec": _codec(video),
                "size": f"{video.width}x{video.height}" if video.codec_context else None,
                "frames per second": rate,
            }
        if file.streams.audio:
            audio = file.streams.audio[0]
            facts["sound"] = {
                "codec": _codec(audio),
                "samples per second": audio.rate if audio.codec_context else None,
                "channels": audio.layout.name if audio.codec_context else None,
            }
    return facts


def _printable(text: str) -> str:
    """Text with a replacement character for each byte that was not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _codec(stream: VideoStream | AudioStream) -> str:
    return stream.codec_context.name if stream.codec_context else "unknown"
