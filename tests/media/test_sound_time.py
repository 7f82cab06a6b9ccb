"""Sound is heard when its time stamps say, and time stamps that can't be are mended or refused."""

import numpy as np
import pytest

from ernerf_ti.media.sound import probe_sound, read_sound, sound_chunks
from ernerf_ti.media.sound_clock import Clock
from ernerf_ti.media.sound_frames import Findings, Piece
from ernerf_ti.media.sound_notes import sound_notes
from tests.media.sounds import ONSETS, heard, tones, write

RATE = 48_000
LATE = [0.2, 1.2, 2.2, 3.2]
SOUND = tones(RATE, length=4, onsets=LATE)
MILLISECOND = 0.001


@pytest.mark.parametrize("start", [0, 100, 3600, 90_000])
@pytest.mark.parametrize(
    ("name", "codec", "delay"),
    [("a.ts", "aac", 1024 / RATE), ("a.ogg", "libopus", 0), ("a.webm", "libopus", 0), ("a.mka", "pcm_s16le", 0)],
)
def test_sound_alone_begins_with_its_first_sample(name, codec, delay, start, tmp_path):
    path = write(tmp_path / name, codec, tones(RATE), RATE, start=start)
    sound = read_sound(path)
    assert heard(sound) - delay == pytest.approx(ONSETS, abs=MILLISECOND)
    assert len(sound) / 16_000 == pytest.approx(1, abs=0.05)
    assert probe_sound(path).start == 0
    assert [note for note in sound_notes(path) if "little speech" not in note] == []


@pytest.mark.parametrize("start", [-0.48, 0.48, 30])
def test_early_and_late_sound(start, tmp_path):
    # The pictures begin at 0; an early sound is one whose first packets have negative stamps.
    path = write(tmp_path / "a.mkv", "pcm_s16le", SOUND, RATE, start=start, pictures=2)
    onsets = np.array(LATE) + start
    assert heard(read_sound(path)) == pytest.approx(onsets[onsets >= 0], abs=MILLISECOND)
    expected = "0.48 s before the pictures; that much" if start < 0 else f"{start:.2f} s after the pictures; there"
    assert any(f"the sound begins {expected}" in note for note in sound_notes(path))


def test_sound_that_begins_a_minute_after_the_pictures_is_an_error(tmp_path):
    path = write(tmp_path / "a.mkv", "pcm_s16le", SOUND, RATE, start=61, pictures=2)
    with pytest.raises(ValueError, match=r"a\.mkv: the sound begins 61\.00 s after the pictures; the time stamps are"):
        read_sound(path)


def test_sound_that_ends_before_the_pictures_is_an_error(tmp_path):
    path = write(tmp_path / "a.mkv", "pcm_s16le", SOUND, RATE, start=-10, pictures=2)
    with pytest.raises(ValueError, match=r"a\.mkv: the sound ends 6\.00 s before the first picture; the time stamps"):
        read_sound(path)


# name -> time of a packet -> its time stamp, onsets for those in the file, tolerance, part of the note
STAMPS = {
    "gap": (lambda t: t if t < 1 else t + 0.5, lambda t: t + 0.5 * (t > 1), 0.001, "1 gap, the first at 1.0"),
    "lost packets": (lambda t: None if 1.5 < t < 2 else t, lambda t: t, 0.001, "1 gap, the first at 1.5"),
    "a lost packet": (lambda t: None if 1.5 < t < 1.519 else t, lambda t: t, 0.001, "1 gap, the first at 1.5"),
    "fast clock": (lambda t: t * 1.001, lambda t: t * 1.001, 0.001, None),
    "slow clock": (lambda t: t * 0.999, lambda t: t * 0.999, 0.001, None),
    "jitter": (lambda t: t + 0.01 * abs(np.sin(t * 1e4)), lambda t: t + 0.005, 0.004, None),
    "no stamps": (lambda t: 0, lambda t: t, 0.022, None),
}


