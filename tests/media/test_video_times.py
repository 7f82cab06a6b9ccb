"""Rate and duration come from the time stamps; files that break off are refused; the start may be cut."""

import av
import numpy as np
import pytest

from ernerf_ti.media.images import write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import FrameCounts, probe, read_frames
from tests.media.clips import SOUND_RATE, beeps, encode, picture
from tests.media.coded import coded, write

X264 = {"crf": "20", "preset": "ultrafast"}
RNG = np.random.default_rng(4)
BROWSER = np.cumsum(np.r_[0, RNG.choice([16, 17, 33, 34, 50, 67], 80)]) / 1000
SCREEN = np.array([0, 0.033, 0.066, 0.5, 2.1, 2.133, 2.9, 3.0, 3.4])
LATE = np.arange(50) / 30 + np.arange(50) // 10 * 0.004


def ramp(n):
    """Gray pictures, each brighter than the one before."""
    return [coded(np.full((48, 64, 3), 0.05 + 0.9 * k / n), matrix=5) for k in range(n)]


def read(path, rate=25):
    counts = FrameCounts()
    return np.array([frame.mean() for frame in read_frames(path, rate, counts)]), counts


@pytest.mark.parametrize(
    ("name", "codec", "times", "live"),
    [
        ("a.webm", "libvpx", BROWSER, True),
        ("a.webm", "libvpx-vp9", BROWSER, False),
        ("a.mp4", "libx264", BROWSER, False),
        ("a.mkv", "mjpeg", BROWSER, True),
        ("screen.webm", "libvpx", SCREEN, True),
        ("screen.mp4", "libx264", SCREEN, False),
    ],
)
def test_variable_rate(name, codec, times, live, tmp_path):
    options = {"libx264": X264, "libvpx": {"crf": "4", "b": "2M"}, "libvpx-vp9": {"crf": "4", "b": "0"}}.get(codec, {})
    frames = ramp(len(times))
    if codec == "mjpeg":
        frames = [frame.reformat(format="yuvj420p") for frame in frames]
    write(tmp_path / name, frames, codec, times=times, options=options, live=live)
    info = probe(tmp_path / name)
    levels, counts = read(tmp_path / name)
    usual = np.median(np.diff(times))
    assert times[-1] < info.duration < times[-1] + usual + 0.05  # not each file tells how long the last frame is shown
    assert info.rate == pytest.approx(len(times) / info.duration, rel=1e-3)
    assert (counts.read, counts.gaps, counts.variable) == (len(times), 0, True)
    assert counts.longest_gap == pytest.approx(np.diff(times).max(), abs=2e-3)
    assert counts.standstills == (np.diff(times) > 0.2).sum()
    assert any(note.startswith("variable frame rate: a new frame after ") for note in info.notes)
    # Each frame is the nearest in time.
    wanted = np.array([np.abs(times - k / 25).argmin() for k in range(len(levels))])
    assert np.abs(levels - 255 * (0.05 + 0.9 * wanted / len(times))).max() < 255 * 0.9 / len(times) + 3
    assert counts.held == (np.diff(wanted) == 0).sum()


@pytest.mark.parametrize("rate", [24, 25, 30, 60, 15])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".webm", "libvpx")])
def test_constant_rate(rate, suffix, codec, tmp_path):
    path = write(tmp_path / f"a{suffix}", ramp(rate), codec, rate, options=X264 if codec == "libx264" else {})
    info, (levels, counts) = probe(path), read(path)
    assert info.rate == pytest.approx(rate, rel=0.02) and info.duration == pytest.approx(1, abs=0.02)
    assert info.notes == () and len(levels) == 25
    assert (counts.read, counts.gaps, counts.variable, counts.standstills) == (rate, 0, False, 0)


def test_true_gaps_and_standstills(tmp_path):
    times = np.delete(np.arange(60) / 30, [7, 20, 21, *range(40, 48)])
    path = write(tmp_path / "a.mp4", ramp(len(times)), "libx264", times=times, options=X264)
    _, counts = read(path)
    assert (counts.gaps, counts.variable, counts.standstills) == (3, False, 1)
    assert counts.longest_gap == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("start", [-0.5, 0.7, 5000.0])
