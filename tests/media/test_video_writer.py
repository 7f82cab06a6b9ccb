"""Written videos: codecs, containers, time stamps and what goes wrong."""

import re
import resource
import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from ernerf_ti.media.video import read_frames
from ernerf_ti.media.video_formats import CODECS, CONTAINERS, Encoding, codec_of, exact_rate, has_alpha
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter
from tests.media.clips import HEIGHT, WIDTH, picture

KINDS = [(suffix, codec) for suffix, container in CONTAINERS.items() for codec in container.codecs]
TONE = 0.3 * np.sin(np.arange(48_000 * 4) * 0.05).astype(np.float32)


def write(path, codec=None, n=10, rate=25, sound=None, image=None, **options):
    writer = VideoWriter(path, rate, sound, Encoding(codec, **options))
    image = picture(120) if image is None else image
    if has_alpha(path, Encoding(codec)):
        image = np.concatenate((image, np.full((*image.shape[:2], 1), 255, np.uint8)), 2)
    for _ in range(n):
        writer.write(image)
    writer.finish()
    return path


@pytest.mark.parametrize(("suffix", "codec"), KINDS)
def test_each_codec_in_each_container(suffix, codec, tmp_path, capfd):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, : WIDTH // 2], image[:, WIDTH // 2 :] = (200, 60, 40), (40, 180, 60)
    path = write(tmp_path / f"a{suffix}", codec, 12, 30, image=image)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = list(file.decode(stream))
        context, first = stream.codec_context, frames[0]
        assert len(frames) == 12
        assert [float(frame.time) for frame in frames] == pytest.approx(np.arange(12) / 30, abs=0.001)
        assert context.codec.canonical_name == codec
        assert (int(context.colorspace), int(context.color_range)) == (1, 1)
        assert (int(context.color_primaries), int(context.color_trc)) == (1, 1)
        assert (int(first.colorspace), int(first.color_range)) == (1, 1)
        assert (context.sample_aspect_ratio or 1) == 1  # 0 and None: not told
        if codec == "hevc" and suffix != ".mkv":
            assert context.codec_tag == "hvc1"
    assert np.abs(next(read_frames(path, 30)).astype(int) - image).mean() < 4
    data = path.read_bytes()
    if suffix in (".mp4", ".mov"):
        assert data.index(b"moov") < data.index(b"mdat")
        at = data.index(b"colr") + 4
        assert data[at : at + 10] == b"nclx" + bytes([0, 1, 0, 1, 0, 1]) or (
            data[at : at + 10] == b"nclc" + bytes([0, 1, 0, 1, 0, 1])
        )
    else:
        assert data.index(b"\x1c\x53\xbb\x6b") < data.index(b"\x1f\x43\xb6\x75")  # Cues before the first Cluster
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""  # the encoders keep quiet


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("suffix", "codec"), KINDS)
def test_videos_of_few_frames(suffix, codec, n, tmp_path):
    for attempt in range(4):  # encoders have filled missing times from memory at random
        path = write(tmp_path / f"{attempt}{suffix}", codec, n)
        with av.open(str(path)) as file:
            times = [float(frame.time) for frame in file.decode(video=0)]
        assert times == pytest.approx(np.arange(n) / 25, abs=0.001)


@pytest.mark.parametrize(("suffix", "codec"), KINDS)
def test_sound_lies_beside_its_pictures(suffix, codec, tmp_path):
    """In the order of the file, pictures and sound are never half a second apart."""
    sound = VideoSound.of_samples(np.stack((TONE, TONE)), 48_000)
    path = write(tmp_path / f"a{suffix}", codec, 100, 25, sound)
    with av.open(str(path)) as file:
        packets = sorted(
            (packet.pos, packet.stream.type, float(packet.dts * packet.time_base))
            for packet in file.demux()
            if packet.dts is not None and packet.size
        )
    reached = {"video": 0.0, "audio": 0.0}
    for _, kind, time in packets:
        reached[kind] = max(reached[kind], time)
        assert abs(reached["video"] - reached["audio"]) <= 0.5
    assert min(reached.values()) > 3.8


@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        *[(23.976, Fraction(24_000, 1001)), (29.97, Fraction(30_000, 1001)), (59.94, Fraction(60_000, 1001))],
        *[(23.98, Fraction(24_000, 1001)), (24, 24), (25.0, 25), (12.5, Fraction(25, 2)), (1, 1), (120, 120)],
    ],
)
def test_frame_rates(rate, exact):
    assert exact_rate(rate) == exact


