"""Launcher part of the CUDA check: kernels launched by the driver, and whole steps and frames as CUDA graphs.

The part runs in a process of its own. What goes wrong in a launch by the driver ends a process, or leaves one in which
CUDA fails, and the launcher is chosen when the kernels start.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ernerf_ti.data.capture import open_capture
from ernerf_ti.experiments import bench_kernels
from ernerf_ti.experiments.check_frames import compare_settings, frame_rates
from ernerf_ti.experiments.check_setup import Check, Sizes, Switch
from ernerf_ti.experiments.check_table import Budget, OutOfTimeError, Row, isolated
from ernerf_ti.experiments.check_training import compare_steps, time_stage
from ernerf_ti.portrait.render.static_shapes import static_shapes_on_cpu
from taichi_kernels import runtime
from taichi_kernels.cuda_launcher import SWITCH

LAUNCH_TARGET = 15.0
"""Microseconds of a launch."""
STEP_TARGET = 5.0
"""ms of a head step with 65,536 rays, data included."""
FRAME_TARGETS = (2.6, 300.0, 150.0)
"""ms of a head frame; frames per second on the host, and into an .mp4: all of 512x512."""
START_TARGET = 3.0
"""Seconds from the command to the first training step."""
_PART = "launcher"
_SHORTEST = 60.0
_KEPT = 40.0
"""Seconds that are left for the parts after this one."""
_TIMES_NOISE = 10
_SAME = 1e-6


def launcher(check: Check) -> Iterator[Row]:
    """The rows of the process that launches kernels by the driver."""
    check.budget.need(_SHORTEST + _KEPT if check.device.type == "cuda" else 10)
    if check.run is None:
        raise RuntimeError("no portrait: the parts that train one have failed")
    seconds = max(10.0, check.budget.left() - _KEPT)
    path = check.folder / "launcher.json"
    request = {"device": str(check.device), "sizes": asdict(check.sizes), "seconds": seconds, "run": str(check.run)}
    command = [sys.executable, "-m", "ernerf_ti.experiments.check_launcher", json.dumps(request), str(path)]
    problem = ""
    try:
        done = subprocess.run(
            command, env=os.environ | {SWITCH: "driver"}, capture_output=True, text=True, timeout=seconds + 30
        )
        if done.returncode:
            lines = (done.stderr or "").strip().splitlines() or ["no output"]
            problem = f"ended with {done.returncode}: {lines[-1][:300]}"
    except subprocess.TimeoutExpired:
        problem = f"did not end within {seconds + 30:.0f} s"
    if path.is_file():
        for line in path.read_text().splitlines():
            yield Row(**json.loads(line))
    if problem:
        yield Row(_PART, "process with the launcher", note=f"failed: {problem}", failed=True)


def rows(check: Check) -> Iterator[Row]:
    """What is measured in the process with the launcher."""
    torch.manual_seed(0)
    yield from isolated(_PART, "launch of a kernel", partial(_launch, check))
    for case in bench_kernels.cases(check.device, check.sizes.op_scale):
        if case.name.startswith(check.sizes.ops or ""):
            yield from isolated(_PART, case.name, partial(_same_bits, check, case))
    trainer = check.trainer(check.default, 10_000, continued=True)
    yield from isolated(_PART, "head step", partial(time_stage, check, trainer, "head", STEP_TARGET, _PART))
    yield from isolated(_PART, "frames", partial(frame_rates, check, FRAME_TARGETS, _PART))
    whole = Switch("whole graphs", replace(check.default, cuda_graphs="parts"))
    yield from isolated(_PART, whole.name, partial(compare_settings, check, whole, _PART))
    yield from isolated(_PART, whole.name, partial(compare_steps, check, trainer, whole, _PART, reserve=0.0))
    yield from isolated(_PART, "first step", partial(_first_step, check))
    for note in dict.fromkeys(check.notes):
        yield Row(_PART, "CUDA graphs", note=f"failed: {note}", failed=True)


def _launch(check: Check) -> Iterator[Row]:
    if not runtime.can_capture(check.device):
        yield Row(_PART, "launch of a kernel", note="skipped: needs CUDA")
        return
    value = bench_kernels.launch_overhead(check.device)["fast"]
    with _taichi_launches():
        by_taichi = bench_kernels.launch_overhead(check.device)["fast"]
    note = f"by the driver; {by_taichi:.3g} us by Taichi's launcher"
    yield Row(_PART, "launch of a kernel", value, unit="us", target=LAUNCH_TARGET, judged=check.sizes.judged, note=note)


def _same_bits(check: Check, case: bench_kernels.Case) -> Iterator[Row]:
    """An op launched by the driver and by Taichi: values and gradients are the same bits, or, where sums of atomic
    operations have no fixed order, as close as those of two launches by Taichi."""
    what = f"{case.name}, driver against Taichi"
    if not runtime.can_capture(check.device):
        yield Row(_PART, what, note="skipped: needs CUDA")
        return
    check.budget.need(2)
    by_driver = _values_and_gradients(case)
    with _taichi_launches():
        first, second = _values_and_gradients(case), _values_and_gradients(case)
    difference, noise = _largest_difference(by_driver, first), _largest_difference(second, first)
    failed = difference > (_SAME + _TIMES_NOISE * noise if noise else 0)
    note = "the same bits" if difference == 0 else f"two launches by Taichi differ by {noise:.1g}"
    note += "; failed: expected the same" if failed else ""
    yield Row(_PART, what, difference, note=note, failed=failed)


def _values_and_gradients(case: bench_kernels.Case) -> list[Tensor]:
    values = bench_kernels.as_list(case.op(*case.inputs))
    generator = torch.Generator(values[0].device).manual_seed(0)
    upstream = [
        torch.rand(v.shape, generator=generator, device=v.device).to(v.dtype) for v in values if v.requires_grad
    ]
    found = [value.detach() for value in values]
    return found + list(bench_kernels.gradients(case.op, case.inputs, upstream)) if upstream else found


def _largest_difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Relative to the largest value; 0 for the same bits, NaN included."""
    differences = [0.0]
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return float("inf")
        same = (x == y) | ((x != x) & (y != y))
        if not bool(same.all()):
            largest = float(y.double().abs().nan_to_num(0, 0, 0).max())
            difference = (x.double() - y.double())[~same].abs().nan_to_num(torch.inf).max()
            differences.append(float(difference) / max(largest, 1e-30))
    return max(differences)


