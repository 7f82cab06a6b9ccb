import asyncio
import dataclasses
import gc
import itertools
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch

from ernerf_ti.audio.frame_features import RunningStatistics
from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.live import LivePortrait, SimulatedClock, SoundQueueFull
from ernerf_ti.live.features import Voice
from ernerf_ti.live.sound import mono
from tests.live.conftest import RATE, Pictures, Stage, sound_of


def spoken(trained, speech, size, features, rate=RATE):
    """Windows of all frames while a sound is pushed in pieces of a size."""
    stage = Stage(trained, features=features)
    for begin in range(0, len(speech), size):
        stage.session.push_audio(speech[begin : begin + size], rate)
    stage.session.flush()
    frames = stage.read(30)
    return frames, stage.windows


def whole_statistics(speech):
    frames = MelSpectrum().frames(speech.astype(np.float64), 0.0)
    return frames.mean(0), frames.var(0)


def test_features_equal_offline_ones_with_the_same_look_ahead(trained, speech):
    statistics = whole_statistics(speech)
    silence = np.full(80, 0.25, np.float32)
    features = {"voice": lambda: Voice(statistics), "silence": silence}
    stream = MelSpectrum().stream(statistics)
    steps = np.concatenate((stream.push(speech.astype(np.float64)), stream.finish()))
    frames, windows = spoken(trained, speech, 160, features)
    first = next(k for k, frame in enumerate(frames) if frame.speaking)
    for k in range(len(frames)):
        center = 2 * (k - first)
        numbers = np.arange(center - 16, center + 14).clip(max=center + 1 + 4)  # 80 ms, then held
        inside = (numbers >= 0) & (numbers < len(steps))
        strip = np.where(inside[:, None], steps[numbers.clip(0, len(steps) - 1)], silence)
        expected = np.stack([strip[2 * i : 2 * i + 16].T for i in range(8)])
        np.testing.assert_allclose(windows[k], expected, atol=1e-5, err_msg=f"frame {k}")


@pytest.mark.parametrize("size", [1, 7, 160, 48_000])
def test_the_size_of_the_pieces_does_not_matter(trained, speech, size):
    expected_frames, expected = spoken(trained, speech, len(speech), {}, 24_000)
    frames, windows = spoken(trained, speech, size, {}, 24_000)
    np.testing.assert_allclose(windows, expected, atol=1e-5)
    np.testing.assert_array_equal(sound_of(frames), sound_of(expected_frames))


def test_sound_pushed_as_it_is_spoken_gives_the_same(trained, speech):
    _, expected = spoken(trained, speech, len(speech), {})
    stage = Stage(trained)
    frames = []
    for k in range(30):
        # 20 ms at a time: before the frame is read, what was recorded since the last one.
        for begin in range(640 * k, min(640 * (k + 1), len(speech)), 320):
            stage.session.push_audio(speech[begin : begin + 320], RATE)
        if 640 * (k + 1) >= len(speech):
            stage.session.flush()
        frames += stage.read(1)
    np.testing.assert_allclose(stage.windows, expected, atol=1e-5)
    assert [frame.speaking for frame in frames].count(True) == 16


def test_the_answer_begins_within_300_ms(trained, speech):
    for delay in (PhonePosteriors().context * 0.01 + PhonePosteriors().padding / RATE, 0.06):
        stage = Stage(trained, features={"delay": delay})
        stage.read(10)
        pushed = stage.clock.time()
        stage.session.push_audio(speech[:320], RATE)
        for k in range(10):
            stage.session.push_audio(speech[320 + 640 * k : 320 + 640 * (k + 1)], RATE)
            (frame,) = stage.read(1)
            if frame.speaking:
                break
        assert stage.clock.time() - pushed <= 0.3
        assert frame.starts and np.abs(frame.sound).max() > 0
        assert stage.clock.time() - pushed >= stage.session.latency - 1e-9


def test_sound_and_picture_of_a_beep_coincide(trained):
    stage = Stage(trained)
    beep = np.concatenate((np.zeros(4000), 0.5 * np.sin(np.arange(4800) * 0.4), np.zeros(4000))).astype(np.float32)
    stage.session.push_audio(beep, RATE)
    stage.session.flush()
    frames = stage.read(40)
    mouth = stage.windows[:, 4, :, 8:10].mean((1, 2))  # the steps of the frame itself
    loud = np.array([np.abs(frame.sound).max() for frame in frames]) > 0.05
    open_ = mouth > (mouth.min() + mouth.max()) / 2
    assert loud.sum() in (8, 9)
    assert abs(int(loud.argmax()) - int(open_.argmax())) <= 1
    assert abs(int(loud[::-1].argmax()) - int(open_[::-1].argmax())) <= 1


