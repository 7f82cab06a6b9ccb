"""Benchmarks: everything on a GPU, its memory, kernels, rendering, viewer, live portraits, threads; kills, long use."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ernerf_ti.cli.options import Command, Device, OptionalOutput, Output, Positional, check_range
from ernerf_ti.cli.paths import capture_folder, make_parent, output_file, run_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.media.files import write_json
from ernerf_ti.process.device import resolve_device
from ernerf_ti.process.precision import Precision, resolve_precision
from ernerf_ti.viewer.state import LIMITS

_LONGEST = 604_800  # s, a week
_LARGEST = 1 << 13  # pixels a side
_MOST = 1 << 22
_INTERRUPTED = "interrupted; no figures were written"
_FINISHED_PARTS = "interrupted; the figures of the parts before are in the output"


@dataclass(frozen=True)
class CudaOptions:
    """Options of `ernerf-ti bench cuda`."""

    output: Output = Path("check_cuda.json")
    """JSON file for the figures."""
    minutes: float = 8.0
    """Time for all parts; what no longer fits is skipped."""
    quick: bool = False
    """Run every part in tiny sizes, whose figures mean nothing, to see whether they run."""
    device: Device = "auto"
    """Device to check; the CPU with --quick only."""


def _cuda(options: CudaOptions) -> int:
    check_range("minutes", options.minutes, 0.01, _LONGEST / 60)
    if options.device == "cpu" and not options.quick:
        raise UsageError("--device: expected cuda, got cpu; pass --quick with it to rehearse the check without a GPU")
    output_file(options.output)
    # Read when cuBLAS starts; the option --deterministic of training, which is measured here, needs it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = resolve_device("cuda" if options.device == "auto" and not options.quick else options.device)

    from ernerf_ti.experiments.check_cuda import run
    from ernerf_ti.experiments.check_setup import REHEARSAL, Sizes

    output = make_parent(options.output)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    sizes = REHEARSAL if options.quick else Sizes()
    report, table = run(device, sizes, 60 * options.minutes, command, lambda report: write_json(output, report))
    print(table)
    print(output)
    if report["failed"]:
        print(f"{report['failed']} of {len(report['rows'])} rows failed; see the table", file=sys.stderr)
    return 1 if report["failed"] else 0


@dataclass(frozen=True)
class MemoryOptions:
    """Options of `ernerf-ti bench memory`."""

    image: int = 512
    """Width and height of the frames in pixels."""
    rays: int = 65_536
    """Rays per training step."""
    precision: Precision = "float32"
    """Format of the networks' values."""
    output: OptionalOutput = None
    """JSON file for the figures."""


def _memory(options: MemoryOptions) -> None:
    check_range("image", options.image, 16, _LARGEST)
    check_range("rays", options.rays, 1, _MOST)
    _check_output(options.output)
    resolve_precision(options.precision, "cpu")

    from ernerf_ti.experiments.training_memory import released, run

    figures = {}
    for name, gigabytes in run(released(options.rays), options.image, options.precision):
        figures[name] = gigabytes
        print(f"{name:40} {gigabytes:8.3f}", flush=True)
    _write(options.output, figures)


@dataclass(frozen=True)
class KernelsOptions:
    """Options of `ernerf-ti bench kernels`."""

    ops: tuple[str, ...] = ()
    """Ops to time, by the beginnings of their names; by default all. An unknown name lists them."""
    scale: float = 1.0
    """Fraction of the full problem sizes, for a quick trial."""
    repeats: int = 9
    """Timings of which the best counts."""
    output: OptionalOutput = None
    """JSON file for the figures."""
    device: Device = "auto"
    """Device to time; auto is CUDA if torch can use it, else the CPU."""


def _kernels(options: KernelsOptions) -> None:
    check_range("repeats", options.repeats, 1, _MOST)
    if not 0 < options.scale <= 16:
        raise UsageError(f"--scale: expected more than 0, up to 16, got {options.scale:g}; pass e.g. 0.1")
    _check_output(options.output)
    device = resolve_device(options.device)

    from ernerf_ti.experiments.bench_kernels import run

    report, table = run(device, options.ops, options.scale, options.repeats)
    print(table)
    _write(options.output, report)


