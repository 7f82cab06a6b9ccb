import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest

from ernerf_ti.media import video_writer as module
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import FrameCounts, probe, read_frames
from ernerf_ti.media.video_formats import HARDWARE, Encoding
from ernerf_ti.media.video_writer import VideoWriter, hardware_encoding_problem, write_video
from tests.media.clips import HEIGHT, SOUND_RATE, WIDTH, beeps, encode, onsets_of_beeps, onsets_of_flashes, picture


def variable_times(length, seed=0):
    """Gaps of 1/60, 1/30 and 1/25 s, as of a phone."""
    gaps = np.random.default_rng(seed).choice([1 / 60, 1 / 30, 1 / 25], round(60 * length))
    times = np.r_[0, np.cumsum(gaps)]
    return times[times < length]


@pytest.mark.parametrize("rate", [25, 30, 30_000 / 1001, 24, 60, 50])
def test_flash_and_beep_stay_together(rate, tmp_path):
    n = round(3 * rate)
    starts = [round(time * rate) for time in (0.43, 1.27, 2.19)]
    bright = {k for start in starts for k in range(start, start + round(0.2 * rate))}
    frames = [picture(230 if k in bright else 20) for k in range(n)]
    samples = beeps([k / rate for k in starts], n / rate)
    assert write_video(tmp_path / "a.mp4", frames, rate, samples, SOUND_RATE) == n
    counts = FrameCounts()
    found = list(read_frames(tmp_path / "a.mp4", 25, counts))
    sound = read_sound(tmp_path / "a.mp4", 16_000)
    flashes, tones = onsets_of_flashes(found), onsets_of_beeps(sound)
    assert len(flashes) == len(tones) == 3
    # Half a frame, that of 24 fps being 20.8 ms, and what a tone needs to swell.
    assert np.abs(flashes - tones).max() < 0.0225
    assert np.abs(tones - np.array(starts) / rate).max() < 0.003
    assert len(found) == pytest.approx(25 * n / rate, abs=0.51)
    assert (counts.read, counts.gaps, counts.written) == (n, 0, len(found))
    assert len(sound) / 16_000 == pytest.approx(n / rate, abs=0.05)


def test_flash_and_beep_of_a_variable_rate(tmp_path):
    times = variable_times(3)
    starts = [times[np.searchsorted(times, time)] for time in (0.43, 1.27, 2.19)]
    frames = [picture(230 if any(s <= t < s + 0.2 for s in starts) else 20) for t in times]
    encode(tmp_path / "a.mp4", times, frames, [(0, beeps(starts, 3))])
    flashes = onsets_of_flashes(read_frames(tmp_path / "a.mp4", 25))
    tones = onsets_of_beeps(read_sound(tmp_path / "a.mp4"))
    assert len(flashes) == len(tones) == 3
    assert np.abs(flashes - tones).max() < 0.0225


def test_frames_that_are_missing(tmp_path):
    kept = [k for k in range(50) if k not in (10, 30, 31)]
    encode(tmp_path / "a.mp4", [k / 25 for k in kept], [picture(5 * k) for k in kept])
    counts = FrameCounts()
    levels = [frame.mean() / 5 for frame in read_frames(tmp_path / "a.mp4", 25, counts)]
    assert (counts.read, counts.gaps, counts.written) == (47, 2, 50)
    # Half a frame nearer to either side: a hole is filled by its neighbors, all else stays in its place.
    expected = np.arange(50)
    assert np.abs(np.delete(levels, [10, 30, 31]) - np.delete(expected, [10, 30, 31])).max() < 0.6
    assert np.abs(levels[10] - 10) < 1.6