def test_what_is_spoken_is_what_was_pushed(trained):
    stage = Stage(trained)
    sound = np.linspace(-0.5, 0.5, 48_000 // 2 + 100, dtype=np.float32)
    stage.session.push_audio((sound * 32768).astype(np.int16).tobytes(), 48_000)
    stage.session.flush()
    stage.session.push_audio(np.stack((sound, -sound), 1), 48_000, 2)
    stage.session.flush()
    frames = stage.read(40)
    first = [frame for frame in frames if frame.segment == 0]
    np.testing.assert_allclose(sound_of(first)[: len(sound)], sound, atol=1e-4)
    assert not sound_of(first)[len(sound) :].any()
    assert not sound_of([frame for frame in frames if frame.segment == 1]).any()
    for number, n in ((0, 13), (1, 13)):
        of_segment = [frame for frame in frames if frame.segment == number]
        assert [frame.starts for frame in of_segment] == [True] + (n - 1) * [False]
        assert [frame.ends for frame in of_segment] == (n - 1) * [False] + [True]
    assert all(frame.sound.shape == (1, 1920) and frame.sound.dtype == np.float32 for frame in frames)
    assert [frame.time for frame in frames] == [k / 25 for k in range(40)]


def test_the_end_of_a_segment_may_be_known_late(trained):
    stage = Stage(trained)
    stage.session.push_audio(np.full(3840, 0.1, np.float32), 48_000)
    frames = stage.read(12)
    assert sum(frame.speaking for frame in frames) == 2 and not any(frame.ends for frame in frames)
    stage.session.flush()
    (frame,) = stage.read(1)
    assert (frame.speaking, frame.segment, frame.ends) == (False, 0, True)


def test_speech_waits_for_sound_that_comes_late(trained, speech):
    stage = Stage(trained)
    half = 3200
    stage.session.push_audio(speech[:half], RATE)
    frames = stage.read(20)
    stage.session.push_audio(speech[half : 2 * half], RATE)
    stage.session.flush()
    frames += stage.read(10)
    assert {frame.segment for frame in frames} == {None, 0}
    at_48 = sound_of([frame for frame in frames if frame.speaking])
    assert len(at_48) == 10 * 1920 and np.abs(at_48).min(initial=1) >= 0
    assert not sound_of(frames[12:20]).any()


def test_interruption(trained, speech):
    stage = Stage(trained)
    for _ in range(8):
        stage.session.push_audio(speech, RATE)
    frames = stage.read(20)
    n = sum(frame.speaking for frame in frames)
    assert stage.session.interrupt() == pytest.approx(n / 25)
    assert stage.session.buffered == 0
    after = stage.read(6)
    assert not any(frame.speaking for frame in after)
    assert [frame.ends for frame in after] == [True] + 5 * [False]
    # Faded out over 10 ms.
    assert np.abs(after[0].sound[0, :240]).max() > 0 and not after[0].sound[0, 480:].any()
    assert not sound_of(after[1:]).any()
    silence = stage.portrait.features.silence
    np.testing.assert_array_equal(stage.windows[-4], np.broadcast_to(silence[None, :, None], (8, 80, 16)))
    assert stage.session.interrupt() == 0
    stage.session.push_audio(speech, RATE)
    assert {frame.segment for frame in stage.read(12)} == {None, 1}


def test_an_interruption_before_the_first_frame_drops_the_segment(trained, speech):
    stage = Stage(trained)
    stage.session.push_audio(speech, RATE)
    stage.read(2)
    assert stage.session.interrupt() == 0
    assert not any(frame.speaking or frame.ends for frame in stage.read(20))


class Loudness:
    """Features of one value that cost nothing."""

    def __init__(self, voice):
        self.rest = np.zeros(0)

    def push(self, samples):
        self.rest = np.concatenate((self.rest, samples))
        n = len(self.rest) // 320
        steps = np.abs(self.rest[: 320 * n]).reshape(n, 320).mean(1)
        self.rest = self.rest[320 * n :]
        return np.tile(steps[:, None], 80).astype(np.float32)

    def finish(self):
        return np.zeros((0, 80), np.float32)


def test_nothing_drifts_or_grows(trained):
    stage = Stage(trained, features={"stream": Loudness}, idle=False)
    stage.pictures.picture = lambda inputs, background, scale: np.zeros((4, 4, 3), np.uint8)
    second = np.full(RATE, 0.1, np.float32)

    def seconds(n):
        spoken = 0
        for _ in range(n):
            if stage.session.buffered < 2:
                stage.session.push_audio(second, RATE)
                if generator.random() < 0.1:
                    stage.session.flush()
            for _ in range(25):
                (frame,) = stage.read(1)
                spoken += frame.speaking
                assert abs(stage.clock.time() - stage.session._start - frame.time) < 1e-6
        return spoken

    generator = np.random.default_rng(0)
    seconds(10)
    tracemalloc.start()
    try:
        seconds(10)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        spoken = seconds(20)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert spoken > 0.9 * 500
    assert grown < 100_000  # 200 bytes a frame; what waits of the sound differs by half of that
    # The rest of the hour: the reader was away, and frames still belong to the times that they name.
    stage.clock.pass_by(3600 - 40)
    frames = stage.read(5)
    assert frames[-1].time > 3599
    assert abs(stage.clock.time() - stage.session._start - frames[-1].time) < 0.02


def test_a_slow_reader_loses_frames_and_no_sound(trained):
    stage = Stage(trained)
    sound = np.sin(np.arange(48_000 * 2) * 0.01).astype(np.float32)
    stage.session.push_audio(sound, 48_000)
    stage.session.flush()
    frames = []
    for _ in range(70):
        frames += stage.read(1)
        stage.clock.pass_by(0.1)
    times = np.array([frame.time for frame in frames])
    assert np.diff(times).max() > 0.3 and frames[-1].time == pytest.approx(70 * 0.1, abs=0.6)
    np.testing.assert_allclose(times * 25, np.round(times * 25), atol=1e-6)
    at_end = sound_of([frame for frame in frames if frame.speaking])
    np.testing.assert_array_equal(at_end, sound)


@pytest.mark.parametrize(("seconds", "scale"), [(0.03, 1.0), (0.05, 0.75), (0.1, 0.5), (0.5, 0.5)])
def test_resolution_falls_first_and_sound_never_stops(trained, seconds, scale):
    stage = Stage(trained, seconds=seconds)
    sound = np.sin(np.arange(48_000 * 4) * 0.01).astype(np.float32)
    stage.session.push_audio(sound, 48_000)
    frames = stage.read(110)
    assert stage.session.scale == scale
    spoken = [frame for frame in frames if frame.speaking]
    assert np.diff([frame.time for frame in frames]).max() == pytest.approx(0.04)
    np.testing.assert_array_equal(sound_of(spoken), sound[: 1920 * len(spoken)])
    assert stage.clock.time() - stage.session._start - frames[-1].time < 0.2
    n_repeated = sum(a.image is b.image for a, b in itertools.pairwise(frames))
    assert (n_repeated > 50) == (seconds > 0.4)


def test_resolution_rises_again(trained):
    stage = Stage(trained, seconds=0.05)
    stage.read(30)
    assert stage.session.scale < 1
    stage.pictures.seconds = 0.01
    stage.read(150)
    assert stage.session.scale == 1


def test_sound_is_in_time_while_pictures_are_not(trained):
    portrait = LivePortrait(trained, Pictures())
    render = portrait.pictures.picture

    def slow(inputs, background, scale):
        time.sleep(0.15)
        return render(inputs, background, scale)

    portrait.pictures.picture = slow
    session = portrait.session()
    sound = np.sin(np.arange(48_000) * 0.01).astype(np.float32)
    session.push_audio(sound, 48_000)
    session.flush()
    frames, start = [], None
    for frame in session.frames():
        start = start or time.monotonic()
        frames.append(frame)
        if frame.time >= 1.4:
            session.close()
    # The first frame waits for its picture.
    assert time.monotonic() - start < 1.7
    np.testing.assert_array_equal(sound_of([frame for frame in frames if frame.speaking]), sound)
    assert 4 <= len({id(frame.image) for frame in frames}) <= 12
    assert session.scale == 0.5


def test_a_picture_that_will_be_late_is_that_of_a_later_frame(trained, speech):
    stage = Stage(trained, look_ahead=0.2)
    stage.session.push_audio(speech, RATE)
    stage.session.flush()
    stage.read(12)
    track = stage.session._speech
    moment, later = track.advance(12), track.advance(13)
    np.testing.assert_array_equal(track.steps(moment, 1)[:-4], track.steps(later)[:-4])


def test_one_session_does_not_touch_another(trained, speech):
    portrait = LivePortrait(trained, Pictures())
    clocks = SimulatedClock(), SimulatedClock()
    first, second = (portrait.session(clock=clock) for clock in clocks)
    reading, other = first.frames(), second.frames()
    first.push_audio(speech, RATE)
    second.push_audio(speech, RATE)
    next(reading), next(other)

    def fails(inputs, background, scale):
        raise ZeroDivisionError("no picture")

    render, portrait.pictures.picture = portrait.pictures.picture, fails
    with pytest.raises(ZeroDivisionError, match="no picture"):
        next(reading)
    portrait.pictures.picture = render
    with pytest.raises(RuntimeError, match="closed"):
        first.push_audio(speech, RATE)
    assert any(next(other).speaking for _ in range(10))
    assert second.buffered > 0


@pytest.mark.parametrize(
    ("pcm", "rate", "channels", "message"),
    [
        (np.array([0.0, np.nan]), RATE, 1, "pcm: expected finite samples"),
        (np.zeros((100, 3), np.float32), RATE, 1, r"pcm: expected shape \[n\] or \[n, 1\], got \[100, 3\]"),
        (np.zeros(100, np.float32), RATE, 3, "pcm: expected a multiple of 3"),
        (np.zeros(100, np.int32), RATE, 1, "pcm: expected int16, float32 or float64, got int32"),
        (b"123", RATE, 1, "pcm: expected bytes of int16"),
        (memoryview(np.zeros(100, np.uint16)), RATE, 1, "pcm: expected int16, float32 or float64, got uint16"),
        (np.full(100, -32000.0, np.float32), RATE, 1, "pcm: expected floats with a full scale of 1.*up to 32000"),
        (np.zeros(100, np.float32), 0, 1, "sample_rate: expected 4000 to 384000 Hz, got 0"),
        (np.zeros(100, np.float32), 16000.5, 1, "sample_rate: expected a whole number"),
        (np.zeros(100, np.float32), RATE, 0, "channels: expected 1 to 16, got 0"),
    ],
)
def test_wrong_sound_is_refused(trained, pcm, rate, channels, message):
    stage = Stage(trained)
    with pytest.raises(ValueError, match=message):
        stage.session.push_audio(pcm, rate, channels)
    assert stage.session.buffered == 0


def test_a_full_queue_takes_nothing(trained):
    stage = Stage(trained, limit=1.0)
    stage.session.push_audio(np.zeros(12_000, np.float32), RATE)
    with pytest.raises(SoundQueueFull, match=r"expected at most 1 s of sound that waits, got 1.5 s"):
        stage.session.push_audio(np.zeros(12_000, np.float32), RATE)
    assert stage.session.buffered == pytest.approx(0.75, abs=0.03)  # some is in the resampler


def test_a_closed_session(trained):
    stage = Stage(trained)
    with stage.session:
        stage.read(3)
    assert list(stage.reading) == []
    for call in (stage.session.flush, stage.session.interrupt, lambda: stage.session.push_audio(b"", RATE)):
        with pytest.raises(RuntimeError, match="this session is closed"):
            call()
    stage.session.close()


def test_options_are_checked(trained):
    portrait = LivePortrait(trained, Pictures())
    with pytest.raises(ValueError, match=r"look_ahead: expected 0 to 0.24"):
        portrait.session(look_ahead=1.0)
    for background in ("blue", (1, 2), np.zeros((3, 3, 4), np.uint8)):
        with pytest.raises(ValueError, match="background: expected None"):
            portrait.session(background=background)
    session = portrait.session(clock=SimulatedClock())
    next(session.frames())
    reading = session.frames()
    next(reading)
    with pytest.raises(RuntimeError, match="one reader at a time"):
        next(session.frames())


@pytest.mark.parametrize("extractor", ["hubert", "deepspeech", "esperanto"])
def test_features_that_need_the_whole_recording_are_refused(trained, extractor):
    with pytest.raises(ValueError, match=r"as sound arrives .ppg, whisper, mel., got .*make the capture again"):
        LivePortrait(dataclasses.replace(trained, extractor=extractor))


def test_pictures_of_a_portrait_in_real_time(trained, speech):
    portrait = LivePortrait(trained)
    portrait.warm_up()
    green = portrait.session(background=(0, 255, 0))

    async def read():
        frames = []
        async for frame in green:
            frames.append(frame)
            if len(frames) == 12:
                break
        return frames

    green.push_audio(speech, RATE)
    frames = asyncio.run(read())
    assert all(frame.image.shape == (32, 32, 3) and frame.image.dtype == np.uint8 for frame in frames)
    assert any(frame.speaking for frame in frames)
    green.close()
    with portrait.session(background="transparent") as session:
        reading = session.frames()
        assert next(reading).image.shape == (32, 32, 4)
        reading.close()
    # A reader that waits is released when the session is closed elsewhere.
    session = portrait.session()
    threading.Timer(0.2, session.close).start()
    assert len(list(session.frames())) < 25


def test_a_smaller_picture_is_enlarged_over_the_background(trained):
    portrait = LivePortrait(trained)
    from ernerf_ti.live.renderer import LiveInputs

    pose, place = portrait.path.at(0)
    inputs = LiveInputs(np.zeros((8, 80, 16), np.float32), 0.1, pose, place)
    background = torch.rand(32, 32, 3)
    whole, half = (portrait.pictures.picture(inputs, background, scale).astype(float) for scale in (1.0, 0.5))
    assert whole.shape == half.shape
    assert np.abs(whole - half).mean() < 12
    assert portrait.pictures.picture(inputs, None, 0.5).shape == (32, 32, 4)


class Slow(Loudness):
    """Running statistics of the voice enter the features, as those of real ones do."""

    def __init__(self, voice, threads):
        super().__init__(voice)
        self.statistics, self.threads = voice.statistics, threads

    def push(self, samples):
        self.threads.add(threading.current_thread().name.split("_")[0])
        time.sleep(0.002)
        steps = super().push(samples)
        return steps - self.statistics.at(steps)[0].astype(np.float32) if len(steps) else steps


def test_features_computed_beside_give_the_same_frames(trained, speech, monkeypatch):
    def run():
        threads = set()
        features = {"stream": lambda voice: Slow(voice, threads), "voice": lambda: Voice(RunningStatistics())}
        stage = Stage(trained, features=features)
        stage.read(2)
        frames = []
        for part in (speech, speech[::-1], speech[:5000]):
            stage.session.push_audio(part, RATE)
            stage.session.flush()
        stage.session.push_audio(speech, RATE)  # of which a part is interrupted
        frames += stage.read(46)
        played = stage.session.interrupt()
        assert played > 0
        stage.session.push_audio(speech[3000:], RATE)
        stage.session.flush()
        frames += stage.read(30)
        stage.session.close()
        assert next(stage.reading, None) is None
        return frames, stage.windows, played, threads

    frames, windows, played, threads = run()
    monkeypatch.setattr("ernerf_ti.live.session._has_a_core_for_features", lambda clock: True)
    others, other_windows, other_played, other_threads = run()
    assert "live features" in other_threads and "live features" not in threads
    np.testing.assert_array_equal(other_windows, windows)
    np.testing.assert_array_equal(sound_of(others), sound_of(frames))
    assert other_played == played
    assert [(f.segment, f.starts, f.ends) for f in others] == [(f.segment, f.starts, f.ends) for f in frames]
    assert not any(thread.name.startswith("live features") for thread in threading.enumerate())


def test_features_that_fail_beside_end_the_session(trained, speech, monkeypatch):
    class Fails(Loudness):
        def push(self, samples):
            raise ZeroDivisionError("no features")

    monkeypatch.setattr("ernerf_ti.live.session._has_a_core_for_features", lambda clock: True)
    stage = Stage(trained, features={"stream": Fails})
    stage.session.push_audio(speech, RATE)
    with pytest.raises(ZeroDivisionError, match="no features"):
        stage.read(20)
    with pytest.raises(RuntimeError, match="closed"):
        stage.session.flush()


def test_a_memoryview_is_what_it_says():
    floats = np.linspace(-1, 1, 100, dtype=np.float32)
    np.testing.assert_array_equal(mono(memoryview(floats), RATE), floats)
    integers = (floats * 32767).astype(np.int16)
    expected = mono(integers, RATE)
    for pcm in (memoryview(integers), memoryview(integers.tobytes()), integers.tobytes()):
        np.testing.assert_array_equal(mono(pcm, RATE), expected)


@pytest.mark.parametrize("seconds", [1e308, float("inf")])
def test_more_motion_than_there_is_is_all_of_it(trained, seconds):
    assert len(LivePortrait(trained, Pictures(), motion_seconds=seconds).path) == len(trained.poses)
    assert len(LivePortrait(trained, Pictures(), motion_seconds=0.08).path) == 2


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_motion_is_refused(trained, seconds):
    with pytest.raises(ValueError, match="motion_seconds: expected more than 0"):
        LivePortrait(trained, Pictures(), motion_seconds=seconds)
