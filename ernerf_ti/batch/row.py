"""One row of a batch: its stages one after the other, each in a process of its own, and a record of what was done."""

import contextlib
import importlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ernerf_ti
from ernerf_ti.batch.children import Child, describe_exit, last_line
from ernerf_ti.batch.findings import findings
from ernerf_ti.batch.plan import Stage, keys, plan
from ernerf_ti.batch.sources import LocalOutput, RemoteOutput, fetched, open_output
from ernerf_ti.batch.speakers import Speaker
from ernerf_ti.media.files import write_json

RECORD = "row.json"
_LOCK = ".row.lock"
_LOCK_SECONDS = 30.0  # that the process of a row which was started again elsewhere has to end
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None
Steps = Generator[str | None, None, dict]
"""Yields the name of each stage that is over, and None now and then; returns the record of the row."""
OnStage = Callable[[int], object]
"""Called with the number of stages that are over since the last call."""
OnRow = Callable[[dict], object]
"""Called with the record of each row that is over."""


@dataclass(frozen=True)
class Work:
    """What all rows of a batch have in common. It is sent to other machines."""

    output: str
    """Folder or URL of the results."""
    prefix: tuple[str, ...]
    """Program that takes the commands, as `python -m ernerf_ti`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the processes."""


def run_row(speaker: Speaker, work: Work, stop: Callable[[], bool] = lambda: False) -> Steps:
    """Do what is left to do for a row.

    Args:
        speaker: the row.
        work: of the batch.
        stop: once it returns true, the running command is asked to save and stop.

    A stage that was done with the same options and inputs is skipped, and so is what needs a stage that has failed.
    A record `row.json` in the row's folder always says what is done.

    Raises OSError if the row's folder can't be written, or is in use by another batch.
    """
    output = open_output(work.output)
    digests = keys(speaker)
    record = read_record(output, speaker.name)
    if _is_done(record, digests) and (output.is_remote or _outputs_exist(output, speaker)):
        yield from digests
        return record
    with output.row(speaker.name) as folder, _locked(folder) as locked:
        yield from locked
        runner = _Runner(speaker, work, output, folder, digests, stop)
        try:
            yield from runner.run()
        finally:
            runner.finish()
        return runner.record


def read_record(output: LocalOutput | RemoteOutput, name: str) -> dict:
    """What row.json of a row says; a record without stages if there is none, or a damaged one."""
    content = output.read(f"{name}/{RECORD}")
    try:
        record = json.loads(content or b"{}")
        return {"stages": [], **record} if isinstance(record, dict) else {"stages": []}
    except ValueError:
        return {"stages": []}


def failed_record(speaker: Speaker, message: str) -> dict:
    """The record of a row that could not be worked on."""
    return {"name": speaker.name, "status": "failed", "message": message, "stages": []}