@dataclass(frozen=True)
class RenderOptions:
    """Options of `ernerf-ti bench render`."""

    run: Positional[Path]
    """Run folder of `ernerf-ti train`, or a checkpoint file."""
    capture: Path | None = None
    """Capture of the run, to time training steps too."""
    sizes: tuple[int, ...] = (256, 512)
    """Widths and heights in pixels."""
    frames: int = 10
    """Frames, or training steps, of which each figure is the median."""
    output: OptionalOutput = None
    """JSON file for the figures."""
    device: Device = "auto"
    """Device to time; auto is CUDA if torch can use it, else the CPU."""
    precision: Precision = "auto"
    """Format of the networks' values; auto is float32 on the CPU, and on CUDA bf16, or fp16 on a GPU without bf16."""


def _render(options: RenderOptions) -> None:
    check_range("frames", options.frames, 1, _MOST)
    for size in options.sizes:
        check_range("sizes", size, 1, _LARGEST)
    path = run_folder(options.run)
    capture = None if options.capture is None else capture_folder(options.capture)
    _check_output(options.output)
    device = resolve_device(options.device)
    resolve_precision(options.precision, device)

    from ernerf_ti.experiments.bench_render import run

    figures = run(path, capture, options.sizes, options.frames, str(device), options.precision)
    for title, rows in figures.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:40} {value if isinstance(value, str) else format(value, '9.2f')}")
    _write(options.output, figures)


@dataclass(frozen=True)
class ViewerOptions:
    """Options of `ernerf-ti bench viewer`."""

    run: Positional[Path]
    """Run folder of `ernerf-ti train`, or a checkpoint file."""
    capture: Path | None = None
    """Capture of the run, for its sound."""
    seconds: float = 60.0
    """Seconds to play."""
    target_rate: float = 12.0
    """Frames per second that the resolution adapts to."""
    output: OptionalOutput = None
    """JSON file for the figures."""
    device: Device = "auto"
    """Device to render on; auto is CUDA if torch can use it, else the CPU."""


def _viewer(options: ViewerOptions) -> None:
    check_range("seconds", options.seconds, 1, _LONGEST)
    check_range("target-rate", options.target_rate, *LIMITS["target_rate"])
    path = run_folder(options.run)
    capture = None if options.capture is None else capture_folder(options.capture)
    _check_output(options.output)
    device = resolve_device(options.device)

    from ernerf_ti.experiments.bench_viewer import run

    figures = run(path, capture, options.seconds, options.target_rate, str(device))
    for name, value in figures.items():
        print(f"{name:44} {value if isinstance(value, str) else format(value, '10.2f')}")
    _write(options.output, figures)


@dataclass(frozen=True)
class LiveOptions:
    """Options of `ernerf-ti bench live`."""

    run: Positional[Path]
    """Run folder of `ernerf-ti train`, or a checkpoint file."""
    frames: int = 20
    """Frames of which each figure of a part is the median."""
    seconds: float = 20.0
    """Seconds of a session in real time, for the latency; 0 for none."""
    simulated_seconds: float = 3600.0
    """Seconds of a session on a simulated clock, without rendering, for drift and memory."""
    output: OptionalOutput = None
    """JSON file for the figures."""
    device: Device = "auto"
    """Device to render on; auto is CUDA if torch can use it, else the CPU."""


def _live(options: LiveOptions) -> None:
    check_range("frames", options.frames, 1, _MOST)
    check_range("seconds", options.seconds, 0, _LONGEST)
    check_range("simulated-seconds", options.simulated_seconds, 0, _LONGEST)
    path = run_folder(options.run)
    _check_output(options.output)
    device = resolve_device(options.device)

    from ernerf_ti.experiments.bench_live import run

    figures = run(path, options.frames, options.seconds, options.simulated_seconds, str(device))
    for title, rows in figures.items():
        print(title)
        for name, text in rows.items():
            print(f"  {name:44} {text if isinstance(text, str) else format(text, '10.2f')}")
    _write(options.output, figures)


