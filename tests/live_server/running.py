"""A server of a fake portrait in the test's own event loop, and its clients."""

import asyncio
import contextlib
import json

import aiohttp
from aiohttp import web

from ernerf_ti.live_server.access import Access
from ernerf_ti.live_server.application import LiveServer
from ernerf_ti.live_server.protocol import Limits
from tests.live_server.fake_portrait import FakePortrait


class Running:
    """A server, and its clients' session."""

    def __init__(self, server, portrait, address, client):
        self.server, self.portrait, self.address, self.client = server, portrait, address, client

    async def connect(self, start=True, **options):
        """A WebSocket; with `start` the answer to a start message was received: `(socket, ready)`."""
        socket = await self.client.ws_connect(f"{self.address}/session", **options)
        if not start:
            return socket
        await socket.send_json({"type": "start"})
        return socket, await answer(socket, "ready", "error")


@contextlib.asynccontextmanager
async def running(portrait=None, limits=None, access=None, **options):
    portrait = portrait or FakePortrait()
    server = LiveServer(portrait, access or Access.of("127.0.0.1"), limits or Limits(), **options)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Running(server, portrait, f"http://127.0.0.1:{runner.addresses[0][1]}", client)
    finally:
        await runner.cleanup()
        await server.close()


async def answer(socket, *kinds):
    """The next message of one of these types."""
    for _ in range(30):
        message = await socket.receive(5)
        assert message.type == aiohttp.WSMsgType.TEXT, message
        found = json.loads(message.data)
        if found["type"] in kinds:
            return found
    raise AssertionError(f"expected {kinds}, got {found}")


async def closing_code(socket):
    """Code with which the server closes, after any messages."""
    while True:
        message = await socket.receive(5)
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
            return socket.close_code


async def until(condition, seconds=5.0):
    for _ in range(round(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")
