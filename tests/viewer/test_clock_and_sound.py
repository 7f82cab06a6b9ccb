"""The clock, and the outputs whose time it takes."""

import sys
import types

import numpy as np
import pytest

from ernerf_ti.viewer.clock import PlaybackClock
from ernerf_ti.viewer.sound import DeviceOutput, SilentOutput, open_output

RATE = 1000


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Stream:
    """A sound device whose time is moved by hand: 100 samples a block, heard 0.25 s after they were asked for."""

    latency = 0.25

    def __init__(self, samplerate, channels, dtype, latency, callback):
        assert (samplerate, channels, dtype, latency) == (RATE, 1, "float32", 0.3)
        self.time, self._callback, self.blocks, self.started = 50.0, callback, [], False
        self.knows_when = True

    def start(self):
        self.started = True

    def stop(self):
        self.started = False

    def close(self):
        pass

    def run(self, n_blocks):
        for _ in range(n_blocks):
            block = np.full((100, 1), np.nan, np.float32)
            heard_at = self.time + self.latency if self.knows_when else 0.0
            self._callback(block, 100, types.SimpleNamespace(outputBufferDacTime=heard_at), None)
            self.blocks.append(block[:, 0])
            self.time += 0.1

    @property
    def heard_samples(self):
        return np.concatenate(self.blocks)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def clock(time):
    return PlaybackClock(SilentOutput(time=time), np.arange(2000, dtype=np.float32) / 2000, RATE, 25.0)


def test_pictures_follow_the_time(clock, time):
    assert (clock.duration, clock.n_frames, clock.frame()) == (2.0, 50, 0)
    clock.play()
    frames = []
    for passed in (0, 0.039, 0.041, 0.5, 1.999):
        time.now = 100 + passed
        frames.append(clock.frame())
    assert frames == [0, 0, 1, 12, 49]  # pictures are left out, whatever the rate at which they are asked for
    time.now = 100.5
    assert clock.frame(ahead=0.1) == 15


def test_pause_goes_on_from_there(clock, time):
    clock.play()
    time.now += 0.7
    clock.pause()
    time.now += 5
    assert clock.position == pytest.approx(0.7)
    clock.play()
    time.now += 0.1
    assert clock.position == pytest.approx(0.8)


def test_end_of_a_clip(clock, time):
    clock.play()
    time.now += 2.3
    assert clock.position == pytest.approx(0.3)
    assert clock.playing
    clock.loop = False
    time.now += 4
    assert (clock.position, clock.playing, clock.frame()) == (2.0, False, 49)
    clock.play()
    assert clock.position == 0


def test_seek_and_step(clock, time):
    clock.seek(1.02)
    assert clock.frame() == 25
    clock.step(1)
    assert clock.frame() == 26
    for _ in range(3):
        clock.step(-1)
    assert clock.frame() == 23
    clock.step(1000)
    assert clock.frame() == 49
    clock.seek(-3)
    assert clock.position == 0
    clock.play()
    clock.step(2)
    assert not clock.playing and clock.frame() == 2


def test_empty_sound_does_not_play(time):
    clock = PlaybackClock(SilentOutput(time=time), np.zeros(0, np.float32), RATE, 25.0)
    clock.play()
    assert (clock.playing, clock.frame(), clock.position) == (False, 0, 0.0)


def test_device_plays_every_sample_once(time):
    output = DeviceOutput(Stream, RATE)
    stream = output.stream
    clock = PlaybackClock(output, np.arange(1, 451, dtype=np.float32) / 450, RATE, 25.0)
    clock.loop = False
    clock.play()
    shown = []
    for _ in range(12):
        stream.run(1)
        shown.append(clock.frame())  # slow: 10 pictures a second
    sound = stream.heard_samples
    assert np.array_equal(sound[:450], clock.samples)
    assert not sound[450:].any()
    # After k blocks the first sample has been heard for 0.1 k - 0.25 s: pictures 0, 0, 1, 3, 6, ...
    assert shown[:6] == [0, 0, 1, 3, 6, 8]
    assert shown[-1] == 11 and not clock.playing


@pytest.mark.parametrize("knows_when", [True, False])
def test_time_includes_the_delay_of_the_device(knows_when):
    output = DeviceOutput(Stream, RATE)
    output.stream.knows_when = knows_when
    output.play(np.ones(1000, np.float32), RATE)
    assert output.heard() == 0
    output.stream.run(1)
    assert output.heard() == 0  # asked for, but not out yet
    output.stream.run(4)
    assert output.heard() == pytest.approx(0.25)
    output.stream.time += 0.02
    assert output.heard() == pytest.approx(0.27)  # between blocks, too


def test_stalled_device_stops_the_clock():
    output = DeviceOutput(Stream, RATE)
    output.play(np.ones(1000, np.float32), RATE)
    output.stream.run(3)
    output.stream.time += 5
    assert output.heard() == pytest.approx(0.3)  # all that it was given
    output.stream.run(2)
    assert output.heard() == pytest.approx(0.3)  # it continues later, not from an earlier time
    output.stream.run(2)
    assert output.heard() == pytest.approx(0.3 + 0.15)


def test_seek_on_a_device_begins_at_the_sample():
    output = DeviceOutput(Stream, RATE)
    clock = PlaybackClock(output, np.arange(1000, dtype=np.float32), RATE, 25.0)
    clock.play()
    output.stream.run(3)
    clock.seek(0.5)
    output.stream.run(1)
    assert output.stream.blocks[-1][0] == 500
    output.volume = 0.5
    output.stream.run(1)
    assert output.stream.blocks[-1][0] == 300
    clock.pause()
    output.stream.run(1)
    assert not output.stream.blocks[-1].any()


def test_another_rate_is_refused():
    with pytest.raises(ValueError, match="rate: expected 1000 samples per second, got 8000"):
        DeviceOutput(Stream, RATE).play(np.zeros(10, np.float32), 8000)


def test_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    output = open_output(RATE)
    assert isinstance(output, SilentOutput)
    assert "sounddevice is not installed; pip install" in output.note


def test_no_device(monkeypatch):
    class PortAudioError(Exception):
        pass

    def refuse(**options):
        raise PortAudioError("Error querying device -1\nmore")

    monkeypatch.setitem(
        sys.modules, "sounddevice", types.SimpleNamespace(OutputStream=refuse, PortAudioError=PortAudioError)
    )
    assert open_output(RATE).note == "silent: no sound device (Error querying device -1)"


def test_sound_device_is_used_if_there_is_one(monkeypatch):
    library = types.SimpleNamespace(OutputStream=Stream, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    output = open_output(RATE)
    assert isinstance(output, DeviceOutput) and output.note == "" and output.stream.started
    output.close()
    assert not output.stream.started
