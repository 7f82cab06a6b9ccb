"""Running a command: expected errors and signals end in one line and an exit status."""

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ernerf_ti.media.whole_files import DiskFullError, disk_full_cause
from ernerf_ti.process.device import is_first_process

_EXPECTED = (OSError, ValueError, ImportError, RuntimeError, MemoryError, EOFError)
"""Bad input and lacking means raise these; all errors of torch and of ours that have their own class are among them."""
_LIBRARIES = {"av", "csv", "cv2", "taichi", "torch", "zipfile", "zlib"}
"""What these raise besides, they raise for bad input."""
_AGAIN_SECONDS = 0.01
_TRACEBACK = "ERNERF_TI_TRACEBACK"
"""Environment variable for developers: errors keep their traceback."""


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
        _prepare_streams()
        with _raising_on_signals():
            status = work() or 0
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        _flush_or_discard()  # the reader has left (`| head`)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interruption:
        status = 128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT)
        line = interrupted if is_first_process() else None
        if line and sys.stderr is not None and sys.stderr.isatty():
            line = f"\n{line}"  # below the terminal's ^C
    except Exception as error:
        if _TRACEBACK in os.environ:
            raise
        line, status = _explained(error), 2 if isinstance(error, UsageError) else 1
    # Here the frames of the work are gone, and with them their progress bars: this is the last line.
    with contextlib.suppress(OSError):  # nobody reads it, or the disk that it goes to is full
        if line:
            print(line, file=sys.stderr)
    _flush_or_discard()
    return status


def _explained(error: Exception) -> str:
    """One line for the user."""
    full = disk_full_cause(error)
    if full is not None and not (isinstance(full, DiskFullError) and str(full) in str(error)):
        named = getattr(error, "filename", None)
        where = f"{os.fsdecode(named)}: " if isinstance(named, str | bytes | os.PathLike) else ""
        return f"{where}the disk is full ({one_line(error)}); make room and run the command again"
    if is_expected(error):
        return one_line(error)
    return (
        f"internal error: {type(error).__name__}: {one_line(error)} ({_place(error)}); this is a fault of the program "
        f"or of a file that it read: set {_TRACEBACK}=1 for the whole traceback, and report it"
    )


def _place(error: Exception) -> str:
    """Module and line of ours where an error was raised, or the last ones of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "ernerf_ti" in frame.filename or "taichi_kernels" in frame.filename]
    frame = (ours or frames)[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"


def is_expected(error: Exception) -> bool:
    """Whether bad input or a lacking resource raises this, rather than a fault of the program."""
    return isinstance(error, _EXPECTED) or type(error).__module__.partition(".")[0] in _LIBRARIES


def one_line(error: Exception) -> str:
    """The message of an error in one line, never empty."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
        return " ".join(f"{name}: {error.strerror}".splitlines())
    text = " ".join(str(error).split())
    return text if text else type(error).__name__


def _prepare_streams() -> None:
    """Standard streams that take any text, also those that the caller has closed."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, for the process
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        # File names may hold bytes that are no text: they leave as they came.
        is_utf8 = stdout.encoding.lower().replace("-", "") == "utf8"
        stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def _flush_or_discard() -> None:
    """Discard what standard streams can't write, or Python would try at exit, complain, and change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _raising_on_signals() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others can't set handlers
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if _would_be_lost(frame):
            again = threading.Timer(_AGAIN_SECONDS, _send, (number,))
            again.daemon = True
            again.start()
        else:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not with nohup or in a program of its own
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _would_be_lost(frame: FrameType | None) -> bool:
    """Whether code is running that catches any exception: Taichi's, while it declares functions and kernels."""
    while frame is not None:
        if frame.f_code.co_name == "_inside_class" and "taichi" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _send(number: int) -> None:
    """Raise a signal in this process."""
    if os.name == "posix":
        os.kill(os.getpid(), number)  # wakes the main thread, whatever it waits for
    else:
        signal.raise_signal(number)
