"""Reading and writing files: JSON, arrays and digests."""

import functools
import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ernerf_ti.media.whole_files import replacing

__all__ = [
    "file_digest",
    "read_arrays",
    "read_json",
    "replacing",
    "require_file",
    "write_arrays",
    "write_json",
    "write_text",
]


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
