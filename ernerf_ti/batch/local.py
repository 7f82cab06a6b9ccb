"""The engine `local`: rows side by side on this machine."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ernerf_ti.batch.row import OnRow, OnStage, Steps, Work, failed_record, run_row
from ernerf_ti.batch.speakers import Speaker
from ernerf_ti.process.threads import usable_cores

_PAUSE = 0.05  # s between looks at the rows
_DRIVERS = ("nvidiactl", "dxg")  # of a GPU: of its own, and inside Windows


@dataclass(frozen=True)
class Machine:
    """What this machine has for rows."""

    cores: int
    memory_gb: float
    cards: tuple[str, ...]
    """Visible GPUs, as CUDA_VISIBLE_DEVICES names them."""

    @classmethod
    def this(cls) -> "Machine":
        """Cores that the process may use, memory, and GPUs if torch can use them. Loads torch if there is a driver."""
        cores = usable_cores()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        if not any(Path("/dev", name).exists() for name in _DRIVERS):  # loading torch takes seconds
            return cls(cores, memory, ())
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = [str(index) for index in range(count)] if visible is None else visible.split(",")[:count]
        return cls(cores, memory, tuple(names))

    def workers(self, n_rows: int, memory_gb_per_row: float) -> int:
        """Rows that run side by side: one per GPU, or else one per core, as far as memory goes."""
        by_memory = max(1, int(self.memory_gb / memory_gb_per_row))
        return max(1, min(n_rows, by_memory, len(self.cards) or self.cores))

    def environments(self, workers: int) -> list[dict[str, str]]:
        """Variables of each worker's processes: its GPU, or on the CPU its part of the cores."""
        if self.cards:
            return [{"CUDA_VISIBLE_DEVICES": self.cards[k % len(self.cards)]} for k in range(workers)]
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, self.cores // workers))
        return [{"OMP_NUM_THREADS": threads}] * workers


def run_local(
    speakers: Sequence[Speaker],
    work: Work,
    environments: Sequence[Mapping[str, str]],
    stop: Callable[[], bool],
    on_stage: OnStage,
    on_row: OnRow,
) -> None:
    """Run rows side by side, one for each environment.

    Args:
        speakers: the rows.
        work: of the batch.
        environments: variables of each worker's processes.
        stop: once it returns true, all commands are asked to save and stop, and no other is started.
        on_stage: see :data:`ernerf_ti.batch.row.OnStage`.
        on_row: see :data:`ernerf_ti.batch.row.OnRow`.
    """
    waiting = deque(speakers)
    running: dict[int, tuple[Speaker, Steps]] = {}
    try:
        while running or (waiting and not stop()):
            for slot, environment in enumerate(environments):
                if slot not in running and waiting and not stop():
                    speaker = waiting.popleft()
                    own = replace(work, environment={**work.environment, **environment})
                    running[slot] = speaker, run_row(speaker, own, stop)
            is_idle = True
            for slot, (speaker, steps) in list(running.items()):
                record, stages = _step(speaker, steps)
                on_stage(stages)
                if record is not None:
                    del running[slot]
                    on_row(record)
                    is_idle = False
            if is_idle:
                time.sleep(_PAUSE)
    finally:
        for _, steps in running.values():
            steps.close()


def _step(speaker: Speaker, steps: Steps) -> tuple[dict | None, int]:
    """Go on with a row until it has to wait; its record once it is over, and how many stages were over meanwhile."""
    stages = 0
    try:
        while next(steps) is not None:
            stages += 1
    except StopIteration as end:
        return end.value, stages
    except Exception as error:  # of this row: the others go on
        print(f"{speaker.name}: {error}", file=sys.stderr)
        return failed_record(speaker, f"{type(error).__name__}: {error}"), stages
    return None, stages
