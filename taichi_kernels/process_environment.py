"""What Taichi finds in the environment of the process when it starts: variables, and a folder for its cache."""

import atexit
import contextlib
import os
import shutil
import tempfile


def home() -> dict[str, str]:
    """Variables that Taichi needs in a process without HOME (a system service, some job runners).

    Taichi's C++ looks for its cache folder there at import and at each start, and aborts the process if neither HOME
    nor XDG_CACHE_HOME is set. Where the folder really is, :func:`writable_cache_folder` decides.
    """
    return {} if "HOME" in os.environ else {"XDG_CACHE_HOME": tempfile.gettempdir()}


def writable_cache_folder() -> str | None:
    """None if Taichi can write the cache folder that it chooses by itself, else a folder that it can write.

    With a folder that can't be written Taichi runs and then crashes at exit, whether the cache is on or off.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # without HOME: from the user database
    try:
        if not os.path.isabs(home):
            raise FileNotFoundError(home)
        folder = os.path.join(home, "taichi")
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        folder = tempfile.mkdtemp(prefix="taichi_kernels_cache_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    chosen_by_taichi = "HOME" in os.environ and os.environ.get("XDG_CACHE_HOME") != ""
    return None if chosen_by_taichi else os.path.join(folder, "ticache")


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
