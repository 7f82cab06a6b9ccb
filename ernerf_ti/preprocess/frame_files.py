"""Per-frame image files as sequences, and parallel processing of frames."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ernerf_ti.media.images import read_image


class ImageSequence(Sequence[np.ndarray]):
    """Images 0 ... n - 1, read on access: [H, W, 3] RGB, or [H, W], their first channel; uint8."""

    def __init__(self, path: Callable[[int], Path], n: int, first_channel: bool = False):
        self._path, self._n, self._first_channel = path, n, first_channel

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, k: int) -> np.ndarray:  # type: ignore[override]  # no slices, which would read many images
        if not 0 <= k < self._n:
            raise IndexError(k)
        image = read_image(self._path(k))
        return np.ascontiguousarray(image[..., 0]) if self._first_channel else image


def for_each(work: Callable, items: Iterable, title: str, total: int | None = None) -> None:
    """Call `work` on each item in parallel threads, with a progress bar. The first error stops it and is raised.

    Items are taken from the iterable only as they can be processed. When it returns or raises, no thread is left.
    """
    # OpenCV and NumPy release the interpreter lock while they compute.
    workers = os.cpu_count() or 1
    pending: deque[Future] = deque()
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
