"""The folder in which Taichi keeps compiled kernels: one that can be written, and one that does not end the process.

Taichi aborts when the index of its cache is damaged in some places, at the first launch of every process from then on;
no error can be caught. So each start leaves a mark that is removed after the first launch. A mark of a process that no
longer runs has the cache tried in a process of its own, and put aside if that ends badly.
"""

import atexit
import contextlib
import importlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

_MARK = "taichi_kernels_start_"
_DAMAGED = "ticache.damaged"
_TRIAL = """
import torch
from taichi_kernels import morton_encode
morton_encode(torch.zeros(1, 3, dtype=torch.int32))
"""
_TRIAL_SECONDS = 120.0
_LOCKS = ("ticache.lock", "metadata.lock")
_LOCKED_SECONDS = 60.0  # Taichi holds its locks for milliseconds

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None


class StartMark:
    """A mark that this process is starting with a cache; :meth:`remove` it after the first launch.

    Without file locks, as on Windows, there is none.
    """

    def __init__(self, cache: str):
        self._path = os.path.join(os.path.dirname(cache), f"{_MARK}{secrets.token_hex(8)}")
        self._lock: int | None = None
        self._removing = threading.Lock()
        if fcntl is None:
            return
        with contextlib.suppress(OSError):
            self._lock = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            atexit.register(self.remove)

    def launching(self) -> None:
        """From here on the end of the process leaves the mark: it may be the damage that ends it."""
        atexit.unregister(self.remove)

    def remove(self) -> None:
        """After the first launch, or at the end of a process that launched nothing."""
        with self._removing:  # threads may launch for the first time at once
            lock, self._lock = self._lock, None
        if lock is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        os.close(lock)


def usable_cache() -> str:
    """Path of a cache folder that Taichi can write and read.

    It is the one that Taichi would choose by itself, or a temporary one if that can't be written: then Taichi runs and
    crashes at exit, whether the cache is on or off. A damaged cache is renamed, with a line on standard error.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # without HOME: from the user database
    folder = os.path.join(home, "taichi")
    try:
        if not os.path.isabs(home):
            raise FileNotFoundError(home)
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        folder = tempfile.mkdtemp(prefix="taichi_kernels_cache_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cache = os.path.join(folder, "ticache")
    unfinished = _has_unfinished_start(folder)
    _remove_locks(cache, older_than=0.0 if unfinished else _LOCKED_SECONDS)
    if unfinished and os.path.isdir(cache) and not _survives(cache):
        aside = os.path.join(folder, _DAMAGED)
        with contextlib.suppress(OSError):
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(cache, aside)
            print(f"{cache}: damaged, renamed to {_DAMAGED}; kernels are compiled again", file=sys.stderr)
    return cache


def _has_unfinished_start(folder: str) -> bool:
    """Whether a process ended between its start and its first launch; removes its mark."""
    if fcntl is None:
        return False
    found = False
    for name in os.listdir(folder):
        if not name.startswith(_MARK):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # a lock that is held is one of them
            mark = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
                found = True
            finally:
                os.close(mark)
    return found


def _remove_locks(cache: str, older_than: float) -> None:
    """Remove Taichi's lock files that a process left behind at its death.

    Taichi takes a file that exists for a lock that is held. It then neither loads nor saves kernels, in any process
    from then on, nor would the trial of a damaged cache find the damage.
    """
    for name in _LOCKS:
        path = os.path.join(cache, name)
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime >= older_than:
                os.unlink(path)


def _survives(cache: str) -> bool:
    """Whether a process that launches a kernel with this cache ends well."""
    if not sys.executable:
        return True
    environment = {**os.environ, "TI_OFFLINE_CACHE_FILE_PATH": cache, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        command = [sys.executable, "-c", _TRIAL]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_TRIAL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode == 0
