"""The sound of written videos: as the user's file has it, in time with the pictures."""

import av
import numpy as np
import pytest

from ernerf_ti.media.sound import probe_sound, read_sound, sound_chunks
from ernerf_ti.media.video import read_frames
from ernerf_ti.media.video_formats import Encoding, has_alpha
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter
from tests.media.clips import beeps, encode, onsets_of_beeps, onsets_of_flashes, picture
from tests.media.sound_files import write_sound_file

SECONDS = 1.0
COPIED, ENCODED = True, False


def voice(rate, n_channels):
    """[C, S]: in each channel another tone that comes and goes, and a sharp onset."""
    times = np.arange(round(rate * SECONDS)) / rate
    tones = [0.2 * np.sin(2 * np.pi * (300 + 60 * c) * times) for c in range(n_channels)]
    samples = np.stack(tones) * (np.sin(2 * np.pi * 3 * times) > 0)
    samples[:, rate // 2] = 0.9
    return samples


def write(path, sound, codec=None, n=25, rate=25):
    writer = VideoWriter(path, rate, sound, Encoding(codec), size=(64, 48))
    image = picture(90)
    if has_alpha(path, Encoding(codec)):
        image = np.concatenate((image, image[..., :1]), 2)
    for _ in range(n):
        writer.write(image)
    writer.finish()
    return path


def channels(path, rate=None):
    return np.concatenate(list(sound_chunks(path, rate)), 1)


def delay(samples, reference):
    """Samples by which the first is late, by cross-correlation."""
    n = min(len(samples), len(reference))
    spectrum = np.fft.rfft(samples[:n], 2 * n) * np.fft.rfft(reference[:n], 2 * n).conj()
    place = int(np.argmax(np.fft.irfft(spectrum)))
    return place - 2 * n if place > n else place


def level(samples):
    return 10 * np.log10(np.mean(samples**2))


def packets_of_sound(path):
    """(time in s, bytes) of each packet, as stamped in the file."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in file.demux(stream) if packet.size]


@pytest.mark.parametrize(
    ("source", "codec", "rate", "n_channels", "suffix", "pictures", "copied"),
    [
        ("a.wav", "pcm_s16le", 48_000, 2, ".mp4", "h264", ENCODED),
        ("a.wav", "pcm_s16le", 48_000, 2, ".mov", "prores", COPIED),
        ("a.wav", "pcm_s24le", 44_100, 1, ".mkv", "h264", COPIED),
        ("a.wav", "pcm_f32le", 44_100, 2, ".webm", "vp9", ENCODED),
        ("a.wav", "pcm_s16le", 8_000, 1, ".webm", "av1", ENCODED),
        ("a.wav", "pcm_s16le", 96_000, 2, ".mp4", "h264", ENCODED),
        ("a.flac", "flac", 44_100, 2, ".mp4", "h264", COPIED),
        ("a.flac", "flac", 96_000, 1, ".mov", "h264", ENCODED),
        ("a.mp3", "libmp3lame", 44_100, 2, ".mp4", "hevc", COPIED),
        ("a.mp3", "libmp3lame", 22_050, 1, ".mov", "h264", COPIED),
        ("a.mp3", "libmp3lame", 44_100, 2, ".mkv", "h264", ENCODED),
        ("a.m4a", "aac", 44_100, 2, ".mp4", "h264", COPIED),
        ("a.m4a", "aac", 48_000, 2, ".webm", "vp9", ENCODED),
        ("a.m4a", "aac", 48_000, 1, ".mov", "prores", ENCODED),
        ("a.m4a", "alac", 44_100, 2, ".mp4", "h264", ENCODED),
        ("a.aac", "aac", 48_000, 2, ".mp4", "h264", ENCODED),
        ("a.mka", "aac", 48_000, 2, ".mkv", "h264", COPIED),
        ("a.ogg", "libopus", 48_000, 1, ".webm", "vp9", COPIED),
        ("a.ogg", "libopus", 48_000, 1, ".mp4", "h264", COPIED),
        ("a.webm", "libopus", 48_000, 2, ".webm", "av1", COPIED),
        ("a.wav", "pcm_s16le", 48_000, 6, ".webm", "vp9", ENCODED),
        ("a.ac3", "ac3", 48_000, 6, ".mp4", "h264", ENCODED),
    ],
)
def test_sound_as_the_user_gave_it(source, codec, rate, n_channels, suffix, pictures, copied, tmp_path):
    given = write_sound_file(tmp_path / source, codec, voice(rate, n_channels), rate)
    out = write(tmp_path / f"out{suffix}", VideoSound.of_file(given, SECONDS), pictures)
    before, after = packets_of_sound(given), packets_of_sound(out)
    if copied:
        old, new = (b"".join(data for _, data in packets) for packets in (before, after))
        n = min(len(old), len(new))
        assert n >= 0.9 * len(old) and old[:n] == new[:n]
    info = probe_sound(out)
    assert info.channels == n_channels
    opus = info.codec in ("opus", "libopus")
    assert info.rate == (48_000 if opus else rate)
    assert abs(info.start) < 0.001
    expected, found = channels(given, 48_000), channels(out, 48_000)
    assert found.shape[1] / 48_000 == pytest.approx(SECONDS, abs=0.065)
    hiss = {3} if n_channels == 6 and info.codec == "aac" else set()  # the encoder cuts the bass channel off
    for c in set(range(n_channels)) - hiss:
        assert abs(delay(found[c], expected[c])) <= 24  # 0.5 ms
        assert level(found[c]) == pytest.approx(level(expected[c]), abs=0.15)
    # The same by the stamps in the file: the first packets lie before the pictures by what the decoder leaves out.
    first = after[0][0]
    assert -0.07 <= first <= 0.0005


def test_sound_that_begins_after_the_pictures_keeps_its_place(tmp_path):
    """Its packets are not copied, as they would begin at once."""
    given = encode(
        tmp_path / "late.mp4",
        np.arange(25) / 25,
        [picture(20)] * 25,
        [(0.25, beeps([0.25], 0.75))],
    )
    sound = VideoSound.of_file(given, 1.0)
    for suffix in (".mp4", ".mkv"):
        out = write(tmp_path / f"out{suffix}", sound, "h264")
        expected, found = (read_sound(path, 48_000) for path in (given, out))
        assert onsets_of_beeps(found, 48_000) == pytest.approx(onsets_of_beeps(expected, 48_000), abs=0.001)
        assert onsets_of_beeps(found, 48_000) == pytest.approx([0.5], abs=0.003)


def test_sound_with_a_gap_is_encoded_with_silence_in_it(tmp_path):
    given = tmp_path / "gap.mkv"
    encode(given, [0, 0.04], [picture(20)] * 2, [(0, beeps([0.1], 0.5)), (0.8, beeps([0.1], 0.5))])
    out = write(tmp_path / "out.mkv", VideoSound.of_file(given, 1.4), n=35)
    assert onsets_of_beeps(read_sound(out, 48_000), 48_000) == pytest.approx([0.1, 0.9], abs=0.003)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".webm", "vp9"), (".mov", "prores"), (".mkv", "av1")])
@pytest.mark.parametrize("rate", [25, 29.97])
def test_pictures_and_sound_are_in_time(suffix, codec, rate, tmp_path):
    path = tmp_path / f"a{suffix}"
    writer = VideoWriter(path, rate, VideoSound.of_samples(beeps([10 / rate, 20 / rate], 2), 44_100), Encoding(codec))
    for k in range(round(1.2 * rate)):
        image = picture(230 if k in (10, 20) else 20)
        alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
        writer.write(np.concatenate((image, alpha), 2) if codec in ("vp9", "prores") else image)
    writer.finish()
    flashes = onsets_of_flashes(read_frames(path, rate), rate)
    sound = read_sound(path, 48_000)
    heard = onsets_of_beeps(sound, 48_000)
    assert flashes == pytest.approx([10 / rate, 20 / rate])
    # A tone that rises from zero crosses the threshold of 0.1 after 0.03 ms.
    assert heard == pytest.approx(flashes, abs=0.001)


@pytest.mark.parametrize(("length", "duration"), [(0.9, 1.0), (1.3, 1.0)])
def test_encoded_sound_is_padded_or_cut_to_the_video(length, duration, tmp_path):
    samples = 0.2 * np.ones(round(length * 48_000), np.float32)
    sound = VideoSound.of_samples(samples, 48_000).lasting(duration)
    found = read_sound(write(tmp_path / "a.mov", sound), 48_000)
    assert len(found) == duration * 48_000
    kept = min(len(samples), len(found))
    np.testing.assert_allclose(found[:kept], 0.2, atol=1e-5)
    assert not found[kept:].any()


def test_sound_is_read_while_the_pictures_are_written(tmp_path):
    """However long it is, no more of it is held than goes with the next pictures."""
    read = []

    def chunks(rate):
        for k in range(100):
            read.append(k)
            yield np.zeros((2, rate // 10), np.float32)

    writer = VideoWriter(tmp_path / "a.mp4", 25, VideoSound(48_000, "stereo", chunks), size=(64, 48))
    for k in range(50):
        writer.write(picture(20))
        assert len(read) <= (k + 1) / 25 * 10 + 1
    writer.close()


def test_a_copied_file_is_read_while_the_pictures_are_written(tmp_path):
    given = write_sound_file(tmp_path / "a.flac", "flac", np.zeros((2, 48_000 * 5)), 48_000)
    writer = VideoWriter(tmp_path / "a.mkv", 25, VideoSound.of_file(given), size=(64, 48))
    for _ in range(25):
        writer.write(picture(20))
    writer.finish()
    assert probe_sound(tmp_path / "a.mkv").codec == "flac"
    assert channels(tmp_path / "a.mkv").shape[1] / 48_000 == pytest.approx(1, abs=0.1)


def test_values_that_are_no_numbers_are_silence(tmp_path):
    samples = np.full(48_000, 0.2, np.float32)
    samples[1000:2000] = np.nan
    found = read_sound(write(tmp_path / "a.mp4", VideoSound.of_samples(samples, 48_000)), 48_000)
    assert np.isfinite(found).all() and abs(found[1200:1800]).max() < 0.05


@pytest.mark.parametrize(("n", "kept"), [(4, 4), (6, 6), (8, 8), (9, 1)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_channels_that_the_file_does_not_name(n, kept, suffix, tmp_path):
    """They are kept where there is a usual order of so many, else averaged."""
    tone = 0.1 * np.sin(np.arange(48_000) * 0.01)
    sound = VideoSound(48_000, f"{n} channels", lambda rate: iter([np.repeat(tone[None], n, 0)]))
    out = write(tmp_path / f"a{suffix}", sound)
    assert probe_sound(out).channels == kept
    for channel in channels(out, 48_000):
        assert level(channel) == pytest.approx(level(tone), abs=0.3)