@dataclass(frozen=True)
class ThreadsOptions:
    """Options of `ernerf-ti bench threads`."""

    capture: Positional[Path]
    """Capture folder to train on."""
    seconds: float = 45.0
    """Length of each turn in seconds; there are six."""
    busy: bool = False
    """Keep every core busy with another process meanwhile."""
    output: OptionalOutput = None
    """JSON file for the figures."""


def _threads(options: ThreadsOptions) -> None:
    check_range("seconds", options.seconds, 0.1, _LONGEST)
    capture = capture_folder(options.capture)
    _check_output(options.output)

    from ernerf_ti.experiments.bench_threads import run

    figures = run(capture, options.seconds, options.busy)
    for mode, steps in figures.items():
        print(f"{mode:8} {' and '.join(map(str, steps))} steps in {options.seconds:g} s")
    _write(options.output, figures)


@dataclass(frozen=True)
class KillsOptions:
    """Options of `ernerf-ti bench kills`."""

    output: Output = Path("check_kills.json")
    """JSON file for the figures."""
    kills: int = 50
    """Random moments at which each command is killed."""
    seed: int = 0
    """Seed of the moments."""


def _kills(options: KillsOptions) -> int:
    check_range("kills", options.kills, 1, _MOST)
    _check_output(options.output)

    from ernerf_ti.experiments.check_kills import run, table

    with TemporaryDirectory(prefix="ernerf_ti_kills_") as folder:
        outcomes = list(run(Path(folder), options.kills, options.seed))
    print(table(outcomes))
    _write(options.output, {outcome.name: asdict(outcome) for outcome in outcomes})
    return 0 if all(outcome.passed for outcome in outcomes) else 1


@dataclass(frozen=True)
class SoakOptions:
    """Options of `ernerf-ti bench soak`."""

    output: Output = Path("check_soak.json")
    """JSON file for the figures."""
    files: int = 1000
    """Files to open and close."""
    seconds: float = 3600.0
    """Seconds of speech to synthesize."""


def _soak(options: SoakOptions) -> None:
    check_range("files", options.files, 1, _MOST)
    check_range("seconds", options.seconds, 1, _LONGEST)
    _check_output(options.output)
    if not Path("/proc/self/statm").is_file():
        raise UsageError("bench soak: expected a system with /proc, which shows what a process holds; run it on Linux")

    from ernerf_ti.experiments.check_soak import opened_and_closed, prepare, synthesized, table

    with TemporaryDirectory(prefix="ernerf_ti_soak_") as name:
        folder = Path(name)
        prepare(folder)
        usages = {f"{options.files} files opened and closed": list(opened_and_closed(folder, options.files))}
        usages[f"{options.seconds:g} s of speech"] = synthesized(folder, options.seconds)
    for what, of_part in usages.items():
        print(table(what, of_part))
    _write(options.output, {what: [asdict(usage) for usage in of_part] for what, of_part in usages.items()})


def _check_output(output: Path | None) -> None:
    if output is not None:
        output_file(output)


def _write(output: Path | None, figures: Mapping[str, Any]) -> None:
    if output is not None:
        write_json(make_parent(output), figures)
        print(output)


