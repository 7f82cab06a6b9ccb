import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, features

from ernerf_ti.media.images import read_image, write_image

RNG = np.random.default_rng(3)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_png_round_trip(shape, tmp_path):
    image = RNG.integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "a.png", image)
    found = read_image(tmp_path / "a.png")
    expected = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert names(tmp_path) == ["a.png"]


def test_png_is_rgb_on_disk(tmp_path):
    write_image(tmp_path / "a.png", np.full((2, 2, 3), [255, 0, 10], np.uint8))
    assert cv2.imread(str(tmp_path / "a.png"))[0, 0].tolist() == [10, 0, 255]


def test_jpg_keeps_color_edges(tmp_path):
    # One pixel of red beside one of blue: chroma at half resolution would mix them.
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, ::2, 0] = image[:, 1::2, 2] = 200
    write_image(tmp_path / "a.jpg", image)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - image).max() < 12


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_quality_does_not_depend_on_the_suffix(suffix, tmp_path):
    image = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    write_image(tmp_path / "a.jpg", image)
    write_image(tmp_path / f"b{suffix}", image)
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / "a.jpg").read_bytes()


def test_16_bits_become_8(tmp_path):
    image = np.array([[[0, 128, 129], [65535, 65407, 65406]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 0, 1], [255, 255, 254]]]
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((2, 2), 257 * 9, np.uint16))
    assert read_image(tmp_path / "gray.png").tolist() == np.full((2, 2, 3), 9).tolist()


def with_exif_orientation(jpeg: bytes, value: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + jpeg[2:]


def test_exif_orientation_is_applied(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 200
    write_image(tmp_path / "a.jpg", image)
    stored = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(with_exif_orientation(stored, 6))  # to be shown turned clockwise
    found = read_image(tmp_path / "a.jpg")
    assert found.shape == (32, 16, 3)
    assert found[:12].mean() > 190 and found[-12:].mean() < 10


def truncated(suffix, tmp_path, kept):
    image = RNG.integers(0, 256, (64, 64, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    path = tmp_path / f"0{suffix}"
    write_image(path, image)
    data = path.read_bytes()
    path.write_bytes(data[: round(kept * len(data))])
    return path


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_truncated_file(suffix, kept, tmp_path):
    path = truncated(suffix, tmp_path, kept)
    with pytest.raises(ValueError) as error:
        read_image(path)
    kind = {".jpg": "JPEG", ".png": "PNG"}.get(suffix)
    reason = f"the {kind} is truncated; copy" if kind else "not an image, or a damaged one; save"
    assert str(error.value).startswith(f"{path}: {reason}")


def test_damaged_images_are_reported_in_one_place(tmp_path, capfd):
    for suffix in (".png", ".webp", ".tiff"):
        with pytest.raises(ValueError, match=r"damaged|truncated"):
            read_image(truncated(suffix, tmp_path, 0.5))
    assert capfd.readouterr().err == ""  # OpenCV's log


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif(tmp_path):
    image = np.full((32, 48, 3), (200, 120, 40), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.avif", quality=90)
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - image).max() < 6


def test_truncated_jpeg_with_a_thumbnail(tmp_path):
    # The thumbnail's end marker is not the image's.
    path = truncated(".jpg", tmp_path, 0.5)
    write_image(tmp_path / "small.jpg", np.zeros((8, 8, 3), np.uint8))
    thumbnail = (tmp_path / "small.jpg").read_bytes()
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail + data[2:])
    with pytest.raises(ValueError, match="the JPEG is truncated"):
        read_image(path)


def test_bytes_after_a_jpeg_are_ignored(tmp_path):
    image = np.full((16, 16, 3), 90, np.uint8)
    write_image(tmp_path / "a.jpg", image)
    with open(tmp_path / "a.jpg", "ab") as file:
        file.write(b"trailer of a camera")
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - image).max() <= 1


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_an_image_too_large_to_decode(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(60_000, 60_000))
    with pytest.raises(ValueError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: expected an image of up to 80,000,000 pixels, got more; save")


def test_not_an_image(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(FileNotFoundError) as error:
        read_image(path)
    assert f"{path}: expected an image, got no such file" in str(error.value)
    with pytest.raises(IsADirectoryError, match="expected an image, got a folder"):
        read_image(tmp_path)
    for content in (b"", b"no image", b"<html></html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            read_image(path)
        assert str(error.value) == f"{path}: not an image, or a damaged one; save it as PNG or JPEG"
    cv2.imwrite(str(tmp_path / "a.tiff"), np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="expected 8 or 16 bits a channel, got float32 pixels"):
        read_image(tmp_path / "a.tiff")


def test_image_without_a_folder(tmp_path):
    path = tmp_path / "none" / "a.png"
    with pytest.raises(FileNotFoundError) as error:
        write_image(path, np.zeros((4, 4, 3), np.uint8))
    assert f"{path}: can't create the file (No such file or directory)" in str(error.value)


@pytest.mark.parametrize("name", ["a", "a.xyz"])
def test_unknown_suffix(name, tmp_path):
    with pytest.raises(ValueError, match="can't write images with the suffix"):
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert not names(tmp_path)
