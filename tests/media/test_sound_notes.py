"""What is said about a sound, with the measured values, and what is refused."""

import struct

import av
import numpy as np
import pytest

from ernerf_ti.media.sound import probe_sound, read_sound
from ernerf_ti.media.sound_notes import sound_notes
from tests.media.sounds import add_sound, encode, heard, tones, write

RATE = 48_000
TIME = np.arange(4 * RATE) / RATE
SPEECH = (0.2 * np.sin(2 * np.pi * 300 * TIME) * (np.sin(2 * np.pi * 3 * TIME) > -0.3)).astype(np.float32)

NOTES = {
    "good": ("pcm_s16le", SPEECH, None),
    "silent": ("pcm_s16le", 0 * SPEECH, "no sound: the audio track is silent (-120 dBFS)"),
    "near silence": ("pcm_s24le", 2e-4 * SPEECH, "no sound: the audio track is silent (-9"),
    "a constant": ("pcm_f32le", 0 * SPEECH + 0.3, "no sound: the audio track is silent (-1"),
    "quiet": ("pcm_s16le", 0.02 * SPEECH, "quiet sound: speech at -51 dBFS; record from closer"),
    "clipped": ("pcm_s16le", np.clip(10 * SPEECH, -1, 1), "clipped sound: 39.6"),
    "clipped, 8 bit": ("pcm_u8", np.clip(10 * SPEECH, -1, 1), "clipped sound: 39.6"),
    "above full scale": ("pcm_f32le", 10 * SPEECH, "of the samples at full scale, up to 6.0 dB above it, which is cut"),
    "DC": ("pcm_s16le", SPEECH + 0.1, "DC offset: the mean of the samples is 0.100 of full scale"),
    "pauses": ("pcm_s16le", SPEECH * (TIME < 1), "little speech: 8"),
}


@pytest.mark.parametrize("name", NOTES)
def test_levels(name, tmp_path):
    codec, samples, expected = NOTES[name]
    notes = sound_notes(write(tmp_path / "a.wav", codec, samples, RATE))
    if expected is None:
        assert notes == []
    else:
        assert any(expected in note for note in notes)
        assert len(notes) == (2 if name == "a constant" else 1)


def test_low_rate(tmp_path):
    assert sound_notes(write(tmp_path / "a.wav", "pcm_alaw", SPEECH[::6], 8000)) == [
        "low sample rate: 8000 Hz, nothing above 4000 Hz; record at 16000 Hz or more"
    ]


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_the_default_of_several_tracks_is_used(suffix, default, tmp_path):
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as file:
        streams = [add_sound(file, "aac", RATE, "mono") for _ in range(2)]
        for k, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if k == default else av.stream.Disposition(0)
        for k, stream in enumerate(streams):
            encode(file, stream, tones(RATE, onsets=[0.3 + 0.2 * k])[None])
    assert heard(read_sound(path)) == pytest.approx([0.3 + 0.2 * default], abs=0.001)
    assert f"2 audio tracks: track {default + 1}, the default, is used" in sound_notes(path)


def test_length_of_sound_and_pictures(tmp_path):
    for seconds, expected in ((4, "the sound ends 2.0"), (1, "the sound ends 1.0")):
        path = write(tmp_path / "a.mp4", "aac", SPEECH[: seconds * RATE], RATE, pictures=50)
        (note,) = (note for note in sound_notes(path) if "ends" in note)
        assert note.startswith(expected)
        assert note.endswith("s after the pictures" if seconds == 4 else "s before the pictures")


WHOLE = {
    "a.wav": "pcm_s16le",
    "a.aiff": "pcm_s16be",
    "a.flac": "flac",
    "a.mp3": "libmp3lame",
    "a.aac": "aac",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_broken_off_file_is_read_as_far_as_it_goes(name, tmp_path):
    path = write(tmp_path / name, WHOLE[name], SPEECH + 0.01 * np.sin(TIME**3 * 1e3), RATE)
    assert not any("broken off" in note for note in sound_notes(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert len(read_sound(path)) / 16_000 == pytest.approx(2.3, abs=0.3)
    assert any(note.startswith("broken off: ") and " 2." in note for note in sound_notes(path))
    assert probe_sound(path).duration < 2.6


@pytest.mark.parametrize("name", ["a.mp3", "a.aac", "a.m4a", "a.ac3"])
def test_garbage_in_the_middle_is_an_error(name, tmp_path):
    codec = {".mp3": "libmp3lame", ".ac3": "ac3"}.get(name[1:], "aac")
    path = write(tmp_path / name, codec, SPEECH + 0.01 * np.sin(TIME**3 * 1e3), RATE)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + np.random.default_rng(0).bytes(2000) + data[middle + 2000 :])
    with pytest.raises(ValueError, match=rf"{name}: the audio data are damaged after [12]\.\d\d s; copy or convert"):
        read_sound(path)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.ts"])
def test_packets_with_a_wrong_checksum_become_silence(name, tmp_path):
    codec = {"a.flac": "flac", "a.ogg": "libopus", "a.ts": "aac"}[name]
    path = write(tmp_path / name, codec, SPEECH + 0.01 * np.sin(TIME**3 * 1e3), RATE)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + np.random.default_rng(0).bytes(2000) + data[middle + 2000 :])
    assert len(read_sound(path)) / 16_000 == pytest.approx(4, abs=0.04)
    assert any("1 gap, the first at " in note for note in sound_notes(path))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 32768])
@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
def test_samples_that_can_not_be(codec, value, tmp_path):
    samples = SPEECH.copy()
    samples[2 * RATE] = value
    path = write(tmp_path / "a.wav", codec, samples, RATE)
    with pytest.raises(ValueError, match=r"a\.wav: expected samples between -1 and 1, got .* after 2\.00 s; export"):
        read_sound(path)


def test_a_title_that_is_not_utf_8(tmp_path):
    path = write(tmp_path / "a.wav", "pcm_s16le", SPEECH, RATE)
    title = b"INFOINAM" + (4).to_bytes(4, "little") + "Jürg".encode("latin-1")
    path.write_bytes(path.read_bytes() + b"LIST" + len(title).to_bytes(4, "little") + title)
    assert len(read_sound(path)) == 4 * 16_000


def header(rate=16_000, channels=1, size=None, data=bytes(32_000)):
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate, 2, 16)
    body = b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("size", [320_000, 0x7FFFFFFF, 0xFFFFFFFF, 0])
def test_a_header_that_claims_more_than_the_file_holds(size, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(header(size=size, data=(SPEECH[:RATE:3] * 32767).astype("<i2").tobytes()))
    assert len(read_sound(path)) == 16_000
    # The last sizes are those of programs that could not go back to the header.
    said = ["broken off: the file states 10.00 s of sound, but holds 1.00 s"] if size == 320_000 else []
    assert sound_notes(path) == said


CLAIMS = [{"rate": 0}, {"rate": 1}, {"rate": 10**9}, {"rate": 2**31 - 1}, {"channels": 0}, {"channels": 65_535}]


@pytest.mark.parametrize("claim", CLAIMS)
def test_headers_that_can_not_be(claim, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(header(**claim))
    with pytest.raises(ValueError, match=r"a\.wav: ") as error:
        read_sound(path)
    assert "\n" not in str(error.value)
