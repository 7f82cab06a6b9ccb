"""Check and measure a CUDA device within minutes: ops, training, frames, kernel tests; one table.

The parts run in an order in which each has what it needs of those before: the ops against their twins, a synthetic
capture made on the device, a short training in two precisions, training steps and frames with each setting off and on
in turns, then the kernel tests with the time that is left. A part that fails leaves a row that says so.
"""

import gc
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from tqdm import tqdm

from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.experiments import bench_kernels
from ernerf_ti.experiments.check_frames import frames
from ernerf_ti.experiments.check_launcher import launcher
from ernerf_ti.experiments.check_setup import Check, Sizes
from ernerf_ti.experiments.check_table import Budget, Row, as_table, isolated, with_unit
from ernerf_ti.experiments.check_training import graphs, quality, steps
from ernerf_ti.portrait.render.static_shapes import static_shapes_on_cpu
from taichi_kernels.cuda_launcher import SWITCH

ROOT = Path(__file__).resolve().parents[2]
_SHORTEST_TESTS = 20.0
"""Seconds below which the kernel tests are not started."""
_RESERVE = 5.0
"""Seconds kept for the table."""


def run(
    device: torch.device, sizes: Sizes, seconds: float, command: str, save: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], str]:
    """Run all parts.

    Args:
        device: the device.
        sizes: sizes of the problems.
        seconds: time that all parts together may take; what no longer fits is skipped.
        command: command line, for the report.
        save: called with the report after each part, so that nothing is lost when a later one ends the process.

    Returns:
        The report as JSON values, whose "failed" counts rows that failed, and the table.
    """
    # A rehearsal takes the code of CUDA.
    with _kernels_launched_by_taichi(), static_shapes_on_cpu() if device.type == "cpu" else nullcontext():
        return _run(device, sizes, seconds, command, save)


@contextmanager
def _kernels_launched_by_taichi() -> Iterator[None]:
    """In this process, unless Taichi has started before. In that of the part "launcher" the driver launches them."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "taichi"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def _run(
    device: torch.device, sizes: Sizes, seconds: float, command: str, save: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], str]:
    report: dict[str, Any] = machine(device) | {"command": command, "sizes": vars(sizes), "rows": []}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ernerf_ti_check_") as folder:
        check = Check(device, sizes, Budget(seconds), Path(folder))
        for name, part in (bar := tqdm(PARTS.items(), unit="part")):
            bar.set_description(name)
            begin = perf_counter()
            rows += isolated(name, "", partial(part, check))
            rows += [Row(name, "CUDA graphs", note=f"failed: {n}", failed=True) for n in dict.fromkeys(check.notes)]
            check.notes.clear()
            rows.append(Row(name, "time of this part", perf_counter() - begin, unit="s"))
            report |= {"seconds": check.budget.spent(), "failed": sum(row.failed for row in rows)}
            report["rows"] = [row.as_json() for row in rows]
            save(report)
            gc.collect()  # trainers and their graphs
            if device.type == "cuda":
                with suppress(RuntimeError):  # after an error of CUDA nothing works any more
                    torch.cuda.empty_cache()
    return report, f"{_headline(report, rows)}\n\n{as_table(rows)}"


def machine(device: torch.device) -> dict[str, Any]:
    """The device and the software."""
    facts: dict[str, Any] = bench_kernels.describe_machine(device) | {"platform": platform.platform(terse=True)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "memory_gb": properties.total_memory / 2**30,
        }
    return facts


def _driver() -> str:
    """Version of the NVIDIA driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _headline(report: Mapping[str, Any], rows: list[Row]) -> str:
    """The machine, the command line, and the rows that have targets."""
    facts = [report["name"]]
    facts += [f"driver {report['driver']}", f"CUDA {report['cuda']}"] if "driver" in report else []
    facts += [f"{report['threads']} host threads", f"Python {report['python']}", f"torch {report['torch']}"]
    facts += [f"Taichi {report['taichi']}", f"commit {report['commit']}", f"{report['seconds']:.0f} s"]
    lines = [", ".join(facts), report["command"], ""]
    for row in rows:
        if row.target is not None:
            lines.append(f"- {row.part}, {row.what}: {with_unit(row.value, row.unit)}, {row.judgment}")
    return "\n".join(lines)