@pytest.mark.parametrize("rate", [0, 0.99, 121, -25, float("nan"), float("inf")])
def test_impossible_frame_rates(rate):
    with pytest.raises(ValueError, match=r"fps: expected 1 to 120 frames per second, got"):
        exact_rate(rate)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_broadcast_rate_does_not_drift(suffix, tmp_path):
    path = write(tmp_path / f"a{suffix}", None, 60, 29.97)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        times = sorted(float(packet.pts * packet.time_base) for packet in file.demux(stream) if packet.size)
    assert times == pytest.approx(np.arange(60) * 1001 / 30_000, abs=0.00051 if suffix in (".webm", ".mkv") else 1e-4)


@pytest.mark.parametrize(
    ("name", "encoding", "text"),
    [
        ("a.avi", Encoding(), r"a.avi: expected a name that ends in .mp4, .webm, .mov, .mkv, got .avi"),
        ("a.mp4", Encoding("h265"), r"codec: expected one of h264, hevc, vp9, av1, prores, got h265"),
        ("a.mp4", Encoding("prores"), r"codec: .* h264, hevc, av1 for a.mp4, got prores; .* ends in .mov or .mkv"),
        (
            "a.mp4",
            Encoding(crf=52),
            r"crf: expected 0 \(best\) to 51 \(smallest\) for H.264, got 52; .* is 18",
        ),
        ("a.mp4", Encoding("av1", crf=0), r"crf: expected 1 \(best\) to 63 \(smallest\) for AV1, got 0"),
        ("a.mov", Encoding(crf=20), r"crf: expected none for ProRes, got 20; leave it out"),
        (
            "a.mp4",
            Encoding(preset="6"),
            r"preset: expected one of ultrafast, .* for H.264, got 6; .* is medium",
        ),
        ("a.webm", Encoding(preset="slow"), r"preset: expected one of 0, 1, .* for VP9, got slow; the default is 6"),
        ("a.mov", Encoding(preset="slow"), r"preset: expected none for ProRes, got slow; leave it out"),
    ],
)
def test_encodings_that_do_not_go_together(name, encoding, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        VideoWriter(tmp_path / name, 25, encoding=encoding)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("codec", CODECS)
def test_all_presets_and_the_ends_of_the_quality_can_be_opened(codec, tmp_path):
    suffix = next(suffix for suffix, container in CONTAINERS.items() if codec in container.codecs)
    kind = codec_of(tmp_path / f"a{suffix}", Encoding(codec))
    encodings = [Encoding(codec, preset=preset) for preset in kind.presets]
    encodings += [Encoding(codec, crf) for crf in (kind.crf or ())]
    for encoding in encodings or [Encoding(codec)]:
        VideoWriter(tmp_path / f"a{suffix}", 25, encoding=encoding, size=(256, 128)).close()
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_can_not_be_opened_is_seen_before_the_first_frame(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(OSError, match=rf"^{path}: can't write H\.264 of 40000x40000 pixels and its sound \("):
        VideoWriter(path, 25, size=(40_000, 40_000))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_full_disk_is_said_in_one_line(suffix, tmp_path):
    """A limit of the size of files stands for a full disk."""
    path = tmp_path / f"a{suffix}"
    encoding = Encoding(crf=None if suffix == ".mov" else 5)
    sound = VideoSound.of_samples(TONE, 48_000)
    n_channels = 4 if has_alpha(path, encoding) else 3
    images = np.random.default_rng(0).integers(0, 256, (60, 128, 128, n_channels), np.uint8)
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = VideoWriter(path, 25, sound, encoding, size=(128, 128), n_frames=len(images))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError) as error:  # noqa: PT012
            for image in images:
                writer.write(image)
            writer.finish()
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    message = str(error.value)
    assert str(path) in message and "the disk is full" in message and "\n" not in message
    # An encoder that writes at the end alone has taken all frames by then.
    estimated, at_least = re.findall(r"([0-9,]+) bytes are needed|more than the ([0-9,]+) bytes that were", message)[0]
    assert int((estimated or at_least).replace(",", "")) >= 200_000 + bool(estimated) and message.count("free") == 1
    assert not list(tmp_path.iterdir())
