"""Whether a window can be opened, found out before anything is loaded."""

import ctypes
import os
import sys


class NoWindowError(OSError):
    """No window can be opened here; the message says why and what to do."""


def check_display() -> None:
    """Check that there is a display: without one, GLFW would end the process.

    Raises NoWindowError.
    """
    if sys.platform.startswith("linux") and not _has_display():
        raise NoWindowError(
            f"display: expected an X server at DISPLAY, got {os.environ.get('DISPLAY') or 'none'}; on a server run the "
            "command under xvfb-run -a, or write a video with --offscreen OUT.mp4 --script actions.json"
        )


def _has_display() -> bool:
    """Whether an X server answers; GLFW asks for one in the same way."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if not display:
        return False
    x11.XCloseDisplay(ctypes.c_void_p(display))
    return True
