"""Ctrl-C and SIGTERM as a flag that long work polls between its steps."""

import signal


class StopRequest:
    """Context manager that records SIGINT and SIGTERM instead of raising; call it to ask whether one has arrived."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    @property
    def exit_status(self) -> int:
        """Exit status of a process that stopped because of the signal, by the convention of shells."""
        return 128 + self.signal

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.signal = number
