"""Running a command: expected errors and signals end in one line and an exit status."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EXPECTED = (OSError, ValueError, ImportError, RuntimeError, MemoryError, EOFError)
"""Bad input and lacking means raise these; all errors of torch and of ours that have their own class are among them."""
_LIBRARIES = {"av", "csv", "cv2", "taichi", "torch", "zipfile", "zlib"}
"""What these raise besides, they raise for bad input."""


class UsageError(ValueError):
    """Options that do not go together, or a value that an option does not take: exit status 2."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread so that temporary files are removed."""


def run_reporting_errors(work: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Run a command's work; returns the exit status.

    Args:
        work: returns the exit status, None for 0.
        interrupted: printed on stderr when Ctrl-C or SIGTERM ends the work.
    """
    try:
        with _raising_on_sigterm():
            status = work() or 0
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        # The reader has left (`| head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interruption:
        status = 128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT)
        line = interrupted
        if sys.stderr.isatty():
            line = f"\n{line}"  # below the terminal's ^C
    except Exception as error:
        if "ERNERF_TI_TRACEBACK" in os.environ or not is_expected(error):
            raise
        line, status = one_line(error), 2 if isinstance(error, UsageError) else 1
    # Here the frames of the work are gone, and with them their progress bars: this is the last line.
    print(line, file=sys.stderr)
    return status


def is_expected(error: Exception) -> bool:
    """Whether bad input or a lacking resource raises this, rather than a fault of the program."""
    return isinstance(error, _EXPECTED) or type(error).__module__.partition(".")[0] in _LIBRARIES


def one_line(error: Exception) -> str:
    """The message of an error in one line, never empty."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    return text if text else type(error).__name__


@contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others can't set handlers
        yield
        return

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
