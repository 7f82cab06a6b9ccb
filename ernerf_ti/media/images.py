"""Image files in and out."""

import functools
import io
import os
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from ernerf_ti.media.files import require_file
from ernerf_ti.media.whole_files import replacing

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG_OPTIONS = [
    *(cv2.IMWRITE_JPEG_QUALITY, 98),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
]
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", 0xDA, b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "AVIF")  # the last is not in each Pillow
_PLAIN = ("L", "RGB", "RGBA", "F", "I", "I;16", "I;16B")  # modes of Pillow that OpenCV reads as well
_NOT_OF_OPENCV = ("AVIF",)  # in its wheels
_ORIENTATION = 0x0112  # of EXIF
LARGEST_IMAGE = 80_000_000
"""In pixels; a larger one is refused before memory is taken. A frame of 8K video has 33 million."""

# Such images, and damaged ones, are refused here, in one line.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
if "OPENCV_LOG_LEVEL" not in os.environ:
    _logging: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # type: ignore[attr-defined]
    _logging.setLogLevel(0)  # moved in OpenCV 5


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
    """Read an image file as it is shown.

    The orientation in EXIF is applied, colors of an embedded ICC profile are converted to sRGB, grayscale, palettes and
    CMYK become RGB, and 16 bits a channel are reduced to 8.

    Returns:
        [H, W, 3] RGB, or [H, W, 4] RGBA if the file has alpha; uint8.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: not an image, an incomplete one, one of more than 8 x 10^7 pixels, an animation, or one with
            floating-point pixels.
    """
    path, data, header = _open(path)
    if getattr(header, "is_animated", False) and header.format != "MPO":  # a photo with its preview
        raise ValueError(f"{path}: expected one picture, got several in one file; save the one that is meant as PNG")
    profile = header.info.get("icc_profile")
    if header.mode == "CMYK":
        inks = _with_pillow(path, header, "CMYK")
        image = _to_srgb(inks, "CMYK", profile)
        return np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")) if image is None else image
    transparent = "transparency" in header.info
    premultiplied = header.format == "TIFF" and header.mode == "RGBA"  # by OpenCV
    if header.mode in _PLAIN and header.format not in _NOT_OF_OPENCV and not transparent and not premultiplied:
        image = _upright(_with_opencv(path, data), _orientation(header, data))
    else:
        alpha = transparent or header.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        image = _with_pillow(path, header, "L" if header.mode == "1" else "RGBA" if alpha else "RGB")
    if profile is not None:
        gray, alpha = image.ndim == 2, image.shape[2:] == (4,)
        converted = _to_srgb(image[..., :3] if alpha else image, "L" if gray else "RGB", profile)
        if converted is not None:
            image = np.dstack((converted, image[..., 3])) if alpha else converted
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is shown, from its header. Raises as :func:`read_image`."""
    _, data, header = _open(path)
    width, height = header.size
    return (height, width) if _orientation(header, data) >= 5 else (width, height)


def _open(path: Path) -> tuple[Path, bytes, Image.Image]:
    """The path, the content and the header of an image file that is complete and not too large."""
    path = require_file(path, "an image", "check that the folder is complete")
    data = path.read_bytes()
    if data.startswith(_JPEG_START) and not _is_complete_jpeg(data):
        raise ValueError(f"{path}: the JPEG is truncated; copy or create the file again")
    if data.startswith(_PNG_START) and _png_chunk(data, b"IEND") is None:  # libpng would write to stderr as well
        raise ValueError(f"{path}: the PNG is truncated; copy or create the file again")
    try:
        header = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = header.size
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):  # more than 89 million pixels
        raise _too_large(path, "more") from None
    except Exception:  # the readers of the formats raise errors of all kinds
        raise _damaged(path) from None
    if width * height > LARGEST_IMAGE:
        raise _too_large(path, f"{width}x{height}")
    return path, data, header


def _too_large(path: Path, got: str) -> ValueError:
    return ValueError(f"{path}: expected an image of up to {LARGEST_IMAGE:,} pixels, got {got}; save it smaller")


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path}: not an image, or a damaged one; save it as PNG or JPEG")


def _with_opencv(path: Path, data: bytes) -> np.ndarray:
    """[H, W] gray, [H, W, 3] RGB or [H, W, 4] RGBA; uint8."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"{path}: OpenCV can't decode this image ({error.err}); save it as PNG or JPEG") from None
    if image is None:
        raise _damaged(path)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: expected 8 or 16 bits a channel, got {image.dtype} pixels; save it as PNG or JPEG")
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _with_pillow(path: Path, header: Image.Image, mode: str) -> np.ndarray:
    """[H, W] or [H, W, C] uint8 of a mode of Pillow, upright."""
    try:
        image = header if header.mode == mode else header.convert(mode)
        return np.asarray(ImageOps.exif_transpose(image))
    except Exception:  # as above
        raise _damaged(path) from None


def _orientation(header: Image.Image, data: bytes) -> int:
    """Of EXIF, 1 to 8; 1 for TIFF, which both libraries turn by themselves, and if the EXIF data are damaged."""
    if header.format == "TIFF":
        return 1
    try:
        if header.format == "PNG":  # Pillow would decode one without EXIF to look for it
            exif = Image.Exif()
            exif.load(_png_chunk(data, b"eXIf") or b"")
        else:
            exif = header.getexif()
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # as in reading
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    mirrored, flipped = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return np.ascontiguousarray(image[:: -1 if flipped else 1, :: -1 if mirrored else 1])


def _png_chunk(data: bytes, kind: bytes) -> bytes | None:
    """Content of the first complete chunk of a kind; None if there is none."""
    at = len(_PNG_START)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == kind and at + 12 + length <= len(data):
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return None


def _to_srgb(image: np.ndarray, mode: str, profile: bytes | None) -> np.ndarray | None:
    """[H, W, 3] in sRGB from the colors of an ICC profile. None if they are sRGB, or if the profile is missing, damaged
    or of another kind: browsers take the values as they are, too."""
    transform = None if profile is None else _transform(profile, mode)
    if transform is None:
        return None
    return np.asarray(ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(image), mode), transform))


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError):
        return None


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
