"""A live portrait as a processor of Pipecat, between text-to-speech and the transport's output.

    session = LivePortrait.open("portrait.eti").session()
    pipeline = Pipeline([transport.input(), ..., tts, PipecatPortrait(session), transport.output()])

The transport must take video of the session's size, 25 frames per second, and sound at 48 kHz. Needs the package
pipecat-ai.
"""

import asyncio

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from ernerf_ti.live.frame import SOUND_RATE
from ernerf_ti.live.session import LiveSession


class PipecatPortrait(FrameProcessor):
    """Takes the sound of text-to-speech, and pushes it on with its pictures when it is to be heard.

    Args:
        session: not read elsewhere. It ends with the pipeline.
    """

    def __init__(self, session: LiveSession):
        super().__init__()
        self._session = session
        self._forwarding: asyncio.Task | None = None
        self._stopped: list[TTSStoppedFrame] = []
        """Ends of segments that are still spoken."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Follow a frame of the pipeline."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            samples = np.frombuffer(frame.audio, np.int16)
            await asyncio.to_thread(self._session.push_audio, samples, frame.sample_rate, frame.num_channels)
            return
        if isinstance(frame, TTSStoppedFrame):
            self._stopped.append(frame)
            await asyncio.to_thread(self._session.flush)
            return
        if isinstance(frame, InterruptionFrame):
            self._stopped.clear()
            await asyncio.to_thread(self._session.interrupt)
        elif isinstance(frame, StartFrame):
            self._forwarding = self.create_task(self._forward())
        elif isinstance(frame, EndFrame | CancelFrame):
            await self._end()
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """End the session."""
        await super().cleanup()
        await self._end()

    async def _forward(self) -> None:
        async for frame in self._session:
            height, width, channels = frame.image.shape
            kind = "RGBA" if channels == 4 else "RGB"
            await self.push_frame(OutputImageRawFrame(frame.image.tobytes(), (width, height), kind))
            if frame.speaking:
                sound = np.rint(np.clip(frame.sound[0], -1, 1) * 32767).astype("<i2")
                await self.push_frame(TTSAudioRawFrame(sound.tobytes(), SOUND_RATE, 1))
            if frame.ends and self._stopped:
                await self.push_frame(self._stopped.pop(0))

    async def _end(self) -> None:
        self._session.close()
        if self._forwarding is not None:
            forwarding, self._forwarding = self._forwarding, None
            await self.cancel_task(forwarding)
