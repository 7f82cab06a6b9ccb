"""A live portrait as the video generator of LiveKit Agents.

    session = LivePortrait.open("portrait.eti").session()
    generator = LiveKitVideoGenerator(session)
    runner = AvatarRunner(room, audio_recv=receiver, video_gen=generator, options=generator.options)

Needs the package livekit-agents.
"""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from ernerf_ti.live.frame import FPS, SOUND_RATE
from ernerf_ti.live.session import LiveSession


class LiveKitVideoGenerator(VideoGenerator):
    """Gives the pictures of a session at all times, and sound only while the portrait speaks: LiveKit measures from it
    what was heard.

    Args:
        session: not read elsewhere. It ends with :meth:`aclose`.
    """

    def __init__(self, session: LiveSession):
        self._session = session

    @property
    def options(self) -> AvatarOptions:
        """For LiveKit's runner."""
        width, height = self._session.size
        return AvatarOptions(width, height, FPS, SOUND_RATE, 1)

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Speak a piece of sound, or end the segment."""
        if isinstance(frame, AudioSegmentEnd):
            await asyncio.to_thread(self._session.flush)
        else:
            samples = np.frombuffer(frame.data, np.int16)
            await asyncio.to_thread(self._session.push_audio, samples, frame.sample_rate, frame.num_channels)

    async def clear_buffer(self) -> None:
        """Stop speaking."""
        await asyncio.to_thread(self._session.interrupt)

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        async for frame in self._session:
            height, width, channels = frame.image.shape
            kind = rtc.VideoBufferType.RGBA if channels == 4 else rtc.VideoBufferType.RGB24
            yield rtc.VideoFrame(width, height, kind, frame.image.tobytes())
            if frame.speaking:
                sound = np.rint(np.clip(frame.sound[0], -1, 1) * 32767).astype(np.int16)
                yield rtc.AudioFrame(sound.tobytes(), SOUND_RATE, 1, len(sound))
            if frame.ends:
                yield AudioSegmentEnd()

    async def aclose(self) -> None:
        """End the session."""
        self._session.close()
