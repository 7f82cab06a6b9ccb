"""The log of a training run: JSON lines for programs and TensorBoard events for people.

A line of log.jsonl has `stage` and `step`, and either of

- a training step: `loss`, its weighted terms in `loss_terms`, `statistics` (psnr, rays_per_second, samples_per_ray)
  and `seconds`, the wall time that the stage has taken up to this step, all resumptions together;
- a validation: `statistics` (validation_psnr).

Every number is a TensorBoard scalar `stage/name` or `stage/group/name`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ernerf_ti.media.files import write_text
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.train.config import STAGES, TrainConfig


class TrainingLog:
    """Appends to the log of a run; a context manager.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder):
        from torch.utils.tensorboard import SummaryWriter

        self._lines = folder.log.open("a")
        self._board = SummaryWriter(str(folder.tensorboard))

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._lines.close()
        self._board.close()

    def write(self, stage: str, step: int, values: dict[str, Any]) -> None:
        """Write one line.

        Args:
            stage, step: of the line.
            values: numbers, or groups of numbers, by name.
        """
        entry = {"stage": stage, "step": step, **values}
        self._lines.write(json.dumps(entry) + "\n")
        self._lines.flush()
        self.add_scalars(entry)

    def add_scalars(self, entry: dict[str, Any]) -> None:
        """Write a line of the log to TensorBoard alone."""
        stage, step = entry["stage"], entry["step"]
        for name, value in entry.items():
            if isinstance(value, dict):
                for key, number in value.items():
                    self._board.add_scalar(f"{stage}/{name}/{key}", number, step)
            elif name not in ("stage", "step"):
                self._board.add_scalar(f"{stage}/{name}", value, step)


def clear_log(folder: RunFolder) -> None:
    """Remove the log of an earlier run from a folder.

    Raises ValueError if a log lies there and the folder is not that of a run.
    """
    found = [path for path in (folder.log, folder.tensorboard) if path.exists()]
    if found and not folder.config.is_file():
        raise ValueError(
            f"{folder.path}: expected a new folder or the folder of a run, got one with {found[0].name} of something "
            "else; choose another folder"
        )
    folder.log.unlink(missing_ok=True)
    _remove_events(folder)


def rewind_log(folder: RunFolder, stage: str, step: int) -> None:
    """Drop what was logged after a step, so that a run that is resumed there logs no step twice.

    Args:
        folder: the run folder.
        stage, step: the last step that stays.
    """
    if not folder.log.is_file():
        return
    last = (STAGES.index(stage), step)
    kept = [entry for entry in _read(folder.log) if (STAGES.index(entry["stage"]), entry["step"]) <= last]
    text = "".join(json.dumps(entry) + "\n" for entry in kept)
    if text == folder.log.read_text(encoding="utf-8", errors="replace"):
        return
    write_text(folder.log, text)
    # TensorBoard can't drop the events of some tags only: write them again.
    _remove_events(folder)
    with TrainingLog(folder) as log:
        for entry in kept:
            log.add_scalars(entry)


def _remove_events(folder: RunFolder) -> None:
    """TensorBoard's files alone, whatever else lies in its folder."""
    for path in folder.tensorboard.glob("events.out.tfevents.*"):
        path.unlink(missing_ok=True)


def training_seconds(log: Path) -> dict[str, float] | None:
    """Wall seconds that each stage took, from a run's log.jsonl. Each step counts once.

    Args:
        log: the file.

    Returns None if the file does not exist or has no times.
    """
    if not log.is_file():
        return None
    return {entry["stage"]: float(entry["seconds"]) for entry in _read(log) if "seconds" in entry} or None


def _read(log: Path) -> list[dict[str, Any]]:
    """Lines of a log; those that were cut off or damaged are left out.

    Version 0.1.0 had other names of stages, and when it resumed a run it logged the steps after the checkpoint again
    and started `seconds` anew: the later lines replace the earlier ones, and `seconds` becomes cumulative.
    """
    kept: list[dict[str, Any]] = []
    last: dict[str, tuple[int, float]] = {}
    offsets: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _entry(line)
        if entry is None:
            continue
        stage = entry["stage"]
        if "seconds" in entry:
            step, seconds = entry["step"], float(entry["seconds"])
            last_step, last_seconds = last.get(stage, (-1, 0.0))
            if step <= last_step or seconds < last_seconds:
                kept = [other for other in kept if other["stage"] != stage or other["step"] < step]
                before = [other["seconds"] for other in kept if other["stage"] == stage and "seconds" in other]
                offsets[stage] = before[-1] if before else 0.0
            last[stage] = (step, seconds)
            entry["seconds"] = offsets.get(stage, 0.0) + seconds
        kept.append(entry)
    return kept


def _entry(line: str) -> dict[str, Any] | None:
    """A line of a log with the present name of its stage; None for a damaged one."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("stage"), str):
        return None
    entry["stage"] = TrainConfig._renamed.get(entry["stage"], entry["stage"])
    numbers = _numbers({name: value for name, value in entry.items() if name != "stage"})
    numbers.append(entry.get("seconds", 0.0))
    fits = all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in numbers)
    return entry if fits and entry["stage"] in STAGES and type(entry.get("step")) is int else None


def _numbers(values: dict[str, Any]) -> list[Any]:
    groups = [value for value in values.values() if isinstance(value, dict)]
    return [v for v in values.values() if not isinstance(v, dict)] + [v for group in groups for v in group.values()]
