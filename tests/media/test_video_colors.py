"""Colors of every kind of video come back as BT.709 code values. Tolerances are in levels of 255."""

import numpy as np
import pytest

from ernerf_ti.media.color import encoding, to_bt709
from ernerf_ti.media.video import probe, read_frames
from tests.media.coded import chart, coded, patches, write

TRUTH = 255 * patches(chart())
X264 = {"crf": "1", "preset": "ultrafast"}
# With B-frames libx265 gives one or two frames random decoding times, which the muxer refuses or not.
X265 = {"x265-params": "log-level=error:crf=2:bframes=0", "preset": "ultrafast"}
VPX = {"crf": "4", "b": "0"}
MJPEG = {"qmin": "1", "qmax": "1"}
BT709, BT601_525, BT601_625 = (1, 1, 1, 1), (6, 6, 6, 1), (5, 6, 5, 1)
# Rounded, from BT.2087: linear light of BT.709 in the primaries of BT.2020; and by SMPTE EG 432-1 in Display P3.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_P3 = np.array([[0.82246, 0.17754, 0], [0.03319, 0.96681, 0], [0.01708, 0.07240, 0.91052]])


def light(code):
    return np.where(code < 0.081, code / 4.5, ((code + 0.099) / 1.099) ** (1 / 0.45))


def code(light):
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def hlg(bt709):
    """BT.709 code values -> HLG of the same light, its white at 203 of 1000 cd/m2."""
    display = 0.203 * light(bt709) @ TO_BT2020.T
    luminance = display @ (0.2627, 0.6780, 0.0593)
    scene = display * luminance[..., None] ** (1 / 1.2 - 1)
    log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)


def pq(bt709):
    """BT.709 code values -> PQ of the same light, its white at 203 cd/m2."""
    power = (0.0203 * light(bt709) @ TO_BT2020.T) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def wide(primaries):
    return lambda bt709: code(light(bt709) @ primaries.T)


def first_patches(path):
    return patches(next(read_frames(path, 25)))


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "tags", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", BT709, X264),
        ("a.mp4", "libx264", "yuv420p", BT601_525, X264),
        ("a.mp4", "libx264", "yuv420p", BT601_625, X264),
        ("full range.mp4", "libx264", "yuv420p", (1, 1, 1, 2), X264),
        ("a.mp4", "libx265", "yuv420p10le", BT709, X265),
        ("a.mp4", "libx265", "yuv420p10le", (1, 1, 1, 2), X265),
        ("a.mp4", "libsvtav1", "yuv420p", BT709, {"crf": "4", "preset": "12"}),
        ("a.webm", "libvpx-vp9", "yuv420p", BT709, VPX),
        ("untagged.webm", "libvpx", "yuv420p", (), {"crf": "4", "b": "5M"}),
        ("a.mov", "prores_ks", "yuv422p10le", BT709, {}),
        ("a.avi", "mjpeg", "yuvj420p", (2, 2, 5, 2), MJPEG),
        ("untagged.avi", "mpeg4", "yuv420p", (), MJPEG),
        ("a.mkv", "ffv1", "yuv420p", (7, 7, 7, 1), {}),
        ("a.mkv", "ffv1", "yuv420p", (2, 2, 9, 1), {}),
        ("a.mkv", "ffv1", "yuv411p", BT601_525, {}),
        ("a.mkv", "ffv1", "yuv422p", (1, 1, 1, 2), {}),
        ("a.mkv", "ffv1", "yuv444p", BT709, {}),
        ("a.mkv", "ffv1", "yuv422p10le", BT601_625, {}),
        ("a.mkv", "ffv1", "yuv444p12le", BT709, {}),
        ("a.mkv", "ffv1", "yuva420p", BT709, {}),
        ("a.mkv", "ffv1", "gbrp12le", (1, 1, 0, 2), {}),
    ],
)
def test_colors(name, codec, pixels, tags, options, tmp_path, monkeypatch):
    monkeypatch.setenv("SVT_LOG", "1")  # read once in a process: else encoders of later tests would not keep quiet
    matrix = tags[2] if tags else 5
    frame = coded(chart(), pixels, matrix, full=tags[-1:] == (2,))
    write(tmp_path / name, [frame] * 2, codec, tags=tags, options=options)
    assert np.abs(first_patches(tmp_path / name) - TRUTH).max() <= 2
    assert probe(tmp_path / name).notes == (("transparent pixels are shown over black",) if "yuva" in pixels else ())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["gray", "gray10le"])
def test_gray(pixels, full, tmp_path):
    write(tmp_path / "a.mkv", [coded(chart(), pixels, 1, full)] * 2, tags=(1, 1, 1, 1 + full))
    gray = TRUTH @ (0.2126, 0.7152, 0.0722)
    assert np.abs(first_patches(tmp_path / "a.mkv") - gray[:, None]).max() <= 1.5


def test_untagged_high_definition_is_bt709(tmp_path):
    write(tmp_path / "a.mkv", [coded(chart(720, 1280))])
    assert np.abs(first_patches(tmp_path / "a.mkv") - TRUTH).max() <= 2


def test_transparent_pixels_are_black(tmp_path):
    frame = coded(chart(), "yuva444p10le")
    frame.planes[3].update(bytes(frame.planes[3].buffer_size))
    write(tmp_path / "a.mkv", [frame], tags=BT709)
    assert next(read_frames(tmp_path / "a.mkv", 25)).max() == 0


