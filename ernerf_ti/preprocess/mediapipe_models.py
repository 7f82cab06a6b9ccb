"""Access to mediapipe 0.10.21, whose wheel includes the models."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any


def solutions() -> Any:
    """The module mediapipe.solutions.

    Raises:
        ImportError: mediapipe is not installed.
    """
    try:
        with quiet():
            from mediapipe.python import solutions
    except ImportError as error:
        raise ImportError(
            "preprocessing needs the package mediapipe 0.10.21; with Python 3.12 or older, "
            "pip install 'ernerf-ti[preprocess]'"
        ) from error
    return solutions


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard what native code writes to stderr: mediapipe's messages about its graphs can't be disabled otherwise."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
