"""Sound of every rate, sample format, codec and container: heard on time and at its level."""

import av
import numpy as np
import pytest

from ernerf_ti.media.sound import probe_sound, read_sound, sound_chunks
from tests.media.sounds import ONSETS, heard, tones, write

MILLISECOND = 0.001

# name -> file name, codec, rate, delay in seconds where the file does not tell that of the encoder, error of the level
SOUND_FILES = {
    "WAV": ("a.wav", "pcm_s16le", 44_100, 0, 0.01),
    "W64": ("a.w64", "pcm_s16le", 44_100, 0, 0.01),
    "CAF": ("a.caf", "pcm_s16be", 44_100, 0, 0.01),
    "AIFF": ("a.aiff", "pcm_s16be", 44_100, 0, 0.01),
    "AU": ("a.au", "pcm_s16be", 44_100, 0, 0.01),
    "A-law": ("a.wav", "pcm_alaw", 8000, 0, 0.02),
    "mu-law": ("a.wav", "pcm_mulaw", 8000, 0, 0.05),
    "IMA ADPCM": ("a.wav", "adpcm_ima_wav", 44_100, 0, 0.05),
    "MS ADPCM": ("a.wav", "adpcm_ms", 44_100, 0, 0.05),
    "FLAC": ("a.flac", "flac", 44_100, 0, 0.01),
    "ALAC": ("a.m4a", "alac", 44_100, 0, 0.01),
    "FLAC in Ogg": ("a.oga", "flac", 44_100, 0, 0.01),
    "MP3": ("a.mp3", "libmp3lame", 44_100, 0, 0.05),
    "MP3, 16 kHz": ("a.mp3", "libmp3lame", 16_000, 0, 0.05),
    "AAC in MP4": ("a.m4a", "aac", 44_100, 0, 0.05),
    "AAC in MOV": ("a.mov", "aac", 48_000, 0, 0.05),
    "AAC in Matroska": ("a.mka", "aac", 44_100, 0, 0.05),
    "AAC alone": ("a.aac", "aac", 44_100, 1024 / 44_100, 0.05),
    "AAC in MPEG-TS": ("a.ts", "aac", 44_100, 1024 / 44_100, 0.05),
    "MP2 in MPEG-TS": ("a.ts", "mp2", 44_100, 481 / 44_100, 0.05),
    "Opus": ("a.opus", "libopus", 48_000, 0, 0.05),
    "Opus in Ogg": ("a.ogg", "libopus", 48_000, 0, 0.05),
    "Opus in WebM": ("a.webm", "libopus", 48_000, 0, 0.05),
    "Opus in MP4": ("a.mp4", "libopus", 48_000, 0, 0.05),
    "AC-3": ("a.ac3", "ac3", 48_000, 256 / 48_000, 0.05),
    "AMR": ("a.amr", "libopencore_amrnb", 8000, 0.0106, 0.1),
}


@pytest.mark.parametrize("name", SOUND_FILES)
def test_sound_files(name, tmp_path):
    file_name, codec, rate, delay, error = SOUND_FILES[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no encoder {codec}")
    path = write(tmp_path / file_name, codec, tones(rate), rate)
    sound, info = read_sound(path), probe_sound(path)
    assert sound.dtype == np.float32 and 1 - MILLISECOND <= len(sound) / 16_000 < 1.05
    assert heard(sound) - delay == pytest.approx(ONSETS, abs=MILLISECOND)
    assert np.abs(sound).max() == pytest.approx(0.5, rel=error)
    assert (info.rate, info.channels, info.layout, info.start) == (rate, 1, "mono", 0)
    assert info.duration == pytest.approx(1, abs=0.05)


# With pictures, the time stamps count in the delay of the encoder.
VIDEO_FILES = {
    "MP4, AAC": ("a.mp4", "aac", 44_100),
    "MP4, MP3": ("a.mp4", "libmp3lame", 44_100),
    "MP4, Opus": ("a.mp4", "libopus", 48_000),
    "MOV, PCM": ("a.mov", "pcm_s24le", 48_000),
    "Matroska, AAC": ("a.mkv", "aac", 44_100),
    "Matroska, MP3": ("a.mkv", "libmp3lame", 44_100),
    "Matroska, FLAC": ("a.mkv", "flac", 96_000),
    "Matroska, PCM": ("a.mkv", "pcm_s16le", 11_025),
    "WebM, Opus": ("a.webm", "libopus", 48_000),
    "MPEG-TS, AAC": ("a.ts", "aac", 48_000),
    "MPEG-TS, MP2": ("a.ts", "mp2", 32_000),
    "FLV, AAC": ("a.flv", "aac", 44_100),
}


@pytest.mark.parametrize("start", [0, 0.48])
@pytest.mark.parametrize("name", VIDEO_FILES)
def test_sound_of_videos(name, start, tmp_path):
    file_name, codec, rate = VIDEO_FILES[name]
    path = write(tmp_path / file_name, codec, tones(rate), rate, start=start, pictures=3)
    sound = read_sound(path)
    assert heard(sound) - start == pytest.approx(ONSETS, abs=MILLISECOND)
    assert np.abs(sound).max() == pytest.approx(0.5, rel=0.05)
    assert probe_sound(path).start == pytest.approx(start, abs=0.03)  # the encoder's delay, heard or not
    own = np.concatenate(list(sound_chunks(path)), 1)
    assert heard(own[0], rate) - start == pytest.approx(ONSETS, abs=MILLISECOND)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 88_200, 96_000, 192_000])
