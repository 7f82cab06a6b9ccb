"""Measure work on a device: medians in turns, how busy the device is, host operations and waits, peak memory."""

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ernerf_ti.experiments.operations import recorded_operations

_ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
_ON_HOST = {"cpu_op"}
_LAUNCHES = ("LaunchKernel", "GraphLaunch", "Memcpy", "Memset")
_WAIT = "called a synchronizing CUDA operation"

Work = Callable[[], object]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def in_turns(first: Work, second: Work, calls: int, turns: int, device: torch.device) -> tuple[float, float]:
    """Median milliseconds per call of two functions that run in turns A B A B ...

    Args:
        first, second: run once each before the first turn.
        calls: calls per turn; the device is waited for at the end of a turn, not between its calls.
        turns: turns of each function.
        device: where they run.
    """
    times: tuple[list[float], list[float]] = [], []
    for work in (first, second):
        work()
    for _ in range(turns):
        for work, of_work in zip((first, second), times, strict=True):
            of_work.append(milliseconds(work, calls, device))
    return median(times[0]), median(times[1])


def milliseconds(work: Work, calls: int, device: torch.device) -> float:
    """Mean milliseconds per call of one turn."""
    synchronize(device)
    begin = perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    return 1000 * (perf_counter() - begin) / calls


@dataclass(frozen=True)
class Trace:
    """What the profiler saw, per call."""

    busy: float
    """Milliseconds in which the device worked; on a CPU, in which torch's operations ran."""
    launches: float
    """Launches of kernels, graphs and copies; 0 on a CPU."""


def trace(work: Work, calls: int, device: torch.device) -> Trace:
    """Profile some calls.

    Raises:
        RuntimeError: the profiler saw nothing on the device.
    """
    on_cuda = device.type == "cuda"
    if on_cuda:
        # With CUDA before 12.6 the end of a trace breaks CUDA graphs; torch does this for those of its compiler.
        os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
        os.environ.setdefault("TEARDOWN_CUPTI", "0")
    synchronize(device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Profiler clears events")  # torch 2.11; there is one cycle
        with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as profiler:
            for _ in range(calls):
                work()
            synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return _summary(events, calls, on_cuda)


def _summary(events: list[dict[str, Any]], calls: int, on_cuda: bool) -> Trace:
    """Of the events of a Chrome trace, whose times are microseconds."""
    wanted = _ON_DEVICE if on_cuda else _ON_HOST
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in wanted and "dur" in e]
    if not spans:
        raise RuntimeError(
            "profiler: expected events of the device, got none; on CUDA this needs CUPTI, which some containers forbid "
            "(run with access to performance counters)"
        )
    calls_of_driver = [e.get("name", "") for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver")]
    launches = sum(any(word in name for word in _LAUNCHES) for name in calls_of_driver)
    return Trace(covered(spans) / 1000 / calls, launches / calls)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (begin, end)."""
    total, last = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, last))
        last = max(last, end)
    return total


def count_operations(work: Work, calls: int) -> float:
    """Operations per call that reach torch's dispatcher, those of backward passes too; views count, and what a graph
    replays does not."""
    with recorded_operations() as operations:
        for _ in range(calls):
            work()
    return len(operations.names) / calls


def count_waits(work: Work, calls: int, device: torch.device) -> float:
    """Times per call that the host waits for a CUDA device, by torch's sync debug mode; 0 on a CPU."""
    if device.type != "cuda":
        for _ in range(calls):
            work()
        return 0.0
    with warnings.catch_warnings(record=True) as caught, _sync_debug_mode("warn"):
        warnings.simplefilter("always")
        for _ in range(calls):
            work()
    return sum(_WAIT in str(warning.message) for warning in caught) / calls


@contextlib.contextmanager
def _sync_debug_mode(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class PeakMemory:
    """Context in which the largest memory in use is recorded, in GB (2^30 bytes)."""

    def __init__(self, device: torch.device):
        self._on_cuda = device.type == "cuda"
        self.torch = self.device = 0.0
        """Of torch's tensors, and of the whole device with Taichi and the driver; on a CPU both are the process's."""

    def __enter__(self) -> "PeakMemory":
        if self._on_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_cuda:
            free, total = torch.cuda.mem_get_info()
            # Torch keeps the memory of its largest moment, so that what the device lacks now is its peak.
            self.torch, self.device = torch.cuda.max_memory_allocated() / 2**30, (total - free) / 2**30
        else:
            import resource  # not on Windows, whose CPUs are not measured here

            self.torch = self.device = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
