"""What is run for a row: its stages, in order, as command lines."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.batch.sources import fingerprint
from ernerf_ti.batch.speakers import COMMANDS, Speaker


@dataclass(frozen=True)
class Stage:
    """One command of a row."""

    name: str
    """Name of its log: the command, for synthesis with the name of the sound."""
    command: tuple[str, ...]
    """Arguments of `ernerf-ti`."""
    output: Path
    """What it writes."""
    after: str | None
    """Name of the stage whose result it reads."""
    reads: tuple[str, ...] = ()
    """Inputs of the table that it reads."""


def plan(speaker: Speaker, folder: Path, video: Path, sounds: list[Path]) -> list[Stage]:
    """Stages of a row.

    Args:
        speaker: the row.
        folder: of its results.
        video: local path of its video or capture.
        sounds: local paths of its sounds, named as in the table.
    """
    stages = []
    options = {name: tuple(speaker.options.get(name, ())) for name in COMMANDS}
    capture, run = folder / "capture", folder / "run"
    reads = (speaker.video,)
    if speaker.is_capture:
        capture = video
    else:
        command = ("preprocess", str(video), str(capture), *options["preprocess"])
        stages.append(Stage("preprocess", command, capture, None, reads))
    command = ("train", str(capture), str(run), *options["train"])
    is_first = not stages
    stages.append(Stage("train", command, run, None if is_first else "preprocess", reads if is_first else ()))
    for source, sound in zip(speaker.sounds, sounds, strict=True):
        output = folder / "videos" / f"{Path(source).stem}.mp4"
        command = ("synthesize", str(run), "--audio", str(sound), "-o", str(output), *options["synthesize"])
        stages.append(Stage(f"synthesize_{output.stem}", command, output, "train", (source,)))
    if speaker.checks:
        output = folder / "evaluation"
        command = ("evaluate", str(run), "--capture", str(capture), "-o", str(output), *options["evaluate"])
        stages.append(Stage("evaluate", command, output, "train"))
    return stages


def n_stages(speaker: Speaker) -> int:
    """Number of stages of a row."""
    return len(plan(speaker, Path(), Path(), [Path()] * len(speaker.sounds)))


def keys(speaker: Speaker) -> dict[str, str]:
    """For each stage of a row, a digest of its options and inputs and of those of the stages before it.

    A stage that was done with the same key need not run again. Where files lie makes no difference.
    """
    found: dict[str, str] = {}
    for stage in plan(speaker, Path("ROW"), Path("VIDEO"), [Path("SOUND")] * len(speaker.sounds)):
        parts = [stage.command, [fingerprint(source) for source in stage.reads], found.get(stage.after or "")]
        found[stage.name] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return found