def test_sample_rates(rate, tmp_path):
    path = write(tmp_path / "a.wav", "pcm_f32le", 0.5 * np.sin(2 * np.pi * 3000 * np.arange(rate) / rate), rate)
    sound = read_sound(path)
    assert sound.shape == (16_000,)
    expected = 0.5 * np.sin(2 * np.pi * 3000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(sound[200:-200], expected[200:-200], atol=1e-5)


def test_nothing_is_folded_down_from_above_the_new_band(tmp_path):
    for hertz in (9000, 15_000):
        path = write(tmp_path / "a.wav", "pcm_f32le", np.sin(2 * np.pi * hertz * np.arange(48_000) / 48_000), 48_000)
        assert np.abs(read_sound(path)[200:-200]).max() < 1e-5


INTEGERS = {"pcm_u8": 8, "pcm_s16le": 16, "pcm_s24le": 24, "pcm_s32le": 32, "pcm_s64le": 64, "flac": 16, "alac": 16}


@pytest.mark.parametrize("codec", [*INTEGERS, "pcm_f32le", "pcm_f64le"])
def test_samples_are_exact(codec, tmp_path):
    steps = 2.0 ** (min(24, INTEGERS.get(codec, 24)) - 1)
    samples = np.random.default_rng(0).integers(-steps, steps, 8000) / steps
    path = write(tmp_path / ("a.m4a" if codec == "alac" else "a.wav"), codec, samples, 16_000)
    found = read_sound(path)
    assert np.array_equal(found[:8000], samples.astype(np.float32))
    assert not found[8000:].any()


@pytest.mark.parametrize("options", [{"rf64": "always"}, {"write_bext": "1"}])
def test_broadcast_wave_and_rf64(options, tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w", container_options=options) as file:
        file.metadata["description"] = "x"
        stream = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 8192, np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    assert read_sound(tmp_path / "a.wav").tolist() == [0.25] * 1600


CHANNELS = {"stereo": 2, "5.1": 6, "7.1": 8, "hexadecagonal": 16}
LAYOUTS_OF_AAC = [("a.m4a", "aac", layout) for layout in ("stereo", "5.1", "7.1")]


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [*(("a.wav", "pcm_s16le", layout) for layout in CHANNELS), ("a.mka", "pcm_f32le", "7.1"), *LAYOUTS_OF_AAC],
)
def test_all_channels_come_in_chunks(name, codec, layout, tmp_path):
    n = CHANNELS[layout]
    levels = 0.1 + 0.05 * np.arange(n)
    path = write(tmp_path / name, codec, levels[:, None] * tones(48_000, 1), 48_000, layout)
    for rate in (48_000, 16_000):
        chunks = list(sound_chunks(path, rate))
        assert all(chunk.dtype == np.float32 and chunk.shape[1] for chunk in chunks)
        sound = np.concatenate(chunks, 1)
        assert len(sound) == n == probe_sound(path).channels
        keeps = slice(None) if codec != "aac" or n == 2 else [k for k in range(n) if k != 3]  # low frequencies
        np.testing.assert_allclose(np.abs(sound).max(1)[keeps], levels[keeps], rtol=0.1)
        assert heard(sound[-1], rate) == pytest.approx(ONSETS, abs=MILLISECOND)


def test_cover_art_is_no_picture(tmp_path):
    with av.open(str(tmp_path / "a.mp3"), "w") as file:
        cover = file.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 8, 8, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = file.add_stream("libmp3lame", rate=16_000, layout="mono")
        frame = av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")
        file.mux([*cover.encode(frame), *cover.encode(None)])
        frame = av.AudioFrame.from_ndarray(tones(16_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for part in av.AudioResampler("fltp", "mono", 16_000, 576).resample(frame):
            file.mux(sound.encode(part))
        file.mux(sound.encode(None))
    with av.open(str(tmp_path / "a.mp3")) as file:
        assert len(file.streams.video) == 1
    assert heard(read_sound(tmp_path / "a.mp3")) == pytest.approx(ONSETS, abs=MILLISECOND)