@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_times_that_do_not_begin_at_zero(start, suffix, tmp_path):
    times = start + np.arange(20) / 25
    if suffix == ".ts" and start < 0:
        times += 10  # which has no negative ones
    path = write(tmp_path / f"a{suffix}", ramp(20), "libx264", times=times, options=X264)
    levels, counts = read(path)
    n = 7 if suffix == ".mp4" and start < 0 else 20  # an edit list leaves out what comes before 0
    assert len(levels) == counts.read == n and (np.diff(levels) > 0).all()
    assert probe(path).duration == pytest.approx(n / 25, abs=0.05)


def copied(source, target, first):
    """Copy packets from the `first` on, as recorders that are cut while they run."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for k, packet in enumerate(old.demux(stream)):
            if packet.dts is not None and k >= first:
                packet.stream = copy
                new.mux(packet)
    return target


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
        ("libx265", {"x265-params": "log-level=error:open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
        ("mpeg2video", {"g": "12", "bf": "2"}),
    ],
)
@pytest.mark.parametrize("first", [3, 12])
def test_a_start_that_cannot_be_decoded(codec, options, first, tmp_path):
    write(tmp_path / "a.ts", ramp(48), codec, options=options)
    levels, counts = read(copied(tmp_path / "a.ts", tmp_path / "b.ts", first))
    assert 24 <= len(levels) <= 48 - first + 3 and counts.read == len(levels)
    assert probe(tmp_path / "b.ts").duration <= 0.04 * 48
    whole, _ = read(tmp_path / "a.ts")
    # What is shown are pictures of the video, from one that is whole on.
    np.testing.assert_allclose(levels[-20:], whole[-20:], atol=4)
    assert all(np.abs(whole - level).min() < 6 for level in levels)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("faststart.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mov", "mjpeg", {"movflags": "faststart"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx", {}),
        ("a.avi", "mpeg4", {}),
    ],
)
@pytest.mark.parametrize("reader", [probe, read])
def test_truncated(reader, name, codec, options, kept, tmp_path):
    path, n = tmp_path / name, 12
    noise = np.random.default_rng(0).integers(0, 255, (n, 48, 64, 3), np.uint8)
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for image in noise:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode(None))
    assert len(read(path)[0]) == n
    data = path.read_bytes()
    path.write_bytes(data[: round(kept * len(data))])
    with pytest.raises(
        ValueError, match=rf"{name}: the file is truncated, [\d,]+ of at least [\d,]+ bytes; copy or rec"
    ):
        reader(path)


@pytest.mark.parametrize("reader", [probe, read])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif", ".tiff"])
def test_a_still_picture(suffix, reader, tmp_path):
    from PIL import Image

    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture(100)).save(path)
    with pytest.raises(ValueError, match=rf"a\{suffix}: expected a video, got a still picture; pass the video of the"):
        reader(path)


def test_an_animated_gif(tmp_path):
    path = write(tmp_path / "a.gif", [frame.reformat(format="rgb8") for frame in ramp(10)], "gif", 10)
    levels, counts = read(path)
    assert (len(levels), counts.read) == (25, 10) and probe(path).duration == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("reader", [probe, read])
def test_no_frame_that_can_be_decoded(reader, tmp_path):
    write(tmp_path / "a.mkv", ramp(6), "libx264", options={"x264-params": "keyint=100:scenecut=0:bframes=0"})
    with pytest.raises(ValueError, match=r"b\.mkv: the video track has no frames; record or convert the video again"):
        reader(copied(tmp_path / "a.mkv", tmp_path / "b.mkv", 3))


@pytest.mark.parametrize("reader", [probe, read])
def test_a_codec_that_nobody_knows(reader, tmp_path):
    path = write(tmp_path / "a.mp4", ramp(3), "libx264", options=X264)
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0", b"xyz1\0\0\0\0"))
    with pytest.raises(
        ValueError, match=r"a\.mp4: expected a video, got one in a codec that ffmpeg does not know; pass"
    ):
        reader(path)


def test_metadata_that_are_not_text(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        file.metadata["title"] = "Title of the video"
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.mux(stream.encode(ramp(1)[0]))
        file.mux(stream.encode(None))
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data.replace(b"Title of", b"\xff\x80\xffle of"))
    assert len(read(tmp_path / "a.mkv")[0]) == 1


def test_one_frame(tmp_path):
    path = write(tmp_path / "a.mp4", ramp(1), "libx264", options=X264)
    assert len(read(path)[0]) == 1 and probe(path).duration == pytest.approx(0.04)


def test_sound_and_pictures_agree_on_the_start(tmp_path):
    encode(tmp_path / "a.mkv", np.arange(25) / 25 + 0.4, [picture(10 * k) for k in range(25)], [(0, beeps([0.6], 1.4))])
    loud = np.flatnonzero(np.abs(read_sound(tmp_path / "a.mkv")) > 0.1)
    assert loud[0] / 16_000 == pytest.approx(0.2, abs=0.003)


@pytest.mark.parametrize(
    ("name", "codec", "options", "rate"),
    [
        ("a.mp4", "libx264", {**X264, "g": "20", "bf": "2"}, 25),
        ("a.mkv", "libx264", {**X264, "g": "20"}, 30000 / 1001),
        ("a.ts", "libx264", {**X264, "g": "100"}, 24),
    ],
)
def test_frames_from_one_on(name, codec, options, rate, tmp_path):
    n = 60
    write(tmp_path / name, ramp(n), codec, times=np.arange(n) / 30, options=options)
    frames = list(read_frames(tmp_path / name, rate))
    for start in (1, 33, len(frames) - 1, len(frames)):
        rest = list(read_frames(tmp_path / name, rate, start=start))
        assert len(rest) == len(frames) - start
        assert all((a == b).all() for a, b in zip(rest, frames[start:], strict=True))


def test_pictures_from_one_on(tmp_path):
    for k in range(5):
        write_image(tmp_path / f"{k}.png", np.full((4, 6, 3), 40 * k, np.uint8))
    assert [frame[0, 0, 0] for frame in read_frames(tmp_path, 25, start=3)] == [120, 160]


def test_sound_in_a_codec_that_nobody_knows(tmp_path):
    """As of the spatial sound of phones."""
    path = encode(tmp_path / "a.mov", np.arange(5) / 25, [picture(90)] * 5, [(0, beeps([0.1], 0.4))])
    assert probe(path).sound_rate == SOUND_RATE
    path.write_bytes(path.read_bytes().replace(b"mp4a\0\0\0\0", b"xyz1\0\0\0\0").replace(b"esds", b"free"))
    assert probe(path).sound_rate is None and len(read(path)[0]) == 5
    with pytest.raises(ValueError, match=r"a\.mov: ffmpeg does not know the codec of the audio track; convert it to"):
        read_sound(path)


def test_frames_of_avi_that_refer_to_later_ones(tmp_path):
    """The file has no times of showing, and stores frames in another order than that of showing."""
    n = 30
    write(tmp_path / "a.avi", ramp(n), "libx264", options={**X264, "bf": "3", "b-pyramid": "normal"})
    levels, counts = read(tmp_path / "a.avi")
    assert len(levels) == counts.read == n and counts.held == 0 and not counts.variable
    np.testing.assert_allclose(levels, 255 * (0.05 + 0.9 * np.arange(n) / n), atol=4)


def test_recordings_put_end_to_end(tmp_path):
    write(tmp_path / "a.ts", ramp(60), "libx264", options=X264)
    (tmp_path / "twice.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    for reader in (probe, read):
        with pytest.raises(ValueError, match=r"twice\.ts: the time stamps of the pictures begin again after 2\.3. s"):
            reader(tmp_path / "twice.ts")
