"""The server over the network, with a portrait that renders nothing: sessions, limits, abuse."""

import asyncio
import gc
import random
import threading

import aiohttp
import numpy as np
import pytest

from ernerf_ti.live_server.access import COOKIE, Access
from ernerf_ti.live_server.protocol import Limits
from tests.live_server.fake_portrait import FakePortrait
from tests.live_server.running import answer, closing_code, running, until

SOUND = np.arange(-800, 800, dtype="<i2")


def test_sound_of_a_page_and_of_a_program_goes_to_one_session():
    async def check():
        async with running() as at:
            page, ready = await at.connect()
            assert ready["synthesized"] and ready["width"] == 96 and ready["fps"] == 25 and not ready["shared"]
            program = await at.connect(start=False)
            await program.send_json({"type": "start", "session": ready["session"]})
            assert (await answer(program, "ready"))["session"] == ready["session"]
            await program.send_json({"type": "format", "sample_rate": 16000})
            await program.send_bytes(SOUND.tobytes())
            assert (await answer(page, "speaking"))["time"] >= 0
            await program.send_json({"type": "flush"})
            await answer(page, "silent")
            await program.send_json({"type": "interrupt"})
            assert (await answer(program, "interrupted"))["played"] == pytest.approx(0.08)
            statistics = await answer(page, "statistics")
            assert statistics["fps"] > 15 and statistics["latency"] == 0.158
            (session,) = at.portrait.sessions
            pcm, rate, channels = session.pushed[0]
            np.testing.assert_array_equal(pcm[:, 0], SOUND)
            assert (rate, channels, session.n_flushes, session.n_interrupts) == (16000, 1, 1, 1)
            await page.close()
            assert at.server.n_sessions == 1  # the program still uses it
            await program.send_json({"type": "stop"})
            assert await closing_code(program) == aiohttp.WSCloseCode.OK
            await until(lambda: at.server.n_sessions == 0 and at.portrait.n_open == 0)

    asyncio.run(check())


def test_another_background_goes_on_with_time():
    async def check():
        async with running() as at:
            page, ready = await at.connect()
            frames = []
            at.server._sessions[ready["session"]].listen(frames.append)
            await until(lambda: len(frames) > 3)
            await page.send_json({"type": "background", "background": "transparent"})
            await until(lambda: frames[-1].image.shape[2] == 4)
            assert [session.background for session in at.portrait.sessions] == [None, "transparent"]
            await until(lambda: at.portrait.n_open == 1)
            n = len(frames)
            await until(lambda: len(frames) > n + 2)
            times = [frame.time for frame in frames]
            np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-6)
            await page.close()

    asyncio.run(check())


def test_requests_from_elsewhere_are_refused():
    async def check():
        async with running() as at:
            for headers, status in (
                ({"Host": "evil.example"}, 403),
                ({"Origin": "http://evil.example"}, 403),
                ({"Origin": at.address}, 200),
                ({}, 200),
            ):
                for path in ("/", "/info", "/session"):
                    async with at.client.get(at.address + path, headers=headers) as response:
                        assert response.status == (400 if path == "/session" and status == 200 else status)
                        assert response.headers["X-Content-Type-Options"] == "nosniff"
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await at.connect(headers={"Origin": "http://evil.example"})
            for path in ("/page.html", "/..%2f..%2fetc/passwd", "/static/x", "//etc/passwd", "/session/../x"):
                async with at.client.get(at.address + path) as response:
                    assert response.status == 404
            async with at.client.post(at.address, data=b"x" * 5000) as response:
                assert response.status == 405
            assert at.portrait.sessions == []

    asyncio.run(check())


