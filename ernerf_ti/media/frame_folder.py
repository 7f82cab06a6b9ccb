"""Folders of pictures that are the frames of a video."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from ernerf_ti.media.files import file_digest
from ernerf_ti.media.images import image_size, read_image
from ernerf_ti.media.picture import over_black

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def check_folder_rate(rate: float) -> None:
    """Raise ValueError for frames per second that a folder of pictures can't have."""
    if not 1 <= rate <= 1000:
        raise ValueError(f"folder-rate: expected 1 to 1000 frames per second, got {rate:g}; try 25 or 30")


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder in the natural order of their names: 1, 2, 10. Empty if there is no such folder."""
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."))
    return sorted((path for path in files if path.is_file()), key=lambda path: _natural(path.name))


def source_digest(video: Path) -> str:
    """SHA-256 of a video file, or of the names and digests of the pictures in a folder."""
    files = frame_files(video)
    if not files:
        return file_digest(video)
    return hashlib.sha256("".join(f"{path.name} {file_digest(path)}\n" for path in files).encode()).hexdigest()


def folder_size(files: list[Path]) -> tuple[int, int]:
    """Width and height, in pixels, that most of the pictures have. Raises as :func:`read_image`."""
    return Counter(map(image_size, files)).most_common(1)[0][0]


def read_fitted(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """A picture scaled to a width and height, with black borders if its shape is another, and whether it was scaled.

    Transparent pixels are shown over black. Raises as :func:`read_image`.
    """
    image = read_image(path)
    if image.shape[2] == 4:
        image = over_black(image)
    width, height = size
    if image.shape[:2] == (height, width):
        return image, False
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
    image = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    right, below = width - inner[0], height - inner[1]
    borders = below // 2, below - below // 2, right // 2, right - right // 2
    return cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT), True


def _natural(name: str) -> tuple:
    """Numbers compare by value. Text and numbers alternate, beginning with text."""
    return tuple(int(part) if k % 2 else part.casefold() for k, part in enumerate(re.split(r"(\d+)", name))), name
