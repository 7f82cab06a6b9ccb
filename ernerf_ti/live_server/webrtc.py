"""Pictures and sound of a session to one browser over WebRTC."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from ernerf_ti.live import LiveFrame
from ernerf_ti.live.frame import SOUND_RATE
from ernerf_ti.live_server.marks import note, with_note
from ernerf_ti.live_server.protocol import ProtocolError
from ernerf_ti.live_server.shared_session import SharedSession, int16_sound

_PICTURES, _PIECES = 2, 10
"""Pictures, and pieces of sound of 20 ms, that wait to be sent; then the oldest are left out."""
_PIECE = SOUND_RATE // 50  # samples of an Opus packet
_PIECE_SECONDS = _PIECE / SOUND_RATE
_VIDEO_CLOCK = 90_000
_MOST_CANDIDATES = 40
_SECONDS = 10.0  # to answer an offer


def stacked(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] as it is; [H, W, 4] as [2 H, W, 3]: the colors above the opacity, as no codec of WebRTC has alpha."""
    if image.shape[2] == 3:
        return image
    return np.concatenate((image[..., :3], np.repeat(image[..., 3:], 3, 2)))


class _Track(MediaStreamTrack):
    """Hands on what is put, the newest if it is not fetched in time."""

    def __init__(self, n: int):
        super().__init__()
        self._items: deque = deque(maxlen=n)
        self._news = asyncio.Event()
        self._fetched = False

    def put(self, item: object) -> None:
        """From the event loop's thread."""
        if not self._fetched:  # nobody is connected yet: what comes first is to be new
            self._items.clear()
        self._items.append(item)
        self._news.set()

    async def take(self) -> tuple:
        self._fetched = True
        while not self._items:
            if self.readyState != "live":
                raise MediaStreamError
            self._news.clear()
            await self._news.wait()
        item: tuple = self._items.popleft()
        return item

    def stop(self) -> None:
        super().stop()
        self._news.set()


class PictureTrack(_Track):
    """Pictures with the session's time."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__(_PICTURES)

    async def recv(self) -> av.VideoFrame:
        image, time = await self.take()
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stacked(image)), "rgb24")
        frame.pts, frame.time_base = round(time * _VIDEO_CLOCK), Fraction(1, _VIDEO_CLOCK)
        return frame


class SoundTrack(_Track):
    """Sound in pieces of 20 ms, sent at an even pace."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__(_PIECES)
        self._n = 0
        self._due = 0.0

    async def recv(self) -> av.AudioFrame:
        (samples,) = await self.take()
        clock = asyncio.get_running_loop().time
        if len(self._items) < _PIECES // 2 and (wait := self._due - clock()) > 0:
            await asyncio.sleep(wait)
        self._due = clock() + _PIECE_SECONDS - 0.002
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, self._n, Fraction(1, SOUND_RATE)
        self._n += len(samples)
        return frame


class Peer:
    """A connected browser.

    Args:
        session: what it is shown.
        with_note: whether the answer and a data channel say that the picture is synthesized.
        on_end: called once when the connection is lost.
    """

    def __init__(self, session: SharedSession, with_note: bool, on_end: Callable[[], None]):
        self._session, self._with_note, self._on_end = session, with_note, on_end
        self._loop = asyncio.get_running_loop()
        self._connection = RTCPeerConnection()
        self._pictures, self._sound = PictureTrack(), SoundTrack()
        self._leave: Callable[[], None] | None = None
        self._closed = False

    async def answer(self, sdp: str) -> str:
        """The answer to an offer; raises ProtocolError. To be called once."""
        if sdp.count("a=candidate:") > _MOST_CANDIDATES:
            raise ProtocolError("bad_offer", f"sdp: expected at most {_MOST_CANDIDATES} candidates, got more")
        self._connection.on("datachannel", self._greet)
        self._connection.on("connectionstatechange", self._watch)
        try:
            return await asyncio.wait_for(self._negotiate(sdp), _SECONDS)
        except ProtocolError:
            raise
        except Exception as error:  # the parser of the library raises many kinds
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ProtocolError(
                "bad_offer", f"sdp: expected an offer of a browser, got one that fails ({reason})"
            ) from None

    async def close(self) -> None:
        """Stop sending and free everything."""
        if self._closed:
            return
        self._closed = True
        if self._leave is not None:
            self._leave()
        self._pictures.stop()
        self._sound.stop()
        with contextlib.suppress(Exception):  # of a connection that is half made
            await asyncio.wait_for(self._connection.close(), _SECONDS)
        self._connection.remove_all_listeners()

    async def _negotiate(self, sdp: str) -> str:
        connection = self._connection
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        kinds = sorted(transceiver.kind for transceiver in connection.getTransceivers())
        if kinds not in (["audio", "video"], ["video"], ["audio"]):
            raise ProtocolError("bad_offer", f"sdp: expected one video and one audio, got {', '.join(kinds) or 'none'}")
        tracks = {"video": self._pictures, "audio": self._sound}
        for transceiver in connection.getTransceivers():
            transceiver.sender.replaceTrack(tracks[transceiver.kind])
            transceiver.direction = "sendonly"  # what a browser sends here is not received
        await connection.setLocalDescription(await connection.createAnswer())
        if not self._closed:
            self._leave = self._session.listen(self._take)
        answer = connection.localDescription.sdp
        return with_note(answer) if self._with_note else answer

    def _take(self, frame: LiveFrame) -> None:
        """In the rendering thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._put, frame)

    def _put(self, frame: LiveFrame) -> None:
        self._pictures.put((frame.image, frame.time))
        samples = int16_sound(frame.sound)
        for begin in range(0, len(samples), _PIECE):
            self._sound.put((samples[begin : begin + _PIECE],))

    def _greet(self, channel: RTCDataChannel) -> None:
        if self._with_note:
            channel.send(json.dumps(note()))

    async def _watch(self) -> None:
        if self._connection.connectionState in ("failed", "closed") and not self._closed:
            self._on_end()