@pytest.mark.parametrize("name", STAMPS)
@pytest.mark.parametrize(
    ("file_name", "codec"), [("a.mkv", "pcm_s16le"), ("a.mp4", "aac"), ("a.webm", "libopus"), ("a.ts", "aac")]
)
def test_time_stamps(name, file_name, codec, tmp_path):
    stamp, expected, tolerance, note = STAMPS[name]
    path = write(tmp_path / file_name, codec, SOUND, RATE, stamps=stamp, pictures=2)
    assert heard(read_sound(path)) == pytest.approx([expected(t) for t in LATE], abs=tolerance)
    notes = [text for text in sound_notes(path) if text.startswith("time stamps")]
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_one_wrong_stamp_changes_nothing(tmp_path):
    path = write(tmp_path / "a.webm", "libopus", SOUND, RATE, stamps=lambda t: t + 0.3 * (1 < t < 1.01), pictures=2)
    assert heard(read_sound(path)) == pytest.approx(LATE, abs=MILLISECOND)


def test_more_silence_than_can_be_is_an_error(tmp_path):
    # Each gap alone would be filled: a small file must not become hours.
    samples = tones(RATE, length=4)
    path = write(tmp_path / "a.mkv", "pcm_s16le", samples, RATE, stamps=lambda t: t + 50 * int(t / 0.5))
    with pytest.raises(ValueError, match=r"a\.mkv: no sound for 100\.00 of the first 101\.\d+ s; the time stamps are"):
        read_sound(path)


@pytest.mark.parametrize(("rates"), [(48_000, 48_000), (44_100, 48_000), (48_000, 44_100)])
@pytest.mark.parametrize(("layouts"), [("mono", "mono"), ("mono", "stereo"), ("stereo", "5.1"), ("5.1", "stereo")])
@pytest.mark.parametrize(("name", "codec"), [("a.oga", "flac"), ("a.ts", "aac")])
def test_rate_and_layout_that_change(name, codec, layouts, rates, tmp_path):
    joined, n, delay = tmp_path / f"joined-{name}", {"mono": 1, "stereo": 2, "5.1": 6}, 0.0
    begins, begin = [], 0.0
    for rate, layout in zip(rates, layouts, strict=True):
        path = write(tmp_path / name, codec, np.tile(tones(rate), (n[layout], 1)), rate, layout)
        with joined.open("ab") as file:
            file.write(path.read_bytes())
        delay = 1024 / rate if codec == "aac" else 0
        begins.append(begin + delay)
        begin += -(-(rate + 1024) // 1024) * 1024 / rate if codec == "aac" else 1
    sound = read_sound(joined)
    assert heard(sound) == pytest.approx([b + t for b in begins for t in ONSETS], abs=0.0015)
    assert np.abs(sound).max() == pytest.approx(0.5, rel=0.05)
    assert len(next(sound_chunks(joined))) == n[layouts[0]]
    if rates[0] != rates[1] or layouts[0] != layouts[1]:
        assert any(f"the sound changes: {rates[0]} Hz {layouts[0]}" in note for note in sound_notes(joined))


def pieces(times, n=1000, rate=50_000):
    return [Piece(np.full((1, n), float(k)), rate, ("FC",), "mono", time) for k, time in enumerate(times)]


def test_overlaps_are_cut():
    findings = Findings()
    times = [*np.arange(0, 1, 0.02), *np.arange(0.9, 2, 0.02)]
    clock = Clock("a.mkv", iter(pieces(times)), findings)
    sound = np.concatenate([piece.samples[0] for piece in clock.pieces()])
    assert len(sound) / 50_000 == pytest.approx(2, abs=0.021)
    assert sum(length for _, length in findings.overlaps) == pytest.approx(0.1, abs=0.021)
    last = 50 + 40  # stamped 1.70
    assert np.flatnonzero(sound == last)[0] / 50_000 == pytest.approx(times[last], abs=0.0011)


def test_a_clock_that_begins_again():
    findings = Findings()
    times = [*(100 + np.arange(0, 1, 0.02)), *np.arange(0, 1, 0.02)]
    clock = Clock("a.mkv", iter(pieces(times)), findings)
    assert clock.start == pytest.approx(100)
    sound = np.concatenate([piece.samples[0] for piece in clock.pieces()])
    assert len(sound) == 100_000 and len(findings.restarts) == 1 and not findings.overlaps
