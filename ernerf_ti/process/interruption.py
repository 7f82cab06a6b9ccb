"""Ctrl-C and SIGTERM as a question that long work asks between its steps."""

import signal


class StopRequest:
    """While this is entered, a signal is noted instead of raised; calling it tells whether one came."""

    def __init__(self):
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    @property
    def exit_status(self) -> int:
        """Of a process that stopped for the signal, as shells have it."""
        return 128 + self.signal

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        self.signal = number