@contextlib.contextmanager
def _taichi_launches() -> Iterator[None]:
    """Context in which Taichi launches the kernels, in a process in which the driver does."""
    session = runtime._session
    assert session is not None
    kept, session.driver_kernels = session.driver_kernels, None
    try:
        yield
    finally:
        session.driver_kernels = kept


def _first_step(check: Check) -> Iterator[Row]:
    """Seconds from the command `train` to the line that it logs after the first step, with empty caches and again."""
    with tempfile.TemporaryDirectory(prefix="ernerf_ti_first_step_") as folder:
        for what, note in (
            ("first step", "nothing cached"),
            ("first step, again", "with what the first process has kept"),
        ):
            check.budget.need(20 if check.device.type == "cuda" else 0)
            seconds = _seconds_to_first_step(check, Path(folder))
            note = f"from the command to its first log line, {note}"
            yield Row(_PART, what, seconds, unit="s", target=START_TARGET, judged=check.sizes.judged, note=note)


def _seconds_to_first_step(check: Check, folder: Path) -> float:
    run = folder / "run"
    log = run / "log.jsonl"
    caches = {"XDG_CACHE_HOME": f"{folder}/cache", "CUDA_CACHE_PATH": f"{folder}/cuda"}
    options = ["--preset", "released", "--stages", "head", "--head.iterations", "1", "--log-every", "1"]
    options += ["--head.n-rays", str(check.sizes.n_rays), "--device", check.device.type]
    command = [sys.executable, "-m", "ernerf_ti", "train", str(check.folder / "capture"), str(run), *options]
    begin = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | caches, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as train:
        while train.poll() is None and not (log.is_file() and log.stat().st_size):
            time.sleep(0.02)
            if time.perf_counter() - begin > max(30.0, check.budget.left()):
                train.kill()
                raise OutOfTimeError("the first step took longer than the time that was left")
        seconds = time.perf_counter() - begin
        train.kill()
        _, errors = train.communicate()
    if not log.is_file():
        raise RuntimeError(f"train ended before the first step: {errors.decode(errors='replace').strip()[-300:]}")
    shutil.rmtree(run)
    return seconds


def _main(request: dict[str, Any], path: Path) -> None:
    device, run = torch.device(request["device"]), Path(request["run"])
    sizes = {field.name: request["sizes"][field.name] for field in fields(Sizes)}
    tuples = {name: tuple(value) for name, value in sizes.items() if isinstance(value, list)}
    check = Check(device, Sizes(**sizes | tuples), Budget(request["seconds"]), path.parent / "in_launcher")
    check.folder.mkdir()
    check.capture, check.run = open_capture(path.parent / "capture"), run
    (check.folder / "capture").symlink_to(path.parent / "capture")
    with static_shapes_on_cpu() if device.type == "cpu" else contextlib.nullcontext(), path.open("w") as file:
        for row in rows(check):
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]), Path(sys.argv[2]))
