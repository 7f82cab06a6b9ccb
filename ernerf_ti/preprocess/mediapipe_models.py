"""mediapipe, whose wheel of version 0.10.21 carries its models."""

import contextlib
import os
from collections.abc import Iterator


def solutions():
    """The module mediapipe.solutions.

    Raises:
        ImportError: mediapipe is not installed.
    """
    try:
        with quiet():
            from mediapipe.python import solutions
    except ImportError as error:
        raise ImportError(
            "tracking: expected the package mediapipe 0.10.21, got none; with Python 3.12 or older, "
            "pip install 'ernerf-ti[preprocess]'"
        ) from error
    return solutions


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what native code writes to stderr: mediapipe's notes on its graphs have no other switch."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
