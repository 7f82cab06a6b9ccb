"""What a media file, a manifest or a folder of pictures says about itself, as plain values."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ernerf_ti.media.container import open_media
from ernerf_ti.media.images import read_image
from ernerf_ti.media.provenance.manifest import read_manifest
from ernerf_ti.media.provenance.note import SOURCE_TYPE, read_png_note

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
    if path.suffix.lower() in PICTURES:
        height, width = read_image(path).shape[:2]
        content: Facts = {"kind": "picture", **_note(read_png_note(path)), "picture": f"{width}x{height}"}
    else:
        content = _stream_facts(path)
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
        "file": folder.name,
        "kind": "folder of pictures",
        "pictures": len(paths),
        "picture": ", ".join(sorted({of_one["picture"] for of_one in facts})),
        "said to be synthesized": sum(of_one["synthesized"] for of_one in facts),
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
    return {"synthesized": any(SOURCE_TYPE in text for text in texts.values()), "note": texts}


def _stream_facts(path: Path) -> Facts:
    with open_media(path) as file:
        texts = {name.lower(): text for name, text in file.metadata.items() if name.lower() in _TAGS}
        seconds = None if file.duration is None else round(file.duration / 1e6, 3)
        facts: Facts = {"kind": "video" if file.streams.video else "sound", **_note(texts), "seconds": seconds}
        if file.streams.video:
            video = file.streams.video[0]
            rate = None if video.average_rate is None else round(float(video.average_rate), 3)
            facts["video"] = {
                "codec": video.codec_context.name,
                "size": f"{video.codec_context.width}x{video.codec_context.height}",
                "frames per second": rate,
            }
        if file.streams.audio:
            audio = file.streams.audio[0]
            facts["sound"] = {
                "codec": audio.codec_context.name,
                "samples per second": audio.codec_context.sample_rate,
                "channels": audio.codec_context.layout.name,
            }
    return facts
