import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from ernerf_ti.media.video import FrameCounts, VideoWriter, probe, read_frames, read_sound, write_video

HEIGHT, WIDTH = 48, 64
SOUND_RATE = 44_100
TICK = Fraction(1, 90_000)


def picture(level, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), level, np.uint8)


def beeps(times, length, rate=SOUND_RATE):
    """Silence of `length` seconds with a tone of 0.1 s at each time."""
    samples = np.zeros(round(length * rate), np.float32)
    tone = 0.5 * np.sin(np.arange(rate // 10) * (2 * np.pi * 1000 / rate))
    for time in times:
        samples[round(time * rate) :][: len(tone)] = tone
    return samples


def onsets_of_flashes(frames, rate=25):
    bright = np.array([frame.mean() > 128 for frame in frames])
    return np.flatnonzero(bright & ~np.r_[False, bright[:-1]]) / rate


def onsets_of_beeps(samples, rate=16_000):
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    return loud[np.r_[True, np.diff(loud) > rate // 20]] / rate


def encode(path, times, images, pieces=(), codec=("libx264", "aac"), container=None):
    """Write pictures at any times, and pieces of mono sound (begin in s, samples)."""
    with av.open(str(path), "w", format=container) as file:
        if len(images):
            stream = file.add_stream(codec[0], rate=25)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt, stream.time_base = "yuv420p", TICK
            stream.codec_context.time_base = TICK
        if pieces:
            sound = file.add_stream(codec[1], rate=SOUND_RATE, layout="mono")
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / TICK), TICK
            file.mux(stream.encode(frame))
        if len(images):
            file.mux(stream.encode(None))
        for begin, samples in pieces:
            for i in range(0, len(samples) - 1023, 1024):
                part = av.AudioFrame.from_ndarray(samples[None, i : i + 1024], format="fltp", layout="mono")
                part = av.AudioResampler(format=sound.format, layout="mono", rate=SOUND_RATE).resample(
                    _stamped(part, round(begin * SOUND_RATE) + i)
                )
                file.mux([packet for piece in part for packet in sound.encode(piece)])
        if pieces:
            file.mux(sound.encode(None))
    return path


def _stamped(frame, pts):
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, pts, Fraction(1, SOUND_RATE)
    return frame


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


@pytest.mark.parametrize("shift", [0.5, -0.5])
def test_sound_that_begins_later_or_earlier_than_the_pictures(shift, tmp_path):
    pictures_from, sound_from = max(0, -shift), max(0, shift)
    times = pictures_from + np.arange(50) / 25
    frames = [picture(230 if 25 <= k < 30 else 20) for k in range(50)]
    beep = pictures_from + 1.0  # when frame 25 is shown, on the clock of both
    encode(tmp_path / "a.mp4", times, frames, [(sound_from, beeps([beep - sound_from], 2.6 - sound_from))])
    flashes = onsets_of_flashes(read_frames(tmp_path / "a.mp4", 25))
    sound = read_sound(tmp_path / "a.mp4")
    assert flashes == pytest.approx([1.0])
    assert onsets_of_beeps(sound) == pytest.approx([1.0], abs=0.005)
    if shift > 0:
        assert np.abs(sound[: round(0.45 * 16_000)]).max() < 1e-3


def test_gaps_in_the_sound_are_silence(tmp_path):
    pieces = [(0, beeps([0.2], 0.5)), (1.5, beeps([0.25], 1))]
    path = encode(tmp_path / "a.mkv", np.arange(50) / 25, [picture(20)] * 50, pieces, ("libx264", "pcm_s16le"))
    assert onsets_of_beeps(read_sound(path)) == pytest.approx([0.2, 1.75], abs=0.003)


def test_sound_alone(tmp_path):
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(2).uniform(-0.5, 0.5, 8000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.round(samples * 32768).astype("<i2").tobytes())
    found = read_sound(path)
    assert found.dtype == np.float32 and found.shape == (8000,)
    np.testing.assert_allclose(found, samples, atol=1 / 32768)


@pytest.mark.parametrize(("left", "right"), [(0.9, 0.9), (0.8, 0.0), (0.6, -0.6)])
def test_stereo_is_averaged(left, right, tmp_path):
    path = tmp_path / "a.wav"
    tone = np.sin(np.arange(4000) * 0.1)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.round(np.outer(tone, [left, right]) * 32767).astype("<i2").tobytes())
    np.testing.assert_allclose(read_sound(path), tone * (left + right) / 2, atol=2e-4)


def test_sound_is_resampled(tmp_path):
    write_video(tmp_path / "a.mp4", [picture(20)] * 25, 25, beeps([0.1], 1), SOUND_RATE)
    for rate in (16_000, 48_000):
        sound = read_sound(tmp_path / "a.mp4", rate)
        assert sound.dtype == np.float32
        assert len(sound) / rate == pytest.approx(1, abs=0.05)
        tone = sound[round(0.12 * rate) : round(0.18 * rate)]
        crossings = np.count_nonzero(np.diff(tone > 0))
        assert crossings / 2 / 0.06 == pytest.approx(1000, rel=0.02)
        assert np.abs(tone).max() == pytest.approx(0.5, rel=0.1)


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
        write_video(tmp_path / f"{quality}.mp4", [image] * 3, 25, quality=quality)
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


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63)])
def test_odd_size(height, width, tmp_path):
    with pytest.raises(ValueError) as error:
        write_video(tmp_path / "a.mp4", [picture(20, height, width)], 25)
    assert f"frames: expected an even width and height, got {width}x{height}; video" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_other_sizes(tmp_path):
    with pytest.raises(ValueError) as error:
        write_video(tmp_path / "a.mp4", [picture(20), picture(20, 32, 32)], 25)
    assert "frames: expected shape [48, 64, 3] (from frame 0 and the kind of file), got [32, 32" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_frames(tmp_path):
    with pytest.raises(ValueError) as error:
        write_video(tmp_path / "a.mp4", [], 25)
    assert "frames: expected at least one, got none; see whether the range" in str(error.value)
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
    assert f"{path}: expected a file that ffmpeg reads, got " in str(error.value)
    assert str(error.value).endswith("; convert it first")


def test_no_sound_track(tmp_path):
    write_video(tmp_path / "a.mp4", [picture(20)] * 3, 25)
    with pytest.raises(ValueError) as error:
        read_sound(tmp_path / "a.mp4")
    assert f"{tmp_path / 'a.mp4'}: expected a sound track, got none; use a recording" in str(error.value)


@pytest.mark.parametrize("reader", ["probe", "read_frames"])
def test_no_pictures(reader, tmp_path):
    path = encode(tmp_path / "a.m4a", [], [], [(0, beeps([0.1], 1))], container="mp4")
    with pytest.raises(ValueError) as error:
        READERS[reader](path)
    assert f"{path}: expected a video, got a file without pictures; pass the video" in str(error.value)


def test_other_kinds_of_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file that ends in .mp4, .webm, .mov, got .avi; choose one"):
        VideoWriter(tmp_path / "a.avi", 25)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".webm", ".mov"])
def test_files_with_alpha_need_four_channels(suffix, tmp_path):
    with pytest.raises(ValueError, match=r"frames: expected shape \[48, 64, 4\] .*, got \[48, 64, 3\] in 0"):
        write_video(tmp_path / f"a{suffix}", [picture(20)], 25)
    assert not list(tmp_path.iterdir())
