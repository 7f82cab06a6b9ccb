"""Environment variables for Taichi, which reads them when it starts."""

import contextlib
import os
import tempfile


def home() -> dict[str, str]:
    """Variables that Taichi needs in a process without HOME (a system service, some job runners).

    Taichi's C++ looks for its cache folder there at import and at each start, and aborts the process if neither HOME
    nor XDG_CACHE_HOME is set. Where the folder really is, :func:`taichi_kernels.kernel_cache.usable_cache` decides.
    """
    return {} if "HOME" in os.environ else {"XDG_CACHE_HOME": tempfile.gettempdir()}


@contextlib.contextmanager
def environment(**values: str):
    """Set variables that the user has not set, and take them back."""
    added = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
