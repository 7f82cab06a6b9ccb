"""Files that appear only when they are complete."""

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` if the block ends without an error."""
    path = Path(path)
    # The suffix stays: writers choose their format by it. The process id keeps two runs apart.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; not read again while its size and its time of change stay.

    Raises FileNotFoundError, naming the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file, got no such file; see whether the path is right")
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
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError, or ValueError for a file that is not JSON, naming the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a JSON file, got no such file; see whether the folder is the right one"
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got {error}; write the file again") from None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an uncompressed .npz: the same arrays give the same bytes."""
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write [H, W], [H, W, 3] RGB or [H, W, 4] RGBA uint8 in the format that the suffix names."""
    order = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[2 if image.ndim == 2 else image.shape[2]]
    stored = image if order is None else cv2.cvtColor(image, order)
    with replacing(path) as temporary:
        if not cv2.imwrite(str(temporary), stored, _JPEG if path.suffix == ".jpg" else []):
            raise OSError(f"{path}: expected to write the image, got a refusal; check the disk and the folder")


def read_image(path: Path) -> np.ndarray:
    """[H, W, 3] RGB, or [H, W, 4] RGBA if the file has alpha; uint8.

    Raises FileNotFoundError, or ValueError for a file that is no picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a picture, got no such file; see whether the folder is complete")
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8:
        raise ValueError(f"{path}: expected a picture of 8 bits a channel, got a file that is not one; write it again")
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
