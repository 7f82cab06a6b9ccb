"""Pictures come out upright, with square pixels, whole and of one size."""

from fractions import Fraction

import av
import numpy as np
import pytest

from ernerf_ti.media.video import FrameCounts, probe, read_frames
from tests.media.clips import beeps, picture
from tests.media.coded import coded, write

X264 = {"crf": "4", "preset": "ultrafast"}


def disk(height, width, level=0.9):
    """[H, W, 3] with an ellipse that fills three quarters of the picture."""
    y, x = np.mgrid[:height, :width]
    inside = ((x + 0.5 - width / 2) / (0.375 * width)) ** 2 + ((y + 0.5 - height / 2) / (0.375 * height)) ** 2 < 1
    return np.where(inside, level, 0.1)[..., None].repeat(3, 2)


def extent(frame):
    """Width and height of the bright part."""
    inside = frame[..., 0] > 128
    return tuple(int(np.ptp(np.flatnonzero(inside.any(axis)))) + 1 for axis in (0, 1))


@pytest.mark.parametrize(
    ("name", "codec", "aspect", "shown"),
    [
        ("a.mp4", "libx264", "4/3", (96, 96)),
        ("a.mkv", "libx264", "4/3", (96, 96)),
        ("a.mov", "prores_ks", "3/4", (54, 96)),
        ("a.avi", "mpeg4", "16/11", (105, 96)),
        ("a.mp4", "libx264", "64/45", (102, 96)),
        ("a.mp4", "libx264", "1/1", (72, 96)),
    ],
)
def test_pixels_become_square(name, codec, aspect, shown, tmp_path):
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    options = X264 if codec == "libx264" else {}
    path = write(tmp_path / name, [coded(disk(96, 72), pixels)] * 2, codec, aspect=aspect, options=options)
    info, frame = probe(path), next(read_frames(path, 25))
    assert (info.width, info.height) == frame.shape[1::-1] == shown
    np.testing.assert_allclose(extent(frame), 0.75 * np.array(shown), atol=1.01)
    expected = f"pixels that are not square ({aspect.replace('/', ':')}): 72x96 becomes {shown[0]}x{shown[1]}"
    assert info.notes == (() if aspect == "1/1" else (expected,))


def test_an_absurd_pixel_shape_is_ignored(tmp_path):
    path = write(tmp_path / "a.mp4", [coded(disk(96, 72))], "libx264", aspect="200/1", options=X264)
    assert (probe(path).width, probe(path).height) == (72, 96)


