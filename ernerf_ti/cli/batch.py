"""Make many portraits from a table of speakers: preprocess, train, synthesize and evaluate, for each row.

    ernerf-ti batch speakers.csv portraits
    ernerf-ti batch speakers.csv portraits --workers 2
    ernerf-ti batch speakers.csv /shared/portraits --engine ray --address auto --gpus-per-row 0.5

The table is a CSV file with a header. Columns: name and video (a video, or a capture that is made already); and, if
wanted, sounds (to speak, several separated by semicolons), preprocess, train, synthesize and evaluate (more options of
that command), checks (yes or no: whether to evaluate). Relative paths are relative to the table.

The same command continues: what is done is not done again. A row that fails stops no other; the exit status is then 1.
OUT/index.html shows all rows, OUT/NAME/logs what their commands printed. See docs/many_speakers.md.
"""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ernerf_ti.batch.row import OnRow, OnStage, Work
from ernerf_ti.batch.sources import PAGE, is_url, open_output
from ernerf_ti.batch.speakers import Speaker, read_speakers
from ernerf_ti.cli.options import Command, Positional
from ernerf_ti.cli.paths import output_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.process.device import check_device_name
from ernerf_ti.process.interruption import StopRequest

_PREFIX = (sys.executable, "-m", "ernerf_ti")


@dataclass(frozen=True)
class BatchOptions:
    """Options of `ernerf-ti batch`."""

    speakers: Positional[Path]
    """Table of the speakers, a CSV file."""
    output: Annotated[Positional[str], tyro.conf.arg(metavar="OUT")]
    """Folder for the results, or a URL that fsspec can open."""
    engine: Literal["local", "ray"] = "local"
    """Where rows run: on this machine, or on a Ray cluster (extra ray)."""
    workers: int | None = None
    """With local: rows side by side; by default one per GPU, or else per core, as far as memory goes."""
    memory_gb_per_row: float = 6.0
    """GB of memory that a row needs."""
    address: str | None = None
    """With ray: address of a cluster, as head:6379, or auto for the one that this machine belongs to; by default
    one is started here, which ends with the batch."""
    cpus_per_row: float = 2.0
    """With ray: CPUs of a row."""
    gpus_per_row: float | None = None
    """With ray: GPUs of a row, or a part of one; by default 1 if the cluster has any."""
    retries: int = 3
    """With ray: how often a row is started again after its node or worker has died."""


def _batch(options: BatchOptions) -> int:
    _check(options)
    speakers = read_speakers(options.speakers, partial(_check_options, options.speakers.absolute().parent))
    if not is_url(options.output):
        output_folder(Path(options.output))
    try:
        output = open_output(options.output)
    except ImportError as error:
        raise ImportError(f"{options.output}: {error}") from None

    from tqdm import tqdm

    from ernerf_ti.batch.plan import n_stages
    from ernerf_ti.batch.summary import Summary

    target = options.output if output.is_remote else str(Path(options.output).absolute())
    work = Work(target, _PREFIX)
    summary = Summary(output, speakers)
    with StopRequest() as stop, tqdm(total=sum(map(n_stages, speakers)), unit="stage", disable=None) as bar:
        _run(options, speakers, work, stop, bar.update, summary.add)
    records = summary.write()
    failed = [record for record in records if record["status"] == "failed"]
    for record in failed:
        logs = [f"{target}/{record['name']}/{s['log']}" for s in record["stages"] if s["status"] == "failed"]
        print(f"{record['name']}: {record['message']} ({', '.join(logs) or 'no log'})", file=sys.stderr)
    done = sum(record["status"] == "done" for record in records)
    print(f"{done} of {len(records)} rows are done, {len(failed)} failed", file=sys.stderr)
    print(f"{target}/{PAGE}")
    if stop():
        print("interrupted; the same command continues", file=sys.stderr)
        return stop.exit_status
    return 1 if failed else 0


def _run(
    options: BatchOptions,
    speakers: Sequence[Speaker],
    work: Work,
    stop: StopRequest,
    on_stage: OnStage,
    on_row: OnRow,
) -> None:
    if options.engine == "ray":
        from ernerf_ti.batch.ray_engine import Request, run_ray

        request = Request(options.cpus_per_row, options.gpus_per_row, options.memory_gb_per_row, options.retries)
        run_ray(speakers, work, options.address, request, stop, on_stage, on_row)
        return
    from ernerf_ti.batch.local import Machine, run_local

    machine = Machine.this()
    workers = options.workers or machine.workers(len(speakers), options.memory_gb_per_row)
    run_local(speakers, work, machine.environments(workers), stop, on_stage, on_row)


def _check(options: BatchOptions) -> None:
    """Raises UsageError for numbers that make no sense, and options of the other engine."""
    for name, value, least in (
        ("workers", options.workers, 1),
        ("memory-gb-per-row", options.memory_gb_per_row, 0.01),
        ("cpus-per-row", options.cpus_per_row, 0.01),
        ("gpus-per-row", options.gpus_per_row, 0),
        ("retries", options.retries, 0),
    ):
        if value is not None and not least <= value <= 1e6:
            raise UsageError(f"{name}: expected {least} or more, got {value:g}")
    if options.engine == "local" and options.address is not None:
        raise UsageError("--address: belongs to --engine ray, got local; pass --engine ray, or leave it out")
    if options.engine == "ray" and options.workers is not None:
        raise UsageError("--workers: belongs to --engine local, got ray; pass --cpus-per-row instead")


def _check_options(folder: Path, command: str, options: list[str]) -> None:
    """Parse the options of a command as it will do itself, and look for the files that they name.

    Raises ValueError. Relative paths are relative to `folder`.
    """
    given = {
        "preprocess": ["VIDEO", "CAPTURE"],
        "train": ["CAPTURE", "RUN"],
        "synthesize": ["RUN", "--audio", "SOUND", "-o", "VIDEO.mp4"],
        "evaluate": ["RUN", "--capture", "CAPTURE", "-o", "EVALUATION"],
    }[command]
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
            parsed = import_module(f"ernerf_ti.cli.{command}").main.parse([*given, *options])
    except SystemExit:
        lines = (line.strip("\u2502\u2500\u256d\u256e\u2570\u256f ") for line in text.getvalue().splitlines())
        kept = [line for line in lines if line and "Parsing error" not in line and "--help" not in line]
        raise ValueError(f"{' '.join(options)}: {' '.join(kept)[:300] or 'not understood'}") from None
    check_device_name(parsed.device)
    names = [f.name for f in dataclasses.fields(parsed) if f.name != "speech_model"]  # which need not be a path
    for name in (*names, "pose_file", "background_file"):
        path = getattr(parsed, name, None)
        if isinstance(path, Path) and str(path) not in given and not (folder / path).exists():
            option = name.removesuffix("_file").replace("_", "-")
            raise ValueError(f"{option}: expected a path that exists, got {folder / path}; check the path")


main = Command(
    "batch",
    BatchOptions,
    _batch,
    __doc__,
    important=(
        *("speakers", "output", "engine", "workers", "memory_gb_per_row"),
        *("address", "cpus_per_row", "gpus_per_row", "retries"),
    ),
    interrupted="interrupted; the same command continues",
)
