"""Show where a file comes from: who made it, with which portrait and sound, and whether it was changed since.

    ernerf-ti inspect speaking.mp4
    ernerf-ti inspect runs/speaker
    ernerf-ti inspect captures/speaker --json

Takes a video, picture or manifest (.c2pa), a folder of pictures, a run or checkpoint, or a capture. The exit status is
1 if the file was changed after it was signed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ernerf_ti.cli.options import Command, Positional
from ernerf_ti.cli.paths import is_capture
from ernerf_ti.data.capture_files import CapturePaths, read_description, read_transforms
from ernerf_ti.media.files import file_digest
from ernerf_ti.media.provenance.consent import consent_in, read_consent
from ernerf_ti.run.folder import RunFolder

_CHECKPOINTS = {".pt", ".pth"}
_ZIP = b"PK\x03\x04"  # torch writes such archives


@dataclass(frozen=True)
class InspectOptions:
    """Options of `ernerf-ti inspect`."""

    file: Positional[Path]
    """File or folder to look at."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON."""
    trust: Path | None = None
    """PEM file with certificates of authorities: signers that they vouch for are reported as trusted."""


def _inspect(options: InspectOptions) -> int:
    facts = _facts(options.file, options.trust)
    if options.as_json:
        print(json.dumps(facts, indent=2, default=str))
    else:
        print("\n".join(_lines(facts)))
    return 1 if facts.get("intact") is False else 0


def _facts(path: Path, trust: Path | None) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file or folder to look at, got no such file; check the path")
    if path.is_dir() and is_capture(path):
        return _capture_facts(path)
    if path.is_dir():
        return _folder_facts(path, trust)
    if _is_checkpoint(path):
        return _checkpoint_facts(path)

    from ernerf_ti.media.provenance.facts import media_facts

    return media_facts(path, trust)


def _folder_facts(path: Path, trust: Path | None) -> dict[str, Any]:
    try:
        run = RunFolder.find(path)
    except (FileNotFoundError, ValueError):
        from ernerf_ti.media.provenance.facts import pictures_facts

        pictures = pictures_facts(path, trust)
        if pictures is None:
            raise ValueError(
                f"{path}: expected a run, a capture or a folder of pictures, got another folder; pass one of these, or "
                "a file"
            ) from None
        return pictures
    return _checkpoint_facts(run.checkpoint)


def _is_checkpoint(path: Path) -> bool:
    with open(path, "rb") as file:
        return path.suffix.lower() in _CHECKPOINTS or file.read(len(_ZIP)) == _ZIP


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    from ernerf_ti.run.facts import checkpoint_facts

    try:
        return checkpoint_facts(path)
    except ValueError as error:
        from ernerf_ti.interop.ngp_files import read_official_file

        try:
            official = read_official_file(path)
        except ValueError:
            raise error from None
        consent = consent_in(official.entries, path)
        return {
            "file": str(path),
            "kind": "checkpoint of the public ER-NeRF code",
            "sha256": file_digest(path),
            "consent": consent.as_dict() if consent else None,
            "audio features": official.feature_dimension,
            "torso": official.has_torso,
        }


def _capture_facts(folder: Path) -> dict[str, Any]:
    paths, consent = CapturePaths(folder), read_consent(folder)
    splits = {split: read_transforms(paths.transforms(split)) for split in ("train", "val")}
    size = splits["train"][1]
    return {
        "file": str(folder),
        "kind": "capture",
        "consent": consent.as_dict() if consent else None,
        "size": f"{size[0]}x{size[1]}",
        "training frames": len(splits["train"][2]),
        "held-out frames": len(splits["val"][2]),
        "transforms sha256": file_digest(paths.transforms("train")),
        "made": asdict(read_description(paths.description)) if paths.description.exists() else "by another tool",
    }


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """One line for each value, those of a record below its name."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{_printable(name)}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{_printable(name)}: {_text(name, value)}")
    return lines


def _text(name: str, value: object) -> str:
    if value is None and name == "consent":
        return "no consent record"
    if value is None and name == "intact":
        return "not known"
    if value is None or value in ([], (), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_printable(item) for item in value)
    return _printable(value)


def _printable(value: object) -> str:
    """Without characters that could command a terminal: the text may be anybody's."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


main = Command("inspect", InspectOptions, _inspect, __doc__)