class _Runner:
    def __init__(
        self,
        speaker: Speaker,
        work: Work,
        output: LocalOutput | RemoteOutput,
        folder: Path,
        digests: Mapping[str, str],
        stop: Callable[[], bool],
    ) -> None:
        self._speaker, self._work, self._output, self._folder = speaker, work, output, folder
        self._stop = stop
        before = {entry["stage"]: entry for entry in read_record(output, speaker.name)["stages"]}
        self._entries: dict[str, dict] = {}
        for name, digest in digests.items():
            entry = before.get(name, {})
            new = {"stage": name, "key": digest, "status": "waiting", "seconds": 0.0}
            self._entries[name] = entry if entry.get("key") == digest else new
        self._train_changed = "train" in before and before["train"].get("key") != digests["train"]
        self.record: dict[str, Any] = {
            "name": speaker.name,
            "status": "running",
            "message": "",
            "video": speaker.video,
            "stages": list(self._entries.values()),
        }

    def run(self) -> Iterator[str | None]:
        inputs = self._folder / "inputs"
        video = fetched(self._speaker.video, inputs)
        sounds = [fetched(sound, inputs) for sound in self._speaker.sounds]
        (self._folder / "logs").mkdir(exist_ok=True)
        stages = plan(self._speaker, self._folder, video, sounds)
        outputs = {stage.name: stage.output for stage in stages}
        if self._train_changed:
            _set_aside(outputs["train"])
        if self._shows_another_video(video):
            _set_aside(outputs["preprocess"])
        for stage in stages:
            entry = self._entries[stage.name]
            if self._stop():
                return
            if stage.after is not None and stage.after in self._entries:
                before = self._entries[stage.after]["status"]
                if before != "done":
                    entry.update(status="not run", message=f"{stage.after}: {before}")
                    yield stage.name
                    continue
            if entry["status"] != "done" or not stage.output.exists():
                yield from self._run_stage(stage, entry)
            yield stage.name

    def _shows_another_video(self, video: Path) -> bool:
        """Whether the row's capture was made of another video than the table has now."""
        if self._entries.get("preprocess", {}).get("status", "done") == "done":
            return False
        from ernerf_ti.data.capture_source import other_source

        return other_source(self._folder / "capture", video) is not None

    def _run_stage(self, stage: Stage, entry: dict) -> Iterator[None]:
        command = [*self._work.prefix, *stage.command]
        log = self._folder / "logs" / f"{stage.name}.txt"
        entry.update(status="running", command=list(stage.command), log=f"logs/{log.name}", message="")
        entry.pop("exit_status", None)
        self._write()
        begin, earlier = time.monotonic(), entry["seconds"]
        folder = Path(self._speaker.base)
        try:
            stage.output.parent.mkdir(parents=True, exist_ok=True)
            if not entry["seconds"]:
                log.unlink(missing_ok=True)  # that of other options
            child = Child(command, log, folder if folder.is_dir() else self._folder, self._environment())
            with child:
                yield from child.wait(self._stop)
            status = child.exit_status or 0
            if status == 0:
                entry.update(status="done", exit_status=0)
            elif self._stop():
                entry.update(status="interrupted", exit_status=status)
            else:
                message = last_line(log) or "no output"
                entry.update(status="failed", exit_status=status, message=f"{describe_exit(status)}: {message}")
        finally:
            if entry["status"] == "running":
                entry["status"] = "interrupted"
            entry["seconds"] = round(earlier + time.monotonic() - begin, 2)
            self._write()
        self._output.save(self._speaker.name)

    def finish(self) -> None:
        """Complete the record."""
        entries = self._entries.values()
        failed = [f"{entry['stage']}: {entry['message']}" for entry in entries if entry["status"] == "failed"]
        complete = all(entry["status"] == "done" for entry in entries)
        self.record["status"] = "failed" if failed else "done" if complete else "interrupted"
        self.record["message"] = "; ".join(failed)
        if self.record["status"] != "interrupted":
            self.record.update(findings(self._folder, self._speaker))
        self._write()

    def _write(self) -> None:
        self.record["seconds"] = round(sum(entry["seconds"] for entry in self._entries.values()), 2)
        write_json(self._folder / RECORD, self.record)

    def _environment(self) -> dict[str, str]:
        environment = {"TQDM_MININTERVAL": "30", **self._work.environment}  # a line of progress now and then in logs
        root = Path(ernerf_ti.__file__).resolve().parents[1]
        if root.name not in ("site-packages", "dist-packages"):  # not installed: the command runs in another folder
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        # A file in the folder of the table must not take the place of a module of that name.
        environment["PYTHONSAFEPATH"] = "1"
        return environment


def _is_done(record: Mapping[str, Any], digests: Mapping[str, str]) -> bool:
    done = {entry.get("stage"): entry.get("key") for entry in record["stages"] if entry.get("status") == "done"}
    return record.get("status") == "done" and done == dict(digests)


def _outputs_exist(output: LocalOutput | RemoteOutput, speaker: Speaker) -> bool:
    assert isinstance(output, LocalOutput)
    video, sounds = Path(speaker.video), [Path(sound) for sound in speaker.sounds]
    return all(stage.output.exists() for stage in plan(speaker, output.path / speaker.name, video, sounds))


def _set_aside(result: Path) -> None:
    """Keep the run of other options, or the capture of another video, under another name; their commands refuse to
    continue or replace it."""
    if result.exists():
        number = 1
        while (kept := result.with_name(f"{result.name}_before_{number}")).exists():
            number += 1
        result.rename(kept)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Iterator[None]]:
    """Hold the lock of a row; yields steps in which another process that holds it is waited for."""
    with open(folder / _LOCK, "ab") as file:
        yield _lock(folder, file)


def _lock(folder: Path, file: Any) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_SECONDS
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError(f"{folder}: another batch works on this row; wait for it, or stop it") from None
            yield
        except OSError:  # a file system without locks
            return
