"""Image files in and out."""

from pathlib import Path

import cv2
import numpy as np

from ernerf_ti.media.files import replacing, require_file

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG_OPTIONS = [
    *(cv2.IMWRITE_JPEG_QUALITY, 98),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
]
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", 0xDA, b"\xff\xd9"


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image in the format that the suffix names.

    Args:
        path: the file.
        image: [H, W], [H, W, 3] RGB or [H, W, 4] RGBA, uint8.

    Raises:
        ValueError: no image format has this suffix.
        OSError: the file can't be written.
    """
    path = Path(path)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    try:
        _, data = cv2.imencode(path.suffix, image, _JPEG_OPTIONS if path.suffix.lower() in _JPEG_SUFFIXES else [])
    except cv2.error:
        raise ValueError(
            f"{path}: can't write images with the suffix {path.suffix!r}; use .png, .jpg or .webp"
        ) from None
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def read_image(path: Path) -> np.ndarray:
    """Read an image file.

    Grayscale is repeated to three channels, 16 bits a channel are reduced to 8, and a JPEG's EXIF orientation is
    applied.

    Returns:
        [H, W, 3] RGB, or [H, W, 4] RGBA if the file has alpha; uint8.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: not an image, an incomplete one, or floating-point pixels.
    """
    path = require_file(path, "an image", "check that the folder is complete")
    data = path.read_bytes()
    is_jpeg = data.startswith(_JPEG_START)
    if is_jpeg and not _is_complete_jpeg(data):
        raise ValueError(f"{path}: the JPEG is truncated; copy or create the file again")
    try:
        # IMREAD_UNCHANGED keeps alpha but ignores the EXIF orientation.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if is_jpeg else cv2.IMREAD_UNCHANGED
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise ValueError(f"{path}: OpenCV can't decode this image ({error.err}); save it as PNG or JPEG") from None
    if image is None:
        raise ValueError(f"{path}: not an image, or a damaged one; save it as PNG or JPEG")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: expected 8 or 16 bits a channel, got {image.dtype} pixels; save it as PNG or JPEG")
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _is_complete_jpeg(data: bytes) -> bool:
    """Whether the end marker follows the pixel data. Decoders fill what is missing with gray, without an error."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _JPEG_SCAN:
            # In the coded pixels 0xFF is followed by 0; thumbnails, which have an end marker too, lie before them.
            return _JPEG_END in data[position:]
        padding = marker == 0xFF
        position += 1 if padding else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