@pytest.mark.parametrize(
    ("encode", "pixels", "codec", "suffix", "tags", "note"),
    [
        (hlg, "yuv420p10le", "libx265", ".mp4", (9, 18, 9, 1), "HDR (HLG, BT.2020)"),
        (pq, "yuv420p10le", "libx265", ".mp4", (9, 16, 9, 1), "HDR (PQ, BT.2020)"),
        (hlg, "yuv422p10le", "prores_ks", ".mov", (9, 18, 9, 1), "HDR (HLG, BT.2020)"),
        (pq, "yuv444p12le", "ffv1", ".mkv", (9, 16, 9, 1), "HDR (PQ, BT.2020)"),
        (hlg, "yuv420p10le", "ffv1", ".mkv", (9, 18, 9, 2), "HDR (HLG, BT.2020)"),
        (hlg, "yuv420p10le", "ffv1", ".mkv", (2, 18, 2, 1), "HDR (HLG, BT.2020)"),
        (pq, "gbrp10le", "ffv1", ".mkv", (9, 16, 0, 2), "HDR (PQ, BT.2020)"),
        (wide(TO_BT2020), "yuv420p10le", "libx265", ".mp4", (9, 14, 9, 1), "wide-gamut color (BT.2020)"),
        (wide(TO_BT2020), "yuv420p", "ffv1", ".mkv", (9, 1, 9, 1), "wide-gamut color (BT.2020)"),
        (wide(TO_P3), "yuv420p", "libx264", ".mp4", (12, 1, 1, 1), "wide-gamut color (Display P3)"),
    ],
)
def test_hdr_and_wide_gamut(encode, pixels, codec, suffix, tags, note, tmp_path):
    path = tmp_path / f"a{suffix}"
    matrix = 9 if tags[1] in (16, 18) else tags[2]
    options = {"libx264": X264, "libx265": X265}.get(codec, {})
    write(path, [coded(encode(chart()), pixels, matrix, tags[-1] == 2)] * 2, codec, tags=tags, options=options)
    assert np.abs(first_patches(path) - TRUTH).max() <= 2
    assert probe(path).notes == (f"{note} is converted to SDR in BT.709",)


@pytest.mark.parametrize("transfer", [16, 18])
def test_highlights_of_hdr(transfer):
    source = encoding(transfer, 9)
    reference = {18: 0.75, 16: 0.5807}[transfer]  # BT.2408, table 1
    signal = np.linspace(0, {18: 1, 16: 0.7518}[transfer], 500)  # up to 1000 cd/m2
    gray = to_bt709(np.repeat(signal[:, None], 3, 1), source)
    assert np.abs(gray - gray[:, :1]).max() < 1e-3 and (np.diff(gray[:, 0]) > 0).all()
    assert gray[0, 0] == 0 and gray[-1, 0] == pytest.approx(1, abs=1e-3)
    assert to_bt709(np.full(3, reference), source)[0] == pytest.approx(0.92, abs=0.005)
    # Bright skin keeps its hue and saturation: the ratios of the light of its channels.
    skin = light(np.array([1.0, 0.75, 0.62])) * 3
    found = light(to_bt709(pq_of(skin), encoding(16, 9)))
    np.testing.assert_allclose(found / found[0], skin / skin[0], atol=2e-3)


def pq_of(bt709_light):
    power = (0.0203 * bt709_light @ TO_BT2020.T) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def test_colors_outside_of_the_gamut_keep_their_luminance():
    linear = np.array([[0.0, 0.6, 0.0], [0.7, 0.0, 0.0], [0.0, 0.0, 0.8]])
    found = light(to_bt709(code(linear), encoding(1, 9)))
    assert found.min() >= 0 and found.max() <= 1 + 1e-9
    weights = (0.2627, 0.6780, 0.0593), (0.2126, 0.7152, 0.0722)
    np.testing.assert_allclose(found @ weights[1], linear @ weights[0], atol=2e-3)


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (15, "Dolby Vision without a compatible base layer .profile 5., whose colors can't be converted; export"),
        (10, "the colors are coded in a way that can't be converted .matrix coefficients 10 of ITU-T H.273.; convert"),
        (14, "can't be converted .matrix coefficients 14"),
    ],
)
@pytest.mark.parametrize("reader", [probe, lambda path: next(read_frames(path, 25))])
def test_colors_that_cannot_be_converted(matrix, text, reader, tmp_path):
    write(tmp_path / "a.mkv", [coded(chart(), "yuv420p10le", 9)], tags=(9, 16, matrix, 1))
    with pytest.raises(ValueError, match=f"a.mkv: .*{text}"):
        reader(tmp_path / "a.mkv")


def test_dolby_vision_without_a_base_layer(tmp_path):
    path = write(tmp_path / "a.mp4", [coded(chart(), "yuv420p10le")] * 2, "libx265", options=X265, codec_tag="dvh1")
    with pytest.raises(ValueError, match=r"a\.mp4: Dolby Vision without a compatible base layer"):
        probe(path)
    tags = (9, 18, 9, 1)
    frames = [coded(hlg(chart()), "yuv420p10le", 9)] * 2
    path = write(tmp_path / "b.mp4", frames, "libx265", options=X265, tags=tags, codec_tag="dvh1")
    assert np.abs(first_patches(path) - TRUTH).max() <= 2
