"""One WebSocket: a page that shows a portrait, or a program that speaks through one."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

from ernerf_ti.live.frame import FPS
from ernerf_ti.live_server import protocol
from ernerf_ti.live_server.protocol import ProtocolError, Rate, read_message, read_pcm
from ernerf_ti.live_server.shared_session import SharedSession
from ernerf_ti.live_server.webrtc import Peer

if TYPE_CHECKING:
    from ernerf_ti.live_server.application import LiveServer

_WAITING = 64
"""Answers that wait for a slow reader; with more the connection is cut."""
_STATISTICS_SECONDS = 1.0
_CLOSE_SECONDS = 3.0


class Connection:
    """Follows the messages of one WebSocket; everything it began ends with it.

    Args:
        server: whose sessions it uses.
        socket: prepared.
        abort: cuts the connection without waiting for the other side.
    """

    def __init__(self, server: "LiveServer", socket: web.WebSocketResponse, abort: Callable[[], None]):
        self._server, self._limits, self._socket, self._abort = server, server.limits, socket, abort
        self._loop = asyncio.get_running_loop()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self._rate = Rate(self._limits.messages_per_second)
        self._errors = self._offers = 0
        self._session: SharedSession | None = None
        self._unwatch: Callable[[], None] | None = None
        self._peer: Peer | None = None
        self._format: protocol.Format | None = None

    async def run(self) -> None:
        """Until the connection ends."""
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._report())]
        try:
            await self._read()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._free()

    def send(self, message: dict[str, Any]) -> None:
        """Queue an answer; cuts the connection of a reader that does not read."""
        try:
            self._answers.put_nowait(message)
        except asyncio.QueueFull:
            self._abort()

    async def _read(self) -> None:
        timeout: float | None = self._limits.start_seconds
        while True:
            try:
                message = await self._socket.receive(timeout)
            except asyncio.TimeoutError:
                await self._end(ProtocolError("no_start", "start: expected it as the first message, got none", True))
                return
            timeout = None if self._session is not None else self._limits.start_seconds
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return  # closed, or broken
            try:
                self._rate.take()
                if message.type == WSMsgType.TEXT:
                    if not await self._follow(read_message(message.data, self._limits)):
                        return
                else:
                    await self._speak(message.data)
            except ProtocolError as error:
                self._errors += 1
                if error.fatal or self._errors >= self._limits.errors:
                    await self._end(error)
                    return
                self.send(error.as_message())
            except RuntimeError:
                if self._session is not None and self._session.is_running:
                    raise
                return  # it has ended meanwhile

    async def _follow(self, message: protocol.Message) -> bool:
        """Whether to go on."""
        if isinstance(message, protocol.Start):
            await self._start(message)
        elif isinstance(message, protocol.Offer):
            await self._offer(message.sdp)
        elif isinstance(message, protocol.Format):
            self._format = message
        elif isinstance(message, protocol.SetBackground):
            session = self._started()
            if session is self._server.main and message.background != session.background:
                raise ProtocolError("shared", "background: expected a session of your own, got the one that all share")
            await session.call(session.change_background, message.background)
        elif message.type == "flush":
            session = self._started()
            await session.call(session.flush)
        elif message.type == "interrupt":
            session = self._started()
            self.send({"type": "interrupted", "played": round(await session.call(session.interrupt), 3)})
        else:
            await self._close(WSCloseCode.OK, b"stopped")
            return False
        return True

    async def _start(self, message: protocol.Start) -> None:
        if self._session is not None:
            raise ProtocolError("started", "start: expected it once, got it again")
        session = await self._server.enter(message.session, message.background)
        self._session = session
        self._unwatch = session.watch(self._event)
        if not session.is_running:
            raise ProtocolError("ended", "session: it has ended; start another one", True)
        width, height = session.size
        ready = {"session": session.name, "width": width, "height": height, "fps": FPS, "latency": session.latency}
        ready["shared"] = session is self._server.main
        self.send({"type": "ready", **ready, **self._server.note})

    async def _offer(self, sdp: str) -> None:
        session = self._started()
        self._offers += 1
        if self._offers > self._limits.offers:
            raise ProtocolError("too_many", f"offer: expected at most {self._limits.offers}, got more", True)
        if self._peer is not None:
            peer, self._peer = self._peer, None
            await peer.close()
        peer = Peer(session, bool(self._server.note), lambda: self.send({"type": "disconnected"}))
        try:
            answer = await peer.answer(sdp)
        except BaseException:
            await peer.close()
            raise
        self._peer = peer
        self.send({"type": "answer", "sdp": answer})

    async def _speak(self, data: bytes) -> None:
        session = self._started()
        samples = read_pcm(data, self._format)
        assert self._format is not None
        await session.call(session.push, samples, self._format.sample_rate)

    def _started(self) -> SharedSession:
        if self._session is None:
            raise ProtocolError("not_started", "session: expected a start message first, got another one")
        return self._session

    def _event(self, event: dict[str, Any]) -> None:
        """In the rendering thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._pass_on, event)

    def _pass_on(self, event: dict[str, Any]) -> None:
        if event["type"] == "ended":
            message = "session: the portrait failed; start another one"
            self.send(ProtocolError("failed", message, True).as_message())
            self._loop.call_later(_CLOSE_SECONDS / 10, self._abort)
        else:
            self.send(event)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_STATISTICS_SECONDS)
            if (session := self._session) is not None:
                statistics = {
                    "fps": round(session.frames_per_second, 1),
                    "latency": round(session.latency, 3),
                    "buffered": round(session.buffered, 2),
                }
                self.send({"type": "statistics", **statistics})

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has closed
            while True:
                await self._socket.send_json(await self._answers.get())

    async def _end(self, error: ProtocolError) -> None:
        """Close with an error as the last message."""
        with contextlib.suppress(ConnectionError, RuntimeError, asyncio.TimeoutError):
            await asyncio.wait_for(self._socket.send_json(error.as_message()), _CLOSE_SECONDS)
        await self._close(WSCloseCode.POLICY_VIOLATION, error.code.encode())

    async def _close(self, code: int, reason: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError, asyncio.TimeoutError):
            await asyncio.wait_for(self._socket.close(code=code, message=reason), _CLOSE_SECONDS)

    async def _free(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        try:
            if self._peer is not None:
                await self._peer.close()
        except Exception as error:  # the session is to be left all the same
            print(f"live: closing a connection: {error}", file=sys.stderr)
        if self._session is not None:
            await self._server.leave(self._session)
