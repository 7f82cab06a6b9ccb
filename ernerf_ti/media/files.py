"""Reading and writing files: atomic replacement, JSON, arrays and digests."""

import functools
import hashlib
import json
import os
import re
import secrets
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp(\.\w+)?")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder, which is renamed to `path` if the block ends without an error.

    The name is random and the file is created exclusively, so that neither another process nor a symbolic link
    planted in the folder can redirect the writing. Raises OSError, naming `path`, if the file can't be created.
    """
    path = Path(path)
    # Writers choose the format by the suffix, so it is kept.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise type(error)(
            f"{path}: can't create the file ({error.strerror}); check that the folder exists and is writable"
        ) from None
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, unused_for: float = 600.0) -> None:
    """Delete temporary files of :func:`replacing` that killed processes have left in a folder.

    Args:
        folder: searched without its subfolders.
        unused_for: seconds since the last write; a younger file may belong to a running process.
    """
    for path in Path(folder).glob(".*.tmp*"):
        with suppress(FileNotFoundError):  # another process may finish or remove it
            if _TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_mtime >= unused_for:
                path.unlink()


def require_file(path: Path, what: str, advice: str) -> Path:
    """The path, if it is a file.

    Args:
        path: to check.
        what: what is expected there, with its article.
        advice: what to do if there is no such file.

    Raises:
        IsADirectoryError: a folder.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected {what}, got a folder; pass the path of a file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected {what}, got no such file; {advice}")
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, cached for as long as its size and modification time stay the same.

    Raises FileNotFoundError or IsADirectoryError, naming the file.
    """
    path = require_file(path, "a file", "check the path")
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 20)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError, or ValueError for a file that is not JSON, naming the file."""
    path = require_file(path, "a JSON file", "check that this is the right folder")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); create the file again") from None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an uncompressed .npz; equal arrays give equal bytes."""
    entries: dict[str, Any] = arrays  # or NumPy 2 has one of them annotated as its option allow_pickle
    with replacing(path) as temporary:
        np.savez(temporary, **entries)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Raises FileNotFoundError, or ValueError for a file that is not a complete .npz, naming the file."""
    path = require_file(path, "an .npz file", "check that this is the right folder")
    try:
        with open(path, "rb") as file:
            return dict(np.load(file, allow_pickle=False))
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged or not an .npz file ({error}); create the file again") from None