def ops(check: Check) -> Iterator[Row]:
    """Each op beside its torch twin, after a comparison of values and gradients."""
    device, sizes = check.device, check.sizes
    torch.manual_seed(0)
    bandwidth = bench_kernels.copy_rate(device)
    overhead = bench_kernels.launch_overhead(device)
    yield Row("ops", "copy through memory", bandwidth / 1e9, unit="GB/s")
    yield Row("ops", "launch of a kernel", overhead["fast"], unit="us", note=f"{overhead['public']:.3g} us by Taichi")
    for case in bench_kernels.cases(device, sizes.op_scale):
        if case.name.startswith(sizes.ops or ""):
            yield from isolated("ops", case.name, partial(_op, check, case, bandwidth))


def _op(check: Check, case: bench_kernels.Case, bandwidth: float) -> Iterator[Row]:
    check.budget.need(2)
    row = bench_kernels.measure(case, check.sizes.op_repeats, bandwidth)
    note = f"off is the twin; {row.size}; differs by {row.difference:.0e}; {row.gigabytes_per_second:.3g} GB/s, "
    note += f"{row.limit / row.forward:.0%} of the limit"
    yield Row("ops", f"{row.name}, forward", off=row.twin_forward, on=row.forward, unit="ms", note=note)
    if row.both is not None and row.both_limit is not None:
        note = f"{row.both_limit / row.both:.0%} of the limit"
        yield Row("ops", f"{row.name}, with gradients", off=row.twin_both, on=row.both, unit="ms", note=note)


def capture(check: Check) -> Iterator[Row]:
    """A synthetic capture made on the device, for the parts that follow."""
    check.budget.need(10)
    sizes, folder = check.sizes, check.folder / "capture"
    begin = perf_counter()
    person = SyntheticPortrait(sizes.n_frames, sizes.image, seed=1, device=check.device)
    write_portrait_capture(person, folder)
    check.capture = open_capture(folder)
    note = f"{sizes.n_frames} frames at {sizes.image}x{sizes.image}, with sound, features and image files"
    yield Row("capture", "one frame", 1000 * (perf_counter() - begin) / sizes.n_frames, unit="ms", note=note)


def kernel_tests(check: Check) -> Iterator[Row]:
    """The kernels' tests in a process of its own, if this is a checkout with its test tools."""
    tests = [ROOT / path for path in check.sizes.tests]
    if not all(path.exists() for path in tests):
        yield Row("tests", "kernel tests", note="skipped: not a checkout, its tests are not here")
        return
    missing = [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]
    if missing:
        yield Row("tests", "kernel tests", note=f"skipped: not installed: {', '.join(missing)}")
        return
    check.budget.need(_SHORTEST_TESTS + _RESERVE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--device", check.device.type]
    command += ["-p", "no:benchmark"]  # a plugin that some environments have, whose warnings are errors here
    if check.device.type == "cuda" and importlib.util.find_spec("xdist") is not None:
        free, _ = torch.cuda.mem_get_info()
        # Each worker has Taichi and a CUDA context of its own, and compiles on a core of its own.
        command += ["-n", str(max(1, min(8, (os.cpu_count() or 1) // 2, free // 2**31)))]
    limit = check.budget.left() - _RESERVE
    try:
        done = subprocess.run(
            [*command, *map(str, tests)],
            cwd=ROOT,
            env=os.environ | {SWITCH: "driver"},
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired as stopped:
        passed, failed = _progress(stopped.stdout or b"")
        note = f"stopped after the {limit:.0f} s that were left: {passed} passed and {failed} failed so far"
        yield Row("tests", "kernel tests", note=note, failed=failed > 0)
        return
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    broken = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    note = "; ".join([lines[-1].strip("= "), *broken])[:1000]
    yield Row("tests", "kernel tests", note=note, failed=done.returncode != 0)


def _progress(output: bytes) -> tuple[int, int]:
    """Tests that passed and failed, by the lines of dots and letters that pytest prints while it runs."""
    lines = re.findall(r"^([.FEsxX]+)(?: +\[ *\d+%\])?$", output.decode(errors="replace"), re.MULTILINE)
    outcomes = "".join(lines)
    return outcomes.count("."), outcomes.count("F") + outcomes.count("E")


PARTS: Mapping[str, Callable[[Check], Iterator[Row]]] = {
    "ops": ops,
    "capture": capture,
    "quality": quality,
    "steps": steps,
    "graphs": graphs,
    "frames": frames,
    "launcher": launcher,
    "tests": kernel_tests,
}
"""Parts of the check by name, in their order."""