def colors(height, width):
    """Smooth, and each channel different in each direction."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return np.stack((40 + 180 * x, 220 - 180 * y, 60 + 100 * x * y), -1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (720, 1280)])
def test_colors_come_back(height, width, tmp_path):
    image = colors(height, width)
    write_video(tmp_path / "a.mp4", [image] * 2, 25)
    for frame in read_frames(tmp_path / "a.mp4", 25):
        assert frame.shape == image.shape and frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - image).mean() < 2.5


def test_frames_come_back_in_order(tmp_path):
    levels = np.random.default_rng(1).integers(20, 230, 40)
    write_video(tmp_path / "a.mp4", [picture(level) for level in levels], 25)
    found = [frame.mean() for frame in read_frames(tmp_path / "a.mp4", 25)]
    np.testing.assert_allclose(found, levels, atol=2.5)


def test_probe(tmp_path):
    write_video(tmp_path / "a.mp4", [picture(20)] * 60, 30, beeps([], 2), SOUND_RATE)
    info = probe(tmp_path / "a.mp4")
    assert (info.width, info.height, info.codec, info.sound_rate) == (WIDTH, HEIGHT, "h264", SOUND_RATE)
    assert info.rate == pytest.approx(30)
    assert info.duration == pytest.approx(2, abs=0.01)
    write_video(tmp_path / "b.mp4", [picture(20)] * 5, 25)
    assert probe(tmp_path / "b.mp4").sound_rate is None


# A picture with one bright corner, as the camera stored it, and the corner where it belongs when shown.
# The matrix (a, b, c, d) takes x, y to a x + c y, b x + d y (ISO 14496-12, tkhd).
@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((1, 0, 0, 1), "tl"), ((0, 1, -1, 0), "tr"), ((-1, 0, 0, -1), "br"), ((0, -1, 1, 0), "bl")],
    ids=["upright", "90 clockwise", "180", "90 counter-clockwise"],
)
def test_rotation_noted_in_the_file(matrix, corner, tmp_path):
    path = tmp_path / "a.mp4"
    image = picture(20)
    image[:16, :16] = 230
    write_video(path, [image] * 5, 25)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    assert int.from_bytes(data[at : at + 4], "big") == 0x10000
    a, b, c, d = (value * 0x10000 for value in matrix)
    for i, value in ((0, a), (1, b), (3, c), (4, d)):
        data[at + 4 * i : at + 4 * i + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    turned = matrix[0] == 0
    height, width = (WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH)
    info = probe(path)
    assert (info.height, info.width) == (height, width)
    frames = list(read_frames(path, 25))
    assert len(frames) == 5
    for frame in frames:
        assert frame.shape == (height, width, 3) and frame.flags.c_contiguous
        corners = {"tl": frame[:8, :8], "tr": frame[:8, -8:], "bl": frame[-8:, :8], "br": frame[-8:, -8:]}
        assert max(corners, key=lambda name: corners[name].mean()) == corner


def test_metadata_comes_back(tmp_path):
    write_video(tmp_path / "a.mp4", [picture(20)] * 3, 25, metadata={"comment": "synthesised", "title": "Zoë"})
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.metadata["comment"] == "synthesised"
        assert file.metadata["title"] == "Zoë"


def test_quality_matters(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for quality in (18, 40):
        write_video(tmp_path / f"{quality}.mp4", [image] * 3, 25, encoding=Encoding(crf=quality))
    assert (tmp_path / "40.mp4").stat().st_size < 0.6 * (tmp_path / "18.mp4").stat().st_size


def test_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "a.mp4"

    def frames(n):
        for _ in range(n):
            assert not path.exists()
            yield picture(20)

    write_video(path, frames(5), 25)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("old")

    def frames():
        yield picture(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, frames(), 25, beeps([], 1), SOUND_RATE)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_hook_gets_the_complete_file_before_it_appears(tmp_path):
    path, seen = tmp_path / "a.mp4", []

    def sign(temporary):
        seen.append((len(list(read_frames(temporary, 25))), temporary.suffix, path.exists()))
        temporary.write_bytes(temporary.read_bytes() + b"signed")

    writer = VideoWriter(path, 25)
    writer.write(picture(20))
    writer.finish(sign)
    assert seen == [(1, ".mp4", False)]
    assert path.read_bytes().endswith(b"signed") and list(tmp_path.iterdir()) == [path]


def test_no_file_appears_if_the_hook_fails(tmp_path):
    def sign(temporary):
        raise ValueError("the key has expired")

    writer = VideoWriter(tmp_path / "a.mp4", 25)
    writer.write(picture(20))
    with pytest.raises(ValueError, match="the key has expired"):
        writer.finish(sign)
    writer.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63)])
def test_an_odd_size_is_made_even_by_repeating_the_last_pixels(height, width, tmp_path):
    image = np.tile(np.linspace(40, 200, width).astype(np.uint8)[None, :, None], (height, 1, 3))
    write_video(tmp_path / "a.mp4", [image] * 2, 25)
    frame = next(read_frames(tmp_path / "a.mp4", 25)).astype(int)
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame - np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")).mean() < 2.5


def test_frames_of_other_sizes(tmp_path):
    with pytest.raises(ValueError) as error:
        write_video(tmp_path / "a.mp4", [picture(20), picture(20, 32, 32)], 25)
    assert "frames: expected shape [48, 64, 3] (from the first frame and the format), got [32, 32" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_frames(tmp_path):
    with pytest.raises(ValueError) as error:
        write_video(tmp_path / "a.mp4", [], 25)
    assert "frames: expected at least one, got none; check the range" in str(error.value)
    assert list(tmp_path.iterdir()) == []


READERS = {"probe": probe, "read_frames": lambda path: list(read_frames(path, 25)), "read_sound": read_sound}


@pytest.mark.parametrize("reader", READERS)
def test_no_such_file(reader, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        READERS[reader](tmp_path / "a.mp4")
    assert f"{tmp_path / 'a.mp4'}: expected a video or sound file, got no such file" in str(error.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_not_a_video(reader, content, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        READERS[reader](path)
    assert f"{path}: ffmpeg can't read this as video or sound (" in str(error.value)
    assert str(error.value).endswith("; check the file, or convert it to MP4 or WAV")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\n<!DOCTYPE html><title>Sign in</title>", "a web page; download the video itself"),
        (b"<html>", "a web page; download"),
        (b"PK\x03\x04 and so on", "a ZIP archive; unpack it first"),
    ],
)
def test_a_download_that_is_no_video(reader, content, kind, tmp_path):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.mp4: expected a video or sound file, got {kind}"):
        READERS[reader](tmp_path / "a.mp4")


@pytest.mark.parametrize("reader", READERS)
def test_a_folder(reader, tmp_path):
    with pytest.raises(IsADirectoryError, match="expected a video or sound file, got a folder; pass"):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("reader", ["probe", "read_frames"])
def test_no_pictures(reader, tmp_path):
    path = encode(tmp_path / "a.m4a", [], [], [(0, beeps([0.1], 1))], container="mp4")
    with pytest.raises(ValueError) as error:
        READERS[reader](path)
    assert f"{path}: expected a video, got a file without a video track; pass the video" in str(error.value)


def test_other_kinds_of_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a name that ends in .mp4, .webm, .mov, .mkv, got .avi; choose one"):
        VideoWriter(tmp_path / "a.avi", 25)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".webm", ".mov"])
def test_files_with_alpha_need_four_channels(suffix, tmp_path):
    with pytest.raises(ValueError, match=r"frames: expected shape \[48, 64, 4\] .*, got \[48, 64, 3\] in frame 0"):
        write_video(tmp_path / f"a{suffix}", [picture(20)], 25)
    assert not list(tmp_path.iterdir())


def test_a_gap_of_hours_is_an_error(tmp_path):
    encode(tmp_path / "a.mkv", [0, 0.04, 36_000, 36_000.04], [picture(20)] * 4)
    frames = read_frames(tmp_path / "a.mkv", 25)
    with pytest.raises(ValueError, match=r"a\.mkv: no frames from 0\.04 to 36000\.00 s; the time stamps are damaged"):
        list(frames)


def test_hours_of_gaps_are_an_error(tmp_path):
    times = np.arange(0, 40 * 50.0, 50.0)
    encode(tmp_path / "a.mkv", times, [picture(20)] * len(times))
    frames = read_frames(tmp_path / "a.mkv", 25)
    with pytest.raises(ValueError, match=r"a\.mkv: no frames for 100\.00 of the first 100\.00 s; the time stamps are"):
        list(frames)


def test_damaged_frames_name_the_file(tmp_path):
    path = tmp_path / "a.mp4"
    images = np.random.default_rng(0).integers(0, 256, (20, HEIGHT, WIDTH, 3), np.uint8)
    write_video(path, images, 25)
    data = bytearray(path.read_bytes())
    half, quarter = len(data) // 2, len(data) // 4
    data[half : half + quarter] = bytes(quarter)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.mp4: the video data are damaged after 0\.\d\d s \(.*\); copy or convert"):
        list(read_frames(path, 25))


def test_colon_in_a_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_video(Path("take:1.mp4"), [picture(20)] * 3, 25) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["take:1.mp4"]
    assert len(list(read_frames(Path("take:1.mp4"), 25))) == 3


class _Recorder:
    """A file that notes the streams added to it."""

    def __init__(self, file, streams):
        self._file, self._streams = file, streams

    def add_stream(self, *arguments, **options):
        self._streams.append(self._file.add_stream(*arguments, **options))
        return self._streams[-1]

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *exception):
        return self._file.__exit__(*exception)


@pytest.mark.parametrize(
    ("suffix", "hardware", "codec", "options"),
    [
        (".mp4", False, "libx264", {"crf": "20", "preset": "medium"}),
        (
            *(".mp4", True, "h264_nvenc"),
            {"preset": "p5", "tune": "hq", "rc": "vbr", "cq": "20", "b": "0", "profile": "high"},
        ),
        (".mov", True, "prores_ks", {"profile": "4444"}),
    ],
)
def test_codec_of_hardware_encoding(suffix, hardware, codec, options, tmp_path, monkeypatch):
    streams, opened = [], av.open
    monkeypatch.setattr(av, "open", lambda *arguments, **options: _Recorder(opened(*arguments, **options), streams))
    encoding = Encoding(crf=None if suffix == ".mov" else 20)
    VideoWriter(tmp_path / f"a{suffix}", 25, encoding=encoding, hardware=hardware).close()
    (context,) = [stream.codec_context for stream in streams]
    assert context.name == codec and context.options == options
    assert (int(context.colorspace), int(context.color_primaries), int(context.color_trc)) == (1, 1, 1)
    assert not list(tmp_path.iterdir())


def test_hardware_encoding_or_why_not(tmp_path):
    level = av.logging.get_level()
    problem = hardware_encoding_problem(256, 256, 25)
    assert av.logging.get_level() == level
    if problem is None:
        writer = VideoWriter(tmp_path / "a.mp4", 25, hardware=True)
        for _ in range(5):
            writer.write(colors(256, 256))
        writer.finish()
        for frame in read_frames(tmp_path / "a.mp4", 25):
            assert np.abs(frame.astype(int) - colors(256, 256)).mean() < 2.5
    else:
        assert problem.startswith("h264_nvenc can't be used (") and "\n" not in problem


def test_an_encoder_is_tried_with_a_frame(monkeypatch):
    working = dataclasses.replace(HARDWARE, encoder="libx264", options={"crf": "{crf}"})
    monkeypatch.setattr(module, "HARDWARE", working)
    assert hardware_encoding_problem(64, 48, 30_000 / 1001) is None
    assert hardware_encoding_problem(63, 48, 25).startswith("libx264 can't be used (width not divisible by 2 (63x48)")
    monkeypatch.setattr(module, "HARDWARE", dataclasses.replace(working, encoder="h264_none"))
    assert hardware_encoding_problem(64, 48, 25).startswith("h264_none can't be used (")