_CUDA = """Check a GPU and measure everything that runs on it, within eight minutes, on data made there.

    ernerf-ti bench cuda
    ernerf-ti bench cuda --device cpu --quick

Kernels are compared with their twins and tested, a portrait is trained in two precisions, and training steps and frames
are timed with each setting off and on in turns. A part that fails leaves a row that says so, and the exit status is 1.
The second example rehearses all of it without a GPU. docs/benchmarks.md explains the table.
"""
_MEMORY = """Count the GPU memory that training takes, without a GPU.

    ernerf-ti bench memory
    ernerf-ti bench memory --precision bf16

Steps of the shape of the preset `released` are taken on the CPU, within minutes. Figures are GB (10^9 bytes) of torch's
tensors, without the frames that stay in memory and without what CUDA and Taichi take for themselves.
"""
_KERNELS = """Time each kernel and its plain torch twin side by side, after checking that they agree.

    ernerf-ti bench kernels
    ernerf-ti bench kernels --device cuda -o bench.json

The best of several timings counts. "limit" is the time that this machine needs to move the inputs and outputs of an op
through memory once, or to gather its table entries at random, whichever is longer; "of limit" is its ratio to our time.
"""
_RENDER = """Time rendering and training steps of a portrait, part by part.

    ernerf-ti bench render runs/speaker
    ernerf-ti bench render runs/speaker --capture captures/speaker -o bench_render.json

Figures are medians, in milliseconds.
"""
_VIEWER = """Play a portrait in the viewer's window and measure frame rate, sound offset and memory.

    ernerf-ti bench viewer runs/speaker --capture captures/speaker --seconds 60
    xvfb-run -a -s "-screen 0 1280x800x24" ernerf-ti bench viewer runs/speaker

The second example needs no screen. The offset is positive when the sound is ahead of the picture.
"""
_LIVE = """Time the parts of a live portrait and its frames, and measure its latency, drift and memory.

    ernerf-ti bench live runs/speaker
    ernerf-ti bench live runs/speaker --seconds 60 -o bench_live.json

Milliseconds are CPU time of the process, per frame of 40 ms.
"""
_THREADS = """Count training steps on the CPU with one thread, with all, and with the number chosen at run time.

    ernerf-ti bench threads captures/speaker
    ernerf-ti bench threads captures/speaker --busy

The modes take two turns each, in processes of their own. OMP_NUM_THREADS must not be set.
"""
_KILLS = """Kill preprocessing, training and synthesis at random moments, run each again, and compare the results.

    ernerf-ti bench kills
    ernerf-ti bench kills --kills 5

Results are compared with those of uninterrupted runs, bit by bit, and files that are left over are counted. The exit
status is 1 if a result differs or a file is left over. Needs what `ernerf-ti preprocess` needs.
"""
_SOAK = """Open files a thousand times and synthesize an hour of speech: do memory, threads or open files grow?

    ernerf-ti bench soak
    ernerf-ti bench soak --files 100 --seconds 60
"""
BENCHMARKS: Mapping[str, Command] = {
    "cuda": Command("bench cuda", CudaOptions, _cuda, _CUDA, interrupted=_FINISHED_PARTS),
    "memory": Command("bench memory", MemoryOptions, _memory, _MEMORY, interrupted=_INTERRUPTED),
    "kernels": Command(
        "bench kernels",
        KernelsOptions,
        _kernels,
        _KERNELS,
        renamed={"only": "ops", "json": "output"},
        interrupted=_INTERRUPTED,
    ),
    "render": Command("bench render", RenderOptions, _render, _RENDER, interrupted=_INTERRUPTED),
    "viewer": Command("bench viewer", ViewerOptions, _viewer, _VIEWER, interrupted=_INTERRUPTED),
    "live": Command("bench live", LiveOptions, _live, _LIVE, interrupted=_INTERRUPTED),
    "kills": Command("bench kills", KillsOptions, _kills, _KILLS, interrupted=_INTERRUPTED),
    "soak": Command("bench soak", SoakOptions, _soak, _SOAK, interrupted=_INTERRUPTED),
    "threads": Command("bench threads", ThreadsOptions, _threads, _THREADS, interrupted=_INTERRUPTED),
}
"""Benchmarks by name."""


def main(arguments: list[str] | None = None) -> int:
    """Run `ernerf-ti bench NAME`; arguments and exit status are those of :class:`Command`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "--help-all"):
        print("usage: ernerf-ti bench NAME ...\n")
        for name, command in BENCHMARKS.items():
            print(f"  {name:8} {command.description.splitlines()[0]}")
        return 0
    if arguments[0] not in BENCHMARKS:
        print(f"ernerf-ti bench: expected one of {', '.join(BENCHMARKS)}, got {arguments[0]!r}", file=sys.stderr)
        return 2
    return BENCHMARKS[arguments[0]](arguments[1:])