def with_display_matrix(path, matrix):
    """Write a, b, c, d, which take x, y to a x + c y, b x + d y, into the header of a track (ISO 14496-12)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    for i, value in zip((0, 1, 3, 4), matrix, strict=True):
        data[at + 4 * i : at + 4 * i + 4] = (value * 0x10000).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("aspect", ["1/1", "4/3"])
@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ],
)
def test_turned_and_mirrored(matrix, aspect, tmp_path):
    image = np.full((48, 72, 3), 0.1)
    image[:16, :24] = 0.9  # top left
    image[:16, 48:] = 0.5  # top right
    path = write(tmp_path / "a.mp4", [coded(image)] * 2, "libx264", aspect=aspect, options=X264)
    frame = next(read_frames(with_display_matrix(path, matrix), 25))
    a, b, c, d = matrix
    wide = 96 if aspect == "4/3" else 72
    assert frame.shape == ((48, wide, 3) if a else (wide, 48, 3))
    assert (probe(path).height, probe(path).width) == frame.shape[:2]
    middle = np.array(frame.shape[1::-1]) / 2
    for corner, level in (((-1, -1), 0.9), ((1, -1), 0.5), ((-1, 1), 0.1), ((1, 1), 0.1)):
        x, y = a * corner[0] + c * corner[1], b * corner[0] + d * corner[1]
        column, row = (middle + 0.8 * middle * (x, y)).astype(int)
        assert abs(frame[row, column].mean() - 255 * level) < 8


def moving_fields(n, height=48, width=64, step=4):
    """Interlaced pictures of a bar that moves by `step` pixels from field to field, the top field first."""
    frames = []
    for k in range(n):
        image = np.full((height, width, 3), 0.1)
        for field in (0, 1):
            left = (2 * k + field) * step
            image[field::2, left : left + 16] = 0.9
        frames.append(image)
    return frames


def combing(frame):
    """How much a row differs from its neighbors, which are those of the other field."""
    rows = frame[4:-4, :, 1].astype(float)
    return np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean()


@pytest.mark.parametrize(
    ("name", "codec", "options", "lead"),
    [
        # The encoders that are not told which field is first write that it is the bottom one, which is 4 px ahead here.
        ("a.mp4", "libx264", {"x264-params": "tff=1", **X264}, 0),
        ("a.mp4", "libx264", {"x264-params": "bff=1", **X264}, 4),
        ("a.mkv", "mpeg2video", {"flags": "+ildct+ilme", "qmin": "1", "qmax": "2"}, 4),
        ("a.mov", "prores_ks", {"flags": "+ildct"}, 4),
    ],
)
def test_interlaced(name, codec, options, lead, tmp_path):
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    images = moving_fields(6)
    path = write(tmp_path / name, [coded(image, pixels) for image in images], codec, options=options)
    counts = FrameCounts()
    found = list(read_frames(path, 25, counts))
    assert (len(found), counts.read, counts.interlaced) == (6, 6, 6)
    assert probe(path).notes == ("interlaced: deinterlaced with bwdif, one frame from two fields",)
    assert max(map(combing, found[1:-1])) < 0.25 * min(combing(255 * image) for image in images)
    for k, frame in enumerate(found[1:-1], 1):  # the place of the bar in the first field
        bright = np.flatnonzero(frame[20, :, 1] > 128)
        assert abs(bright.mean() - (8 * k + 7.5 + lead)) < 2.5


def test_progressive_frames_are_not_deinterlaced(tmp_path):
    path = write(tmp_path / "a.mp4", [coded(disk(48, 64))] * 4, "libx264", options=X264)
    counts = FrameCounts()
    list(read_frames(path, 25, counts))
    assert counts.interlaced == 0 and probe(path).notes == ()


def changing(path, sizes, codec="libvpx"):
    """A WebM whose pictures change their size, as of a call over a network. `sizes`: (height, width, frames)."""
    with av.open(str(path), "w") as file:
        stream = None
        n = 0
        for height, width, count in sizes:
            context = av.CodecContext.create(codec, "w")
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base = Fraction(1, 1000)
            context.options = {"crf": "4", "b": "2M"}
            if stream is None:
                stream = file.add_stream(codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = Fraction(1, 1000)
            packets = []
            for _ in range(count):
                frame = coded(disk(height, width), matrix=5)
                frame.pts, frame.time_base = 40 * n, Fraction(1, 1000)
                n += 1
                packets += context.encode(frame)
            packets += context.encode(None)
            for packet in packets:
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                file.mux(packet)
    return path


def test_size_that_changes(tmp_path):
    path = changing(tmp_path / "a.webm", [(48, 64, 3), (96, 128, 15), (96, 72, 9)])
    counts = FrameCounts()
    frames = list(read_frames(path, 25, counts))
    assert len(frames) == 27 and {frame.shape for frame in frames} == {(96, 128, 3)}
    assert counts.resized == 12
    assert (probe(path).width, probe(path).height) == (128, 96)
    sizes = "64x48, 128x96, 72x96"
    assert f"the size of the picture changes ({sizes}): all frames are scaled to 128x96" in probe(path).notes
    for k in (0, 10):
        np.testing.assert_allclose(extent(frames[k]), (96, 72), atol=2.01)
    np.testing.assert_allclose(extent(frames[-1]), (54, 72), atol=2.01)
    assert frames[-1][:, :26].max() < 8 and frames[-1][:, -26:].max() < 8  # borders


@pytest.mark.parametrize(("suffix", "used"), [(".mp4", 0), (".mkv", 1)])
def test_several_tracks(suffix, used, tmp_path):
    # Of MP4 only the first is marked as the one to show; without marks it is the largest.
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as file:
        streams = []
        for height, width in ((48, 64), (96, 128)):
            streams.append(file.add_stream("libx264", rate=25, options=X264))
            streams[-1].height, streams[-1].width, streams[-1].pix_fmt = height, width, "yuv420p"
        for stream in streams:
            for _ in range(3):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(100, stream.height, stream.width))))
            file.mux(stream.encode(None))
    info = probe(path)
    assert (info.width, info.height) == (64 << used, 48 << used)
    assert info.notes == (f"2 video tracks: track {used} is used",)
    assert next(read_frames(path, 25)).shape == (48 << used, 64 << used, 3)


def with_cover(path, moving):
    with av.open(str(path), "w") as file:
        cover = file.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 200, 200, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = file.add_stream("aac", rate=44_100, layout="mono")
        video = file.add_stream("libx264", rate=25, options=X264) if moving else None
        if moving:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for _ in range(5):
                file.mux(video.encode(av.VideoFrame.from_ndarray(picture(100))))
            file.mux(video.encode(None))
        file.mux(cover.encode(av.VideoFrame.from_ndarray(picture(200, 200, 200))))
        file.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(beeps([0.02], 0.2)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("reader", [probe, lambda path: list(read_frames(path, 25))])
def test_a_cover_is_not_the_video(reader, tmp_path):
    path = with_cover(tmp_path / "cover.mp4", moving=False)
    with pytest.raises(ValueError, match=r"cover\.mp4: expected a video, got a file with a cover picture alone; pass"):
        reader(path)
    path = with_cover(tmp_path / "a.mp4", moving=True)
    assert (probe(path).width, probe(path).codec, probe(path).notes) == (64, "h264", ())
    assert len(list(read_frames(path, 25))) == 5
