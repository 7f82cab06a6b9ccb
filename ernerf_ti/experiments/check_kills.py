"""Kill commands at random moments, run each again, and compare the result with that of an uninterrupted run."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import torch
from tqdm import tqdm

from ernerf_ti.data.synthetic.portrait_writers import write_portrait_video
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.run.folder import RunFolder

SIZE = 64
N_FRAMES = 30
_POLL = 0.005  # s
_TRAINING = (
    *("--preset", "small", "--log-every", "5", "--save-every", "10", "--validate-every", "20"),
    *("--portrait.head-grid.resolution", "32", "--finetune.patch-size", "8", "--validation-frames", "1"),
    *(f"--{stage}.{option}" for stage in ("head", "finetune", "torso") for option in ("n-rays=128", "iterations=40")),
)
Digest = Callable[[Path], dict[str, str]]


@dataclass(frozen=True)
class Work:
    """A command that is killed."""

    name: str
    arguments: Callable[[Path], list[str]]
    """Of the command, for the folder that it writes to."""
    digest: Digest
    """Of the result in that folder: what must be equal, by name."""


@dataclass
class Outcome:
    """What killing a command has shown."""

    name: str
    seconds: float
    """Of an uninterrupted run."""
    started: float
    """Seconds of it before the first file appeared; it is killed after that."""
    attempts: int = 0
    kills: int = 0
    """Attempts in which the command had not ended by itself before."""
    equal: int = 0
    """Results equal to that of the uninterrupted run."""
    unlike: str = ""
    """The first difference."""
    leftovers: int = 0
    """Files in the results that the uninterrupted run does not have."""
    temporary: int = 0
    """Files left in the system's folder for temporary files."""

    @property
    def passed(self) -> bool:
        """Whether nothing differs and nothing is left over."""
        return self.equal == self.attempts and not self.leftovers and not self.temporary


def run(folder: Path, kills: int, seed: int = 0) -> Iterator[Outcome]:
    """Kill preprocessing, training and synthesis of a tiny portrait.

    Args:
        folder: for everything that is written.
        kills: of each command.
        seed: of the moments.

    Yields the outcome of each command. Raises RuntimeError if one fails by itself.
    """
    video = folder / "speaker.mp4"
    write_portrait_video(SyntheticPortrait(N_FRAMES, SIZE, seed=1), video)
    capture, trained = folder / "preprocess" / "whole", folder / "train" / "whole"
    works = [
        Work("preprocess", lambda output: [str(video), str(output), "--size", str(SIZE)], _files),
        Work("train", lambda output: [str(capture), str(output), *_TRAINING], _run_state),
        Work(
            "synthesize",
            # A signature has its time in it, and x264's macroblock trees, which the fastest preset leaves out, are not
            # the same each time for pictures this small (they are from 128 pixels on).
            lambda output: [
                *(str(trained), "--audio", str(video), "--output", str(output / "speech.mp4")),
                *("--provenance", "off", "--preset", "ultrafast"),
            ],
            _files,
        ),
    ]
    moments = random.Random(seed)
    for work in works:
        yield _kill(folder / work.name, work, kills, moments)


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as lines of Markdown."""
    lines = ["| command | s | killed | equal results | files left over |", "|---|---|---|---|---|"]
    lines += [
        f"| {o.name} | {o.seconds:.1f} | {o.kills} | {o.equal} of {o.attempts} | {o.leftovers + o.temporary} |"
        for o in outcomes
    ]
    return "\n".join(lines)


def _kill(folder: Path, work: Work, kills: int, moments: random.Random) -> Outcome:
    folder.mkdir(parents=True)
    whole, temporary = folder / "whole", folder / "temporary"
    temporary.mkdir()
    begin = monotonic()
    process = _start(work, whole, temporary)
    while process.poll() is None and not _has_files(whole):
        sleep(_POLL)
    started = monotonic() - begin
    _finish(process, work, folder)
    outcome = Outcome(work.name, monotonic() - begin, started)
    expected = work.digest(whole)
    latest = outcome.seconds
    bar = tqdm(desc=work.name, total=kills, unit="kill")
    while outcome.kills < kills:
        output = folder / f"killed_{outcome.attempts}"
        begin = monotonic()
        process = _start(work, output, temporary)
        try:
            process.wait(moments.uniform(started, latest))
            latest = min(latest, monotonic() - begin)  # it has ended by itself: the machine has become faster
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            outcome.kills += 1
            bar.update()
        process.wait()
        _finish(_start(work, output, temporary), work, folder)
        found = work.digest(output)
        outcome.leftovers += len(_names(output) - _names(whole))
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        outcome.attempts += 1
        outcome.equal += not different
        outcome.unlike = outcome.unlike or ", ".join(different[:3])
    bar.close()
    outcome.temporary = sum(path.is_file() for path in temporary.rglob("*"))
    return outcome


def _start(work: Work, output: Path, temporary: Path) -> subprocess.Popen:
    log = (output.parent / f"{output.name}.log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "ernerf_ti", work.name, *work.arguments(output), "--device", "cpu"],
            stdout=log,
            stderr=log,
            # One thread computes the same bits each time.
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
        )


def _finish(process: subprocess.Popen, work: Work, folder: Path) -> None:
    if process.wait() != 0:
        raise RuntimeError(f"{work.name}: expected exit status 0, got {process.returncode}; see the logs in {folder}")


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _names(folder: Path) -> set[str]:
    """Names of files; those of TensorBoard have the time and the process in them."""
    return {
        "events" if path.name.startswith("events.") else str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
    }


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _run_state(folder: Path) -> dict[str, str]:
    """Everything in a run but times and the files of TensorBoard."""
    run = RunFolder(folder)
    of_files = _files(folder)
    digests = {name: value for name, value in of_files.items() if "tensorboard" not in name}
    content = torch.load(run.checkpoint, weights_only=True)
    content.pop("stage_seconds")
    digests[run.checkpoint.name] = hashlib.sha256(repr(list(_leaves("", content))).encode()).hexdigest()
    entries = [json.loads(line) for line in run.log.read_text().splitlines()]
    for entry in entries:
        entry.pop("seconds", None)
        entry["statistics"].pop("rays_per_second", None)
    digests[run.log.name] = json.dumps(entries)
    return digests


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}/{key}", inner)
    elif isinstance(value, torch.Tensor):
        data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        yield name, f"{list(value.shape)} {value.dtype} {hashlib.sha256(data).hexdigest()}"
    else:
        yield name, repr(value)
