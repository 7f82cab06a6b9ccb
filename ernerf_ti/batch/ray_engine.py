"""The engine `ray`: one Ray task per row, on this machine or a cluster."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ernerf_ti.batch.row import OnRow, OnStage, Steps, Work, failed_record, run_row
from ernerf_ti.batch.speakers import Speaker

_PAUSE = 0.2  # s between looks at a process
_CANCEL_SECONDS = 75.0  # that rows have to save their state before they are ended


@dataclass(frozen=True)
class Request:
    """What each row asks of Ray, and how often a row is started again after its node has died."""

    cpus: float = 2
    gpus: float | None = None
    """A whole GPU if None and the cluster has any, else none."""
    memory_gb: float = 6.0
    retries: int = 3


def run_ray(
    speakers: Sequence[Speaker],
    work: Work,
    address: str | None,
    request: Request,
    stop: Callable[[], bool],
    on_stage: OnStage,
    on_row: OnRow,
) -> None:
    """Run rows as Ray tasks; arguments as of :func:`ernerf_ti.batch.local.run_local`.

    A row whose node dies starts again on another one, from what it has saved in the output folder, which all nodes
    must reach under the same path or URL. Once `stop()` is true, tasks that wait are withdrawn and those that run save
    and stop.

    Args:
        address: of an existing cluster; None for the one that RAY_ADDRESS names, else for one on this machine that
            ends with the batch.
        request: of each row.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise ImportError(
            "--engine ray: expected the package ray, which is not installed; pip install 'ernerf-ti[ray]', or use "
            "--engine local"
        ) from None
    is_ours = not ray.is_initialized()
    if is_ours:
        handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own, which would end the batch at once
        ray.init(address=address, log_to_driver=False, logging_level="warning")
        signal.signal(signal.SIGTERM, handler)
    try:
        resources = ray.cluster_resources()
        gpus = float(resources.get("GPU", 0) > 0) if request.gpus is None else request.gpus
        _note_if_too_large(ray, replace(request, gpus=gpus))
        work = replace(work, environment={"OMP_NUM_THREADS": str(max(1, int(request.cpus))), **work.environment})
        task = ray.remote(
            num_cpus=request.cpus,
            num_gpus=gpus,
            memory=int(request.memory_gb * 1e9),
            max_retries=request.retries,
            # A broken row fails in its record; what Ray starts again are rows whose worker or node has died.
            retry_exceptions=False,
        )(_run)
        rows = {task.options(name=f"row {speaker.name}").remote(speaker, work): speaker for speaker in speakers}
        _collect(ray, rows, stop, on_stage, on_row)
    finally:
        if is_ours:
            ray.shutdown()


def _collect(
    ray: Any,
    rows: dict[Any, Speaker],
    stop: Callable[[], bool],
    on_stage: OnStage,
    on_row: OnRow,
) -> None:
    """Hand on the record of each row as it ends."""
    waiting, deadline = list(rows), None
    try:
        while waiting:
            if stop() and deadline is None:
                deadline = time.monotonic() + _CANCEL_SECONDS
                for reference in waiting:
                    ray.cancel(reference)
            if deadline is not None and time.monotonic() > deadline:
                return
            over, waiting = ray.wait(waiting, timeout=1.0)
            for reference in over:
                speaker = rows[reference]
                try:
                    stages, record = ray.get(reference)
                except ray.exceptions.TaskCancelledError:
                    continue
                except Exception as error:  # the row itself, or its worker more often than it may be started again
                    if stop():
                        continue
                    message = " ".join(str(getattr(error, "cause", None) or error).split())
                    print(f"{speaker.name}: {message}", file=sys.stderr)
                    stages, record = 0, failed_record(speaker, f"{type(error).__name__}: {message}")
                on_stage(stages)
                on_row(record)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _run(speaker: Speaker, work: Work) -> tuple[int, dict]:
    """The task: how many stages were over, and the record. Cancellation raises KeyboardInterrupt in it."""
    steps: Steps = run_row(speaker, work)
    stages = 0
    try:
        while True:
            if next(steps) is not None:
                stages += 1
            else:
                time.sleep(_PAUSE)
    except StopIteration as end:
        return stages, end.value
    finally:
        steps.close()  # a running command saves and stops


def _note_if_too_large(ray: Any, request: Request) -> None:
    """Say that no node can take a row: Ray waits for one that can, which a cluster may add by itself."""
    asked = {"CPU": request.cpus, "GPU": request.gpus or 0.0, "memory": request.memory_gb * 1e9}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
        print(
            f"no node of the cluster has {request.cpus:g} CPUs, {request.gpus:g} GPUs and {request.memory_gb:g} GB of "
            "memory for a row; waiting for one, or ask for less with --cpus-per-row, --gpus-per-row and "
            "--memory-gb-per-row",
            file=sys.stderr,
        )
