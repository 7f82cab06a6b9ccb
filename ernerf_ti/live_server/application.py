"""The web application: the page, a description for programs, and the WebSocket."""

import asyncio
import base64
import hashlib
import sys
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from aiohttp import web

from ernerf_ti.audio.windows import LOOK_AHEAD
from ernerf_ti.live import LivePortrait
from ernerf_ti.live.frame import FPS
from ernerf_ti.live_server.access import COOKIE, Access
from ernerf_ti.live_server.connection import Connection
from ernerf_ti.live_server.marks import note
from ernerf_ti.live_server.protocol import Background, Limits, ProtocolError
from ernerf_ti.live_server.shared_session import SharedSession

_HEARTBEAT_SECONDS = 4.0
"""A page that answers no ping for one and a half times as long is gone."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "Server": "ernerf-ti",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class LiveServer:
    """Sessions of one portrait, for pages and programs.

    Args:
        portrait: shared by all sessions.
        access: who may connect.
        limits: what they may do.
        look_ahead: seconds of sound that are heard before a frame is rendered.
        watermark: whether pictures carry a visible sign that they are synthesized.
        with_note: whether answers carry a machine-readable one.
    """

    def __init__(
        self,
        portrait: LivePortrait,
        access: Access,
        limits: Limits = Limits(),  # noqa: B008, it is frozen
        look_ahead: float = LOOK_AHEAD,
        watermark: bool = False,
        with_note: bool = True,
    ):
        self.limits, self.access = limits, access
        self.note: dict[str, Any] = note() if with_note else {}
        self.main: SharedSession | None = None
        """The session that everybody shares, if there is one."""
        self._portrait, self._look_ahead, self._watermark = portrait, look_ahead, watermark
        self._sessions: dict[str, SharedSession] = {}
        self._users: dict[str, int] = {}
        self._n_opening = 0
        self._n_connections = 0
        page = resources.files("ernerf_ti.live_server").joinpath("page.html").read_text("utf-8")
        self._page, self._policy = page, _content_policy(page)

    def application(self) -> web.Application:
        """For :class:`aiohttp.web.AppRunner`."""
        application = web.Application(middlewares=[self._guard], client_max_size=1024)
        application.router.add_get("/", self._show_page)
        application.router.add_get("/info", self._show_info)
        application.router.add_get("/session", self._connect)
        return application

    async def open_main(self, background: Background) -> SharedSession:
        """Open the session that everybody shares. Raises what the portrait raises."""
        self.main = await self._open(background, "main")
        return self.main

    async def enter(self, name: str | None, background: Background) -> SharedSession:
        """The session with this name, or a new one; :meth:`leave` must follow. Raises ProtocolError."""
        session = self.main if name is None else self._sessions.get(name)
        if session is None and name is not None:
            raise ProtocolError("no_session", "session: expected the name of an open session, got another one")
        if session is None:
            if len(self._sessions) + self._n_opening >= self.limits.sessions:
                raise ProtocolError(
                    "full", f"session: expected at most {self.limits.sessions} at a time, got more; try later", True
                )
            self._n_opening += 1
            try:
                session = await self._open(background)
            except Exception as error:
                print(f"live: can't open a session: {' '.join(str(error).split())}", file=sys.stderr)
                raise ProtocolError("failed", "session: the portrait could not be started", True) from None
            finally:
                self._n_opening -= 1
        self._users[session.name] = self._users.get(session.name, 0) + 1
        return session

    async def leave(self, session: SharedSession) -> None:
        """End the use of a session, and the session with its last user."""
        self._users[session.name] -= 1
        if self._users[session.name] == 0 and session is not self.main:
            await self._shut(session)

    async def close(self) -> None:
        """End all sessions."""
        self.main = None
        await asyncio.gather(*map(self._shut, list(self._sessions.values())))

    @property
    def n_sessions(self) -> int:
        return len(self._sessions)

    @property
    def n_connections(self) -> int:
        return self._n_connections

    async def _open(self, background: Background, name: str | None = None) -> SharedSession:
        arguments = (self._portrait, background, self._look_ahead, self._watermark, self.limits.buffered_seconds, name)
        session = await asyncio.to_thread(SharedSession, *arguments)
        self._sessions[session.name] = session
        session.start()
        return session

    async def _shut(self, session: SharedSession) -> None:
        self._users.pop(session.name, None)
        await asyncio.to_thread(session.close)
        self._sessions.pop(session.name, None)
        if session.error is not None:
            print(f"live: a session ended: {' '.join(str(session.error).split())}", file=sys.stderr)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse requests that are not for us; complete the headers of answers."""
        refused = self.access.refuses_host(request.headers.get("Host", "")) or self.access.refuses_origin(
            request.headers.get("Origin"), request.scheme, request.headers.get("Host", "")
        )
        given = request.query.get("token")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if refused:
            response: web.StreamResponse = web.Response(status=403, text=f"{refused}\n")
        elif not self.access.accepts_token(given, bearer, request.cookies.get(COOKIE)):
            text = "token: expected the one that the server printed, as /?token=... or Authorization: Bearer ...\n"
            response = web.Response(status=401, text=text, headers={"WWW-Authenticate": "Bearer"})
        elif given is not None and request.path == "/":
            # Out of the address bar, its history and what people copy from it.
            response = web.Response(status=303, headers={"Location": "/"})
            response.set_cookie(COOKIE, given, httponly=True, samesite="Strict", secure=request.secure)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _show_page(self, request: web.Request) -> web.Response:
        host = request.headers.get("Host", "")
        socket = f"{'wss' if request.secure else 'ws'}://{host}"
        policy = f"{self._policy}; connect-src 'self' {socket}"
        return web.Response(text=self._page, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def _show_info(self, request: web.Request) -> web.Response:
        sessions = {"open": self.n_sessions, "most": self.limits.sessions}
        return web.json_response({"fps": FPS, "sessions": sessions, "shared": self.main is not None, **self.note})

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        if self._n_connections >= self.limits.connections:
            return web.Response(status=503, text=f"connections: expected at most {self.limits.connections}, got more\n")
        socket = web.WebSocketResponse(
            heartbeat=_HEARTBEAT_SECONDS, max_msg_size=self.limits.message_bytes, compress=False, timeout=2.0
        )
        if not socket.can_prepare(request):
            return web.Response(status=400, text="session: expected a WebSocket, got another request\n")
        socket.headers.update(_HEADERS)

        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        self._n_connections += 1
        try:
            await socket.prepare(request)
            await Connection(self, socket, abort).run()
        finally:
            self._n_connections -= 1
        return socket


def _content_policy(page: str) -> str:
    """Only what is in the page itself is run or used."""
    hashes = {}
    for tag in ("script", "style"):
        content = page.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0]
        hashes[tag] = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return (
        # The worklet that reads the microphone is made from a string.
        f"default-src 'none'; script-src 'sha256-{hashes['script']}' blob:; style-src 'sha256-{hashes['style']}'; "
        "img-src data:; media-src blob: mediastream:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
