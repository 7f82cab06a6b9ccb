"""Room for the samples of rays, where their number must not be waited for."""

import math
from collections import deque

import torch
from torch import Tensor

_GRANULE = 2**12  # samples
_SIZES_PER_OCTAVE = 4
_HEADROOM = 1.15  # times the largest number that was found
_NEARLY_FULL = 0.95
_PATIENCE = 16  # measurements, each well below the capacity, before it shrinks
_SHRINK = 2**0.5  # smallest ratio of two sizes that is worth a change, which records CUDA graphs again
_MOST_UNMEASURED = 2**21
_NONE = -1


class SampleCapacity:
    """The number of samples that memory is set aside for, adapted to the numbers that are found.

    Sizes grow in steps of 2^(1/4), rounded up to multiples of 4096, so that few different ones occur.

    Args:
        guess: number of samples to expect; None to make room for all that rays can have, until it is measured.
    """

    def __init__(self, guess: int | None = None):
        self._size = None if guess is None else _size_for(guess)
        self._recent: deque[int] = deque(maxlen=_PATIENCE)
        self._largest: Tensor | None = None  # _NONE before anything was found; in the same memory from step to step

    @property
    def limit(self) -> int:
        """Room for samples, for rays that can have as many."""
        return _MOST_UNMEASURED if self._size is None else self._size

    def size(self, most: int) -> int:
        """The capacity for rays.

        Args:
            most: the largest number of samples that they can have.
        """
        return min(_size_for(most), self.limit)

    def observe(self, n_found: Tensor) -> None:
        """Note how many samples were found, without waiting for the number. A CUDA graph may repeat this.

        Args:
            n_found: [] int, the number had there been room for all.
        """
        n_found = n_found.detach()
        if self._largest is None:
            self._largest = torch.full_like(n_found, _NONE)
        torch.maximum(self._largest, n_found, out=self._largest)

    def adjust(self) -> str | None:
        """Fit the capacity to what was observed since the last call. Waits for the device.

        Returns:
            What to tell the user if there was too little room; else None.
        """
        if self._largest is None:
            return None
        n, was = int(self._largest), self.limit
        if n == _NONE:
            return None
        self._largest.fill_(_NONE)
        self.fit(n)
        if n <= was:
            return None
        return (
            f"up to {n:,} samples per step, room for {was:,}: some rays were rendered without samples; "
            f"there is room for {self._size:,} from now on"
        )

    def fit(self, n: int) -> None:
        """Fit the capacity to a number of samples that was found: grow at once if it nearly fills the capacity, shrink
        if it has long been much smaller."""
        self._recent.append(n)
        if self._size is None or n > _NEARLY_FULL * self._size:
            self._size = _size_for(math.ceil(_HEADROOM * n))
        elif len(self._recent) == _PATIENCE:
            smaller = _size_for(math.ceil(_HEADROOM * max(self._recent)))
            if smaller * _SHRINK <= self._size:
                self._size = smaller


def _size_for(n: int) -> int:
    """The smallest size for n samples."""
    granules = max(1.0, n / _GRANULE)
    step = math.ceil(_SIZES_PER_OCTAVE * math.log2(granules) - 1e-9)
    return _GRANULE * math.ceil(2 ** (step / _SIZES_PER_OCTAVE))