def test_a_token_opens_the_page_and_leaves_the_address():
    async def check():
        token = "0123456789abcdef"
        async with running(access=Access.of("127.0.0.1", token)) as at:
            for path in ("/", "/info", "/session", "/?token=wrong", "/nothing"):
                async with at.client.get(at.address + path) as response:
                    assert response.status == 401
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await at.connect()
            async with at.client.get(f"{at.address}/?token={token}", allow_redirects=False) as response:
                assert (response.status, response.headers["Location"]) == (303, "/")
                cookie = response.cookies[COOKIE]
                assert cookie["httponly"] and cookie["samesite"] == "Strict"
            headers = [{"Cookie": f"{COOKIE}={token}"}, {"Authorization": f"Bearer {token}"}]
            for header in headers:
                async with aiohttp.ClientSession(headers=header) as client, client.get(at.address) as response:
                    assert response.status == 200 and "sha256-" in response.headers["Content-Security-Policy"]

    asyncio.run(check())


def test_sessions_connections_and_time_are_limited():
    async def check():
        async with running(limits=Limits(sessions=1, connections=2, start_seconds=0.3)) as at:
            first, _ = await at.connect()
            second, full = await at.connect()
            assert full["code"] == "full" and await closing_code(second) == aiohttp.WSCloseCode.POLICY_VIOLATION
            await until(lambda: at.server.n_connections == 1)
            silent = await at.connect(start=False)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await at.connect()
            assert (await answer(silent, "error"))["code"] == "no_start"
            await first.close()
            await until(lambda: at.server.n_sessions == 0)
            again, ready = await at.connect()
            assert ready["type"] == "ready"
            await again.close()

    asyncio.run(check())


def test_too_many_large_and_early_messages():
    async def check():
        limits = Limits(messages_per_second=20, message_bytes=1000, buffered_seconds=0.4, sessions=4)
        async with running(limits=limits) as at:
            flood, _ = await at.connect()
            for _ in range(60):
                await flood.send_json({"type": "flush"})
            assert (await answer(flood, "error"))["code"] == "too_many"
            large, _ = await at.connect()
            await large.send_bytes(bytes(2000))
            assert await closing_code(large) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            fast, _ = await at.connect()
            await fast.send_json({"type": "format", "sample_rate": 8000})
            for _ in range(20):
                await fast.send_bytes(bytes(900))
            assert (await answer(fast, "error"))["code"] == "buffer_full"
            early = await at.connect(start=False)
            for message in ({"type": "flush"}, {"type": "offer", "sdp": "v=0"}):
                await early.send_json(message)
                assert (await answer(early, "error"))["code"] == "not_started"

    asyncio.run(check())


def hostile(draw, k):
    """Text or bytes that no honest client sends."""
    words = ["start", "offer", "format", "background", "flush", "stopp", "\0", "é" * 50, "__proto__"]
    values = [
        None,
        True,
        -1,
        1e308,
        "x" * 500,
        [[[]]],
        {"a": {}},
        "../../etc/passwd",
        "v=0\r\nm=video 9 x\r\n",
        "#12345g",
    ]
    kind = k % 5
    if kind == 0:
        return bytes(draw.randrange(256) for _ in range(2 * draw.randrange(40) + 1))
    if kind == 1:
        return "".join(chr(draw.randrange(32, 0x3000)) for _ in range(draw.randrange(80)))
    if kind == 2:
        return {"type": draw.choice(words), draw.choice(["sdp", "session", "sample_rate", "x"]): draw.choice(values)}
    if kind == 3:
        return {
            "type": "offer",
            "sdp": "v=0\r\no=- 0 0 IN IP4 0\r\ns=-\r\nt=0 0\r\n" + draw.choice(SDP_LINES) * draw.randrange(9),
        }
    return {"type": "format", "sample_rate": draw.choice(values), "channels": draw.choice(values)}


SDP_LINES = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n",
    "a=candidate:1 1 udp 1 10.0.0.1 1 typ host\r\n",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    "m=video -1 X 0 0 0\r\n",
)


