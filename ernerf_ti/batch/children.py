"""A command in a process of its own, which ends with the one that started it."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

STOP_SECONDS = 60.0  # that a command has to save its state; training saves after the present step
_PAUSE = 0.05  # s between looks at a process
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_LAST_BYTES = 4096  # of a log, in which its last line is looked for
_library: Any = ctypes.CDLL(None) if os.name == "posix" else None


class Child:
    """A running command. As a context manager it stops the command if it is still running at the end.

    Args:
        command: program and arguments.
        log: file that gets its output, after what is there already.
        folder: where it runs.
        environment: variables that it has besides those of this process.
    """

    def __init__(self, command: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**os.environ, **environment},
                # Ctrl-C in a terminal would reach it twice: from there and from :meth:`interrupt`.
                start_new_session=True,
                preexec_fn=_prepare,
            )

    def wait(self, stop: Callable[[], bool]) -> Iterator[None]:
        """Yield now and then until the process has ended. If `stop()` becomes true, it is asked to save and stop."""
        deadline = None
        while self._process.poll() is None:
            if deadline is None and stop():
                self.interrupt()
                deadline = time.monotonic() + STOP_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                self._kill()
            yield

    @property
    def exit_status(self) -> int | None:
        """As of :class:`subprocess.Popen`: -n after signal n, None while it runs."""
        return self._process.returncode

    def interrupt(self) -> None:
        """Ask the process to save its state and stop."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self.interrupt()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self._kill()

    def _kill(self) -> None:
        """End the process, and those that it has started and left behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def last_line(log: Path) -> str:
    """Last line of a log that is not empty."""
    with open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return lines[-1] if lines else ""


def describe_exit(status: int) -> str:
    """An exit status in words."""
    number = -status if status < 0 else status - 128
    if status < 0 or number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        why = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
        return f"ended by signal {name}{why}"
    return f"exit status {status}"


def _prepare() -> None:
    """Run in the new process before the command."""
    # The workers of a cluster may block signals, and a shell may have them ignored in the background.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Linux ends it when the process that has started it dies, so that no two work on one row after a restart.
    if hasattr(_library, "prctl"):
        _library.prctl(_DIES_WITH_PARENT, signal.SIGKILL)
