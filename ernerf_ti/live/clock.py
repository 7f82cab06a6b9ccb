"""Clocks that pace a session: the system's, and one for tests and benchmarks."""

import time
from typing import Protocol


class Clock(Protocol):
    """What a session needs of a clock."""

    is_real: bool
    """Whether time passes by itself. Then frames are made in a thread of their own while the caller uses the last
    one; else when they are asked for."""

    def time(self) -> float:
        """Seconds since any moment; never goes back."""

    def wait_until(self, moment: float) -> None:
        """Return at a moment, at once if it has passed."""


class MonotonicClock:
    """The system's clock that is never set back."""

    is_real = True

    def time(self) -> float:
        return time.monotonic()

    def wait_until(self, moment: float) -> None:
        seconds = moment - time.monotonic()
        if seconds > 0:
            time.sleep(seconds)


class SimulatedClock:
    """Time that passes only while something waits for it, at once, and with :meth:`pass_by`."""

    is_real = False

    def __init__(self) -> None:
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def wait_until(self, moment: float) -> None:
        self._now = max(self._now, moment)

    def pass_by(self, seconds: float) -> None:
        """Let time pass, as work does."""
        self._now += seconds