def test_200_hostile_messages_end_at_worst_their_own_connection():
    async def check():
        draw = random.Random(7)
        async with running(limits=Limits(sessions=2, offers=40)) as at:
            honest, ready = await at.connect()
            frames = []
            at.server._sessions[ready["session"]].listen(frames.append)
            socket, k = None, 0
            while k < 200:
                if socket is None or socket.closed:
                    socket, _ = await at.connect()
                message = hostile(draw, k)
                try:
                    if isinstance(message, bytes):
                        await socket.send_bytes(message)
                    elif isinstance(message, str):
                        await socket.send_str(message)
                    else:
                        await socket.send_json(message)
                    found = await answer(socket, "error", "answer", "interrupted", "ready")
                except (AssertionError, ConnectionError):  # it was closed after many errors
                    await socket.close()
                    await until(lambda: at.server.n_sessions == 1)
                    socket = None
                    continue
                assert found["type"] == "error" and len(found["message"]) < 300, (message, found)
                k += 1
            n = len(frames)
            await until(lambda: len(frames) > n + 3)
            await socket.close()
            await honest.close()
            await until(lambda: at.portrait.n_open == 0)

    asyncio.run(check())


def test_50_reconnections_leave_nothing_behind():
    async def check():
        async with running(limits=Limits(sessions=4)) as at:
            warm, _ = await at.connect()
            await warm.close()
            await until(lambda: at.server.n_connections == 0)
            await asyncio.sleep(0.05)
            before = len(asyncio.all_tasks()), threading.active_count()
            for k in range(50):
                socket, ready = await at.connect()
                assert ready["type"] == "ready"
                if k % 2:
                    socket._conn.transport.abort()  # the other end is gone without a word
                await socket.close()
                await until(lambda: at.server.n_connections == 0)
            await until(lambda: at.server.n_sessions == 0 and at.portrait.n_open == 0)
            await until(lambda: len(asyncio.all_tasks()) <= before[0] and threading.active_count() <= before[1] + 2)
            assert at.server._users == {}
        gc.collect()
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")] == []

    asyncio.run(check())


def test_a_reader_that_reads_nothing_is_cut_off_and_delays_nobody():
    async def check():
        async with running(FakePortrait((16, 16))) as at:
            good, _ = await at.connect()
            slow, _ = await at.connect()
            slow._conn.transport.pause_reading()
            slow._writer.transport.pause_reading()
            done = asyncio.get_running_loop().time() + 4
            while at.server.n_connections == 2 and asyncio.get_running_loop().time() < done:
                for connection in CONNECTIONS:
                    for _ in range(40):
                        connection.send({"type": "padding", "text": "x" * 60_000})
                await asyncio.sleep(0.01)
            assert (await answer(good, "statistics"))["fps"] > 15
            await until(lambda: at.server.n_connections == 1)

    from ernerf_ti.live_server import application

    CONNECTIONS = []
    made = application.Connection

    def remembering(*arguments):
        connection = made(*arguments)
        CONNECTIONS[:] = [connection]  # the last one is the slow one
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "Connection", remembering)
        asyncio.run(check())


def test_a_session_that_fails_ends_alone(capsys):
    async def check():
        portrait = FakePortrait()
        async with running(portrait) as at:
            good, _ = await at.connect()
            await asyncio.sleep(0.2)
            portrait.fails_at = 0
            bad, found = await at.connect()
            portrait.fails_at = None
            if found["type"] == "ready":
                found = await answer(bad, "error")
            assert found["code"] in ("failed", "ended")
            await closing_code(bad)
            await until(lambda: at.server.n_sessions == 1)
            assert (await answer(good, "statistics"))["fps"] > 10
            portrait.open_error = RuntimeError("out of memory")
            refused, failed = await at.connect()
            assert failed["code"] == "failed"
            await closing_code(refused)
            await good.close()

    asyncio.run(check())
    error = capsys.readouterr().err
    assert "the renderer has failed" in error and "can't open a session: out of memory" in error
