"""The adapters, against the frameworks' own packages where they are installed."""

import asyncio

import numpy as np
import pytest

from ernerf_ti.live import LiveFrame

SOUND = np.arange(480, dtype=np.int16)


class Session:
    """Speaks two frames once it was pushed sound and flushed, then idles."""

    size = 8, 6

    def __init__(self):
        self.calls = []
        self.closed = False

    def push_audio(self, pcm, sample_rate, channels=1):
        self.calls.append(("push", pcm.tolist(), sample_rate, channels))

    def flush(self):
        self.calls.append(("flush",))

    def interrupt(self):
        self.calls.append(("interrupt",))
        return 0.04

    def close(self):
        self.closed = True

    async def __aiter__(self):
        image, k = np.zeros((6, 8, 3), np.uint8), 0
        spoken = -1
        while not self.closed:
            if spoken < 0 and ("flush",) in self.calls:
                spoken = 0
            speaking = 0 <= spoken < 2
            sound = np.full((1, 1920), 0.5 * speaking, np.float32)
            yield LiveFrame(image, sound, k / 25, speaking, 0 if speaking else None, spoken == 0, spoken == 1)
            k, spoken = k + 1, spoken + speaking
            await asyncio.sleep(0.002)


def test_livekit_agents():
    pytest.importorskip("livekit.agents")
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd

    from ernerf_ti.live.adapters.livekit_agents import LiveKitVideoGenerator

    async def check():
        session = Session()
        generator = LiveKitVideoGenerator(session)
        assert (generator.options.video_width, generator.options.video_height) == (8, 6)
        await generator.push_audio(rtc.AudioFrame(SOUND.tobytes(), 24_000, 1, len(SOUND)))
        await generator.push_audio(AudioSegmentEnd())
        await generator.clear_buffer()
        assert session.calls == [("push", SOUND.tolist(), 24_000, 1), ("flush",), ("interrupt",)]
        kinds = []
        async for item in generator:
            kinds.append(type(item).__name__)
            if isinstance(item, rtc.AudioFrame):
                assert item.sample_rate == 48_000 and np.frombuffer(item.data, np.int16)[0] == 16_384
            if isinstance(item, AudioSegmentEnd):
                await generator.aclose()
        assert kinds[:5] == ["VideoFrame", "AudioFrame"] * 2 + ["AudioSegmentEnd"]

    asyncio.run(check())


@pytest.mark.filterwarnings("ignore")
def test_pipecat():
    pytest.importorskip("pipecat")
    from pipecat.frames import frames
    from pipecat.tests.utils import SleepFrame, run_test

    from ernerf_ti.live.adapters.pipecat_frames import PipecatPortrait

    async def check():
        session = Session()
        sent = [
            frames.TTSStartedFrame(),
            frames.TTSAudioRawFrame(SOUND.tobytes(), 24_000, 1),
            frames.TTSStoppedFrame(),
            SleepFrame(0.3),
            frames.InterruptionFrame(),
            SleepFrame(0.1),
        ]
        down, _ = await run_test(PipecatPortrait(session), frames_to_send=sent)
        assert session.calls == [("push", SOUND.tolist(), 24_000, 1), ("flush",), ("interrupt",)] and session.closed
        kinds = [type(frame).__name__ for frame in down]
        assert kinds.count("TTSAudioRawFrame") == 2 and kinds.count("TTSStoppedFrame") == 1
        last = len(kinds) - 1 - kinds[::-1].index("TTSAudioRawFrame")
        assert kinds.index("TTSStoppedFrame") > last
        picture = next(frame for frame in down if isinstance(frame, frames.OutputImageRawFrame))
        assert picture.size == (8, 6) and len(picture.image) == 6 * 8 * 3

    asyncio.run(check())
