"""Reading and writing files: JSON, arrays and digests."""

import functools
import hashlib
import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ernerf_ti.media.whole_files import replacing

_LARGEST_ARRAYS = 1 << 31  # bytes in an .npz; a compressed one could claim a thousand times its size


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


def require_not_replaced(given: Path, what: str, output: Path, advice: str = "choose another name") -> None:
    """Raise ValueError if what is read would be replaced by what is written, under whatever name.

    Args:
        given: a file, or a folder of pictures, that is read.
        what: it is, for the message.
        output: a file that is written, or a folder in which .png files are written.
        advice: what to do about it.
    """
    if not (given.exists() and output.exists()):
        return
    if output.samefile(given):
        raise ValueError(f"{output}: it would replace the {what} that is read; {advice}")
    file = given.resolve()
    if output.is_dir() and file.suffix.lower() == ".png" and output.samefile(file.parent):
        raise ValueError(f"{output}: it could replace the {what} {given} that is read; choose another folder")


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
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            n_bytes = sum(entry.file_size for entry in entries)
            if n_bytes > _LARGEST_ARRAYS:
                raise ValueError(f"it claims {n_bytes:,} bytes of arrays")
            # Read to its end, an entry is held against its checksum.
            return {entry.filename.removesuffix(".npy"): _array(file.read(entry)) for entry in entries}
    except Exception as error:  # zipfile, zlib and NumPy raise whatever they meet in damaged files
        raise ValueError(f"{path}: damaged or not an .npz file ({_reason(error)}); create the file again") from None


def read_array(path: Path, advice: str) -> np.ndarray:
    """Read an .npy file; objects in it are refused.

    Args:
        path: the file.
        advice: what to do about another or damaged file.

    Raises ValueError, naming the file.
    """
    try:
        return _array(Path(path).read_bytes())
    except Exception as error:  # as above
        raise ValueError(
            f"{path}: expected an .npy file of numbers, got something else ({_reason(error)}); {advice}"
        ) from None


def _array(data: bytes) -> np.ndarray:
    """Raises whatever NumPy raises; ValueError if the header claims more than there is, before memory is taken."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes != len(data) - file.tell() or min(shape, default=0) < 0:
        raise ValueError(f"its header claims {n_bytes:,} bytes of data, of {len(data) - file.tell():,}")
    file.seek(0)
    array: np.ndarray = np.load(file, allow_pickle=False)
    return array


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
