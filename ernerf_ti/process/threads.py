"""Number of CPU threads of torch, chosen at run time.

On a free machine all cores are faster than one. On a busy one they can be 50 times slower: the barriers of torch's
OpenMP threads spin, and each waits for a thread that another process has displaced. So the choice is measured: a few
units of work with each number of threads, the fastest is used, and it is measured again when the work gets slower,
and now and then in case another choice has become faster.

Nothing is changed on CUDA, with one core, or if the user has set OMP_NUM_THREADS or MKL_NUM_THREADS.

The order in which torch adds up floats on the CPU may depend on the number of threads. Work that has to give the same
bits each time needs one thread: set OMP_NUM_THREADS=1.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

Item = TypeVar("Item")

_BLOCK_UNITS, _BLOCK_SECONDS = 4, 1.0  # a measurement ends after so many units or seconds
_TRIALS = 2  # measurements of each number of threads, in turn; the better one counts
_HOPELESS = 2.0  # times the best: not measured again
_SLOWER, _MUCH_SLOWER = 1.5, 4.0  # times the measured time: two blocks, or one, lead to a new measurement
_SHORTEST_INTERVAL, _LONGEST_INTERVAL = 20.0, 160.0  # seconds of work until the next measurement


class ThreadTuner:
    """Chooses the number of CPU threads for repeated work. Enter it around each unit of work:

        tuner = ThreadTuner()
        for _ in range(n):
            with tuner:
                train_step()
        tuner.release()

    Use it in the thread that does the work: OpenMP keeps the number of threads per thread.

    Args:
        device_type: of the work; nothing is done unless it is "cpu".
        threads: control of the number of threads; torch's if None.
        clock: seconds.
    """

    def __init__(
        self, device_type: str = "cpu", threads: "TorchThreads | None" = None, clock: Callable[[], float] = perf_counter
    ):
        self._threads = threads or TorchThreads()
        self._initial = self._threads.available() if device_type == "cpu" else 1
        self._candidates = sorted({1, self._initial // 2, self._initial} - {0})
        self._clock = clock
        self._interval = _SHORTEST_INTERVAL
        self._reference = float("inf")
        self._choice = self._candidates[0]
        self._in_use: int | None = None
        self._trials: list[int] = []
        self._best: dict[int, float] = {}
        self._is_warm = False  # the first units compile kernels
        self._units, self._slow_blocks = 0, 0
        self._seconds, self._since_choice = 0.0, 0.0

    @property
    def is_active(self) -> bool:
        """Whether there is anything to choose."""
        return len(self._candidates) > 1

    def __enter__(self) -> "ThreadTuner":
        if self.is_active:
            # Taichi starts with the number of threads that torch has then: the first units run with all.
            n = self._choice if self._is_warm else self._initial
            self._use(self._trials[0] if self._trials else n)
        self._begin = self._clock()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.is_active and kind is None:
            self._add(self._clock() - self._begin)

    def release(self) -> None:
        """Restore the number of threads that was set before the first unit; the choice stays for later units."""
        if self._in_use is not None:
            self._use(self._initial)
            self._in_use = None

    def _use(self, n: int) -> None:
        if n != self._in_use:
            self._threads.set(n)
            self._in_use = n

    def _add(self, seconds: float) -> None:
        self._units, self._seconds = self._units + 1, self._seconds + seconds
        self._since_choice += seconds
        if self._units < _BLOCK_UNITS and self._seconds < _BLOCK_SECONDS:
            return
        per_unit = self._seconds / self._units
        self._units, self._seconds = 0, 0.0
        if not self._is_warm:
            self._is_warm = True
            self._measure()
        elif self._trials:
            self._finish_trial(per_unit)
        else:
            self._watch(per_unit)

    def _measure(self) -> None:
        self._trials, self._best = self._candidates * _TRIALS, {}

    def _finish_trial(self, per_unit: float) -> None:
        n = self._trials.pop(0)
        self._best[n] = min(per_unit, self._best.get(n, per_unit))
        limit = _HOPELESS * min(self._best.values())
        self._trials = [m for m in self._trials if self._best.get(m, 0.0) <= limit]
        if not self._trials:
            choice = min(self._best, key=self._best.__getitem__)
            confirmed = choice == self._choice
            self._interval = min(2 * self._interval, _LONGEST_INTERVAL) if confirmed else _SHORTEST_INTERVAL
            self._choice, self._reference = choice, self._best[choice]
            self._start_block()

    def _watch(self, per_unit: float) -> None:
        self._slow_blocks = self._slow_blocks + 1 if per_unit > _SLOWER * self._reference else 0
        is_slow = self._slow_blocks == 2 or per_unit > _MUCH_SLOWER * self._reference
        if is_slow or self._since_choice > self._interval:
            self._measure()

    def _start_block(self) -> None:
        self._units, self._slow_blocks = 0, 0
        self._seconds, self._since_choice = 0.0, 0.0


class TorchThreads:
    """The number of threads of torch."""

    def available(self) -> int:
        """Threads to choose from; 1 if the user has fixed their number."""
        if "OMP_NUM_THREADS" in os.environ or "MKL_NUM_THREADS" in os.environ:
            return 1
        import torch

        return torch.get_num_threads()

    def set(self, n: int) -> None:
        import torch

        torch.set_num_threads(n)


@contextmanager
def one_torch_thread() -> Iterator[int]:
    """Use one thread of torch in the calling thread, around work that has threads of its own: OpenMP's keep a core busy
    for some time after each operation, in case there is another one. Gives the number of threads before, which is
    restored.

    Threads that use torch for the first time meanwhile have one thread too.
    """
    import torch

    n = torch.get_num_threads()
    if n == 1:
        yield n
        return
    torch.set_num_threads(1)
    try:
        yield n
    finally:
        torch.set_num_threads(n)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def adaptive_threads(items: Iterable[Item], device_type: str = "cpu") -> Iterator[Item]:
    """Yield the items while a :class:`ThreadTuner` chooses the number of threads.

    A unit of work is to make an item and what the caller's loop does with it:

        for frame in adaptive_threads(render_frames(...)):
            write(frame)
    """
    tuner, iterator = ThreadTuner(device_type), iter(items)
    try:
        while True:
            with tuner:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                yield item
    finally:
        tuner.release()
