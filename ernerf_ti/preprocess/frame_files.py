"""Per-frame files as sequences, and work on them in parallel."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ernerf_ti.media.images import read_image


class Pictures(Sequence[np.ndarray]):
    """Pictures 0 ... n - 1, read when they are asked for: [H, W, 3] RGB, or [H, W] of their first channel."""

    def __init__(self, path: Callable[[int], Path], n: int, gray: bool = False):
        self._path, self._n, self._grey = path, n, gray

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, k: int) -> np.ndarray:
        if not 0 <= k < self._n:
            raise IndexError(k)
        picture = read_image(self._path(k))
        return np.ascontiguousarray(picture[..., 0]) if self._grey else picture


def for_each(work: Callable, items: Iterable, title: str, total: int | None = None) -> None:
    """Call `work` on each item, a few at a time, with a bar. The first error stops it."""
    # OpenCV and numpy leave the interpreter lock while they compute.
    workers = os.cpu_count() or 1
    pending = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in tqdm(items, title, total, unit="frame"):
                pending.append(pool.submit(work, item))
                if len(pending) > 2 * workers:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
