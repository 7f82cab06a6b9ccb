"""The voice is heard at its full level, whatever channels there are."""

import numpy as np
import pytest

from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.sound_notes import sound_notes
from tests.media.sounds import tones, write

RATE = 16_000
VOICE = tones(RATE, 0.5)
OTHER = tones(RATE, 0.5, hertz=700)
NOISE = np.random.default_rng(0).normal(0, 0.02, RATE).astype(np.float32)
LAYOUTS = {
    "mono": ["FC"],
    "stereo": ["FL", "FR"],
    "quad": ["FL", "FR", "BL", "BR"],
    "5.1": ["FL", "FR", "FC", "LFE", "BL", "BR"],
    "5.1(side)": ["FL", "FR", "FC", "LFE", "SL", "SR"],
    "7.1": ["FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"],
    "hexadecagonal": [str(k) for k in range(16)],
}

# layout, channels, what the voice is, part of the note
MIXES = {
    "mono": ("mono", {"FC": VOICE}, VOICE, None),
    "the same on both sides": ("stereo", {"FL": VOICE, "FR": VOICE}, VOICE, None),
    "of different level": ("stereo", {"FL": VOICE, "FR": 0.5 * VOICE}, 0.75 * VOICE, None),
    "unrelated": ("stereo", {"FL": VOICE, "FR": OTHER}, (VOICE + OTHER) / 2, None),
    "left": ("stereo", {"FL": VOICE}, VOICE, "one-sided stereo: only the left channel is used, at its full level; the"),
    "right": ("stereo", {"FL": 0.01 * VOICE, "FR": VOICE}, VOICE, "the right channel is used, at its full level; the"),
    "right, with noise": ("stereo", {"FL": 0.1 * NOISE, "FR": VOICE}, VOICE, "the left is 3"),
    "out of phase": ("stereo", {"FL": VOICE, "FR": -VOICE}, VOICE, "cancel (correlation -1.00), so only the left"),
    "out of phase, uneven": ("stereo", {"FL": -0.5 * VOICE, "FR": VOICE}, VOICE, "so only the right channel is used"),
    "center": ("5.1", {"FL": NOISE, "FR": NOISE, "FC": VOICE, "LFE": VOICE}, VOICE, "6 channels: only the center is"),
    "center of 7.1": ("7.1", {"FC": VOICE, "BL": VOICE, "SR": NOISE}, VOICE, "8 channels: only the center is used"),
    "quiet center": ("5.1(side)", {"FC": 0.2 * VOICE, "FL": VOICE, "FR": VOICE}, 0.2 * VOICE, "only the center"),
    "empty center": ("5.1", {"FL": VOICE, "FR": VOICE}, VOICE, "the average of front left and front right"),
    "front left alone": ("5.1", {"FL": VOICE}, VOICE, "only the left channel is used"),
    "behind": ("5.1", {"BR": VOICE, "LFE": VOICE}, VOICE, "6 channels: only channel 6, the loudest, is used"),
    "quad": ("quad", {"FL": VOICE, "FR": VOICE}, VOICE, "the average of front left and front right"),
    "recorder": ("hexadecagonal", {"11": VOICE, "3": 0.3 * VOICE}, VOICE, "only channel 12, the loudest, is used"),
    "recorder, all": ("hexadecagonal", {str(k): VOICE for k in range(16)}, VOICE, "16 channels: only channel"),
}


# Matroska does not name the channels of PCM.
NEED_NAMES = {"quiet center", "empty center", "front left alone", "behind", "quad"}


WITHOUT_NAMES = [name for name in MIXES if name not in NEED_NAMES]


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, ".wav") for name in MIXES), *((name, ".mka") for name in WITHOUT_NAMES)]
)
def test_voice(name, suffix, tmp_path):
    layout, channels, voice, expected = MIXES[name]
    names = LAYOUTS[layout]
    samples = np.zeros((len(names), RATE), np.float32)
    for channel, content in channels.items():
        samples[names.index(channel)] = content
    path = write(tmp_path / f"a{suffix}", "pcm_f32le", samples, RATE, layout)
    np.testing.assert_allclose(read_sound(path), voice, atol=1e-6)
    notes = [note for note in sound_notes(path) if "channel" in note or "center" in note]
    assert len(notes) == (expected is not None)
    if expected and suffix == ".wav":
        assert expected in notes[0]


@pytest.mark.parametrize("layout", ["stereo", "5.1", "hexadecagonal"])
def test_silence(layout, tmp_path):
    path = write(tmp_path / "a.wav", "pcm_s16le", np.zeros((len(LAYOUTS[layout]), RATE)), RATE, layout)
    assert read_sound(path).tolist() == [0] * RATE
    assert "no sound: the audio track is silent (-120 dBFS)" in sound_notes(path)


def test_ambisonic_sound(tmp_path):
    samples = np.stack([VOICE, 2 * VOICE, 0 * VOICE, -VOICE])
    path = write(tmp_path / "a.mka", "libopus", np.repeat(samples, 3, 1), 48_000, "ambisonic 1", mapping_family="2")
    sound = read_sound(path)
    assert np.abs(sound).max() == pytest.approx(0.5, rel=0.1)
