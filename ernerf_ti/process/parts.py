"""Work in parts that stay in the cache of a CPU, in threads of which each computes alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier
from typing import Any

import torch


@lru_cache(1)
def _threads(n: int) -> ThreadPoolExecutor:
    """n threads of which each computes alone."""
    before = torch.get_num_threads()
    threads = ThreadPoolExecutor(n, "networks", torch.set_num_threads, (1,))
    wait([threads.submit(barrier.wait) for barrier in [Barrier(n)] for _ in range(n)])
    # Threads that begin later have as many as were set last, in whatever thread.
    torch.set_num_threads(before)
    return threads


def in_parts(evaluator: Callable[[], Callable[[slice], Any]], n: int, size: int, n_threads: int) -> None:
    """Evaluate n points, without gradients.

    Args:
        evaluator: makes what evaluates a part of the points, for one thread.
        size: of the parts.
        n_threads: of which each takes whole parts: a matrix product of one part is too small to be divided. Torch
            should have one thread meanwhile, see :func:`ernerf_ti.process.threads.one_torch_thread`.
    """
    begins = range(0, n, size)
    left = iter(begins)  # each thread takes the next one: other work may keep one of them from running

    @torch.no_grad()  # which holds for a thread
    def evaluate() -> None:
        of_part = evaluator()  # with memory of its own
        for begin in left:
            of_part(slice(begin, min(begin + size, n)))

    others = [_threads(n_threads - 1).submit(evaluate) for _ in range(1, min(n_threads, len(begins)))]
    if begins:
        evaluate()
    for other in others:
        other.result()
