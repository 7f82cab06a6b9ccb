"""Still pictures of every kind are read as they are shown."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ernerf_ti.media.frame_folder import frame_files
from ernerf_ti.media.images import image_size, read_image
from ernerf_ti.media.video import FrameCounts, probe, read_frames
from tests.media.coded import chart, patches

CHART = np.round(255 * chart()).astype(np.uint8)
ORIENTATION = 0x0112


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_orientation(suffix, orientation, tmp_path):
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {} if suffix in (".png", ".tiff") else {"quality": 98}
    Image.fromarray(CHART).save(path, exif=exif, **options)
    # What each value says of the first row and the first column (TIFF 6.0, page 36).
    shown = {
        1: CHART,
        2: CHART[:, ::-1],
        3: CHART[::-1, ::-1],
        4: CHART[::-1],
        5: CHART.swapaxes(0, 1),
        6: CHART.swapaxes(0, 1)[:, ::-1],
        7: CHART.swapaxes(0, 1)[::-1, ::-1],
        8: CHART.swapaxes(0, 1)[::-1],
    }[orientation]
    found = read_image(path)
    assert found.shape == shown.shape and found.flags.c_contiguous
    assert image_size(path) == (shown.shape[1], shown.shape[0])
    assert np.abs(found[4::8, 4::8].astype(int) - shown[4::8, 4::8]).max() < 8


def test_orientation_of_a_png_behind_its_pixels(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(CHART).save(buffer, "PNG")
    exif = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, ORIENTATION, 3, 1, 6, 0, 0)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    data = buffer.getvalue()
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk + data[-12:])
    assert np.array_equal(read_image(tmp_path / "a.png"), CHART.swapaxes(0, 1)[:, ::-1])


ALPHA = np.full(CHART.shape[:2], 200, np.uint8)
GRAY = CHART[..., 0]


@pytest.mark.parametrize(
    ("name", "image", "expected", "tolerance"),
    [
        ("gray.png", Image.fromarray(GRAY), GRAY, 0),
        ("gray.jpg", Image.fromarray(GRAY), GRAY, 2),
        ("gray.tiff", Image.fromarray(GRAY), GRAY, 0),
        ("gray16.png", Image.fromarray(GRAY.astype(np.uint16) * 257), GRAY, 0),
        ("gray16.tiff", Image.fromarray(GRAY.astype(np.uint16) * 257), GRAY, 0),
        ("one bit.png", Image.fromarray(GRAY).point(lambda v: 255 * (v > 100), "1"), 255 * (GRAY > 100), 0),
        ("gray alpha.png", Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)]), None, 0),
        ("palette.png", Image.fromarray(CHART).quantize(64), CHART, 0),
        ("palette.gif", Image.fromarray(CHART).quantize(64), CHART, 0),
        ("a.webp", Image.fromarray(CHART), CHART, 8),
        ("a.bmp", Image.fromarray(CHART), CHART, 0),
        ("cmyk.jpg", Image.fromarray(CHART).convert("CMYK"), CHART, 8),
        ("cmyk.tiff", Image.fromarray(CHART).convert("CMYK"), CHART, 1),
        ("ycc.tiff", Image.fromarray(CHART).convert("YCbCr"), CHART, 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds_of_pixels(name, image, expected, tolerance, tmp_path):
    image.save(tmp_path / name, **({"quality": 98} if name.endswith((".jpg", ".webp")) else {}))
    found = read_image(tmp_path / name)
    if expected is None:
        assert np.array_equal(found, np.dstack((GRAY, GRAY, GRAY, ALPHA)))
        return
    expected = expected if expected.ndim == 3 else expected[..., None].repeat(3, 2)
    assert found.dtype == np.uint8
    assert np.abs(patches(found) - patches(expected)).max() <= tolerance


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(CHART).quantize(16)
    transparent = image.getpixel((0, 0))
    image.save(tmp_path / "a.png", transparency=transparent)
    found = read_image(tmp_path / "a.png")
    assert found.shape == (*CHART.shape[:2], 4)
    assert found[0, 0, 3] == 0 and found[-1, -1].tolist() == [*CHART[-1, -1], 255]


def profile(primaries, gamma=2.2):
    """A matrix profile, version 2 of ICC.1, with primaries as XYZ under D50, in columns."""

    def tag(kind, data):
        return kind + b"\0\0\0\0" + data

    def fixed(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {
        b"desc": tag(b"desc", struct.pack(">I", 5) + b"test\0" + bytes(78)),
        b"wtpt": tag(b"XYZ ", fixed((0.9642, 1, 0.8249))),
        **{f"{c}XYZ".encode(): tag(b"XYZ ", fixed(primaries[:, k])) for k, c in enumerate("rgb")},
        **{f"{c}TRC".encode(): tag(b"curv", struct.pack(">IH", 1, round(256 * gamma))) for c in "rgb"},
    }
    table, data, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(data), len(content))
        data += content
    size = 128 + len(table) + len(data)
    header = struct.pack(">I4sI4s4s4s12x4s", size, b"\0" * 4, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + fixed((0.9642, 1, 0.8249))
    return header.ljust(128, b"\0") + table + data


P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def decoded(code):
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colors_of_a_profile_become_srgb(suffix, alpha, tmp_path):
    if alpha and suffix == ".jpg":
        pytest.skip("JPEG has no alpha")
    light = decoded(chart()) @ np.linalg.solve(P3, SRGB).T
    stored = np.round(255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    image = Image.fromarray(np.dstack((stored, ALPHA)) if alpha else stored)
    options = {"lossless": True} if suffix == ".webp" else {"quality": 98} if suffix == ".jpg" else {}
    image.save(tmp_path / f"a{suffix}", icc_profile=profile(P3), **options)
    found = read_image(tmp_path / f"a{suffix}")
    assert np.abs(patches(stored) - patches(CHART)).max() > 15
    assert np.abs(patches(found[..., :3]) - patches(CHART)).max() <= 3
    assert not alpha or (found[..., 3] == 200).all()


@pytest.mark.parametrize(
    "content",
    [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"damaged", profile(P3)[:200]],
    ids=["srgb", "damaged", "cut"],
)
def test_profiles_that_change_nothing(content, tmp_path):
    Image.fromarray(CHART).save(tmp_path / "a.png", icc_profile=content)
    assert np.array_equal(read_image(tmp_path / "a.png"), CHART)


@pytest.mark.parametrize(("suffix", "options"), [(".gif", {}), (".png", {}), (".webp", {}), (".tiff", {})])
def test_several_pictures_in_one_file(suffix, options, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(CHART).save(path, save_all=True, append_images=[Image.fromarray(255 - CHART)], **options)
    with pytest.raises(ValueError, match=rf"a\{suffix}: expected one picture, got several in one file; save the one"):
        read_image(path)


def test_a_photo_with_a_preview(tmp_path):
    Image.fromarray(CHART).save(
        tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.fromarray(CHART[::2, ::2])], quality=98
    )
    assert read_image(tmp_path / "a.jpg").shape == CHART.shape


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bmp_header(width, height):
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def gif_header(width, height):
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02\x02\x4c\x01\x00;"
    )


@pytest.mark.parametrize("size", [(12_000, 9_000), (60_000, 60_000), (10_000, 8_001)])
@pytest.mark.parametrize("header", [png_header, bmp_header, gif_header])
def test_too_many_pixels_are_refused_by_the_header(header, size, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(header(*size))
    for reader in (read_image, image_size):
        with pytest.raises(ValueError, match=r"a\.png: expected an image of up to 80,000,000 pixels, got .*; save it"):
            reader(path)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.98])
@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "CMYK"), ("a.jpg", "L"), ("a.png", "LA"), ("a.png", "P"), ("a.webp", "RGBA"), ("a.tiff", "RGB")],
)
def test_truncated(name, mode, kept, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    path = tmp_path / name
    Image.fromarray(noise).convert(mode).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: round(kept * len(data))])
    with pytest.raises(ValueError, match=f"^{path}: (not an image, or a damaged one|the (JPEG|PNG) is truncated)"):
        read_image(path)


def folder(path, names, size=(48, 64)):
    for k, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), 10 * k + 10, np.uint8)).save(path / name)
    return path


@pytest.mark.parametrize(
    "names",
    [
        [f"{k}.png" for k in range(1, 13)],
        [f"frame_{k:05}.PNG" for k in range(12)],
        [f"take 2 {k}.png" for k in range(98, 110)],
        [f"Bild-{k}-ü.png" for k in (1, 2, 3, 5, 9, 10, 11, 20, 100, 101, 1000, 20000)],
        ["a.png", "b.png", *[f"c{k}.png" for k in range(10)]],
    ],
)
def test_a_folder_of_frames(names, tmp_path):
    folder(tmp_path, names)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    assert [path.name for path in frame_files(tmp_path)] == names
    counts = FrameCounts()
    frames = list(read_frames(tmp_path, 25, counts))
    assert [frame.mean() for frame in frames] == [10 * k + 10 for k in range(12)]
    assert (counts.read, counts.written, counts.gaps) == (12, 12, 0)
    info = probe(tmp_path)
    assert (info.width, info.height, info.rate, info.duration, info.sound_rate) == (64, 48, 25, 0.48, None)
    assert len(list(read_frames(tmp_path, 25, folder_rate=30))) == 10
    assert len(list(read_frames(tmp_path, 2.5))) == 2
    assert [frame.mean() for frame in read_frames(tmp_path, 50)][:4] == [10, 20, 20, 30]


def test_a_folder_of_frames_of_several_sizes(tmp_path):
    folder(tmp_path, ["1.png", "2.png", "3.png"])
    Image.fromarray(np.full((96, 96, 3), 200, np.uint8)).save(tmp_path / "4.png")
    Image.fromarray(np.dstack((CHART, ALPHA))).save(tmp_path / "5.png")
    counts = FrameCounts()
    frames = list(read_frames(tmp_path, 25, counts))
    assert {frame.shape for frame in frames} == {(48, 64, 3)} and counts.resized == 1
    assert frames[3][:, 8:-8].min() == 200 and frames[3][:, :8].max() == 0
    assert np.abs(frames[4] - CHART * (200 / 255)).max() <= 0.51


def test_a_damaged_frame_of_a_folder(tmp_path):
    folder(tmp_path, ["1.png", "2.png"])
    data = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"2\.png: the PNG is truncated"):
        list(read_frames(tmp_path, 25))
