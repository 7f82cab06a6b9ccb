"""Run the server with its sources and outputs until it is told to stop."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from aiohttp import web

from ernerf_ti.live import LivePortrait
from ernerf_ti.live_server.access import Access
from ernerf_ti.live_server.application import LiveServer
from ernerf_ti.live_server.listening import naming_address, reachable_name, tls_context
from ernerf_ti.live_server.options import ServerOptions
from ernerf_ti.live_server.protocol import Limits, read_background
from ernerf_ti.live_server.shared_session import SharedSession
from ernerf_ti.live_server.sinks import Camera, Recording, Sink, Stream, Writer, require_camera
from ernerf_ti.live_server.sources import Source, file_pieces, pipe_pieces


def serve(
    portrait: LivePortrait,
    options: ServerOptions,
    sign: Callable[[Path, Path], None] | None = None,
    on_start: Callable[[str], None] = print,
) -> list[Path]:
    """Serve a portrait until SIGINT or SIGTERM, or with `once` until its sound has been spoken.

    Args:
        portrait: shared by all sessions.
        options: see there.
        sign: called with the recording before it appears: its name, and the temporary file that will get it.
        on_start: called with the address of the page once it can be opened.

    Returns:
        The files that were written.

    Raises:
        ValueError, FileNotFoundError: an option or a file is wrong.
        ImportError: an extra is missing.
        OSError: the address is taken, or an output can't be written.
    """
    options.check()
    if options.camera:
        require_camera()
    return asyncio.run(_serve(portrait, options, sign, on_start))


async def _serve(
    portrait: LivePortrait,
    options: ServerOptions,
    sign: Callable[[Path, Path], None] | None,
    on_start: Callable[[str], None],
) -> list[Path]:
    access = Access.of(options.host, options.token, options.origin)
    tls = tls_context(options.certificate, options.certificate_key)
    sound = None if options.audio is None else file_pieces(options.audio)
    server = LiveServer(
        portrait,
        access,
        Limits(sessions=options.max_sessions),
        options.look_ahead,
        options.watermark,
        options.note,
    )
    stop = asyncio.Event()
    _stop_on_signals(stop)
    runner = web.AppRunner(server.application(), access_log=None, handle_signals=False, shutdown_timeout=3.0)
    await runner.setup()
    sinks: list[Sink] = []
    source: Source | None = None
    errors: list[Exception] = []
    try:
        site = web.TCPSite(runner, options.host, options.port, ssl_context=tls)
        with naming_address(options.host, options.port):
            await site.start()
        if options.is_shared:
            session = await server.open_main(read_background(options.background))
            sinks = list(_sinks(options, session, sign))
            source = _source(options, session, sound, partial(_source_ended, options, stop, errors))
        on_start(_address(runner, options, access))
        await stop.wait()
    finally:
        if source is not None:
            await asyncio.to_thread(source.close)
        for sink in sinks:
            await asyncio.to_thread(sink.close)
        await runner.cleanup()
        await server.close()
    errors += [sink.error for sink in sinks if sink.error is not None and options.once]
    if errors:
        raise errors[0]
    return [options.record] if options.record is not None and options.record.is_file() else []


def _sinks(options: ServerOptions, session: SharedSession, sign: Callable[[Path, Path], None] | None) -> Iterator[Sink]:
    """Outputs that listen to the session."""
    openers: list[tuple[str, Callable[[], Writer]]] = []
    if (path := options.record) is not None:
        openers.append((str(path), partial(Recording, path, sign and partial(sign, path))))
    if options.rtmp is not None:
        openers.append(("rtmp", partial(Stream, options.rtmp)))  # not its key
    if options.camera:
        openers.append(("camera", partial(Camera, session.size)))
    for name, opener in openers:
        sink = Sink(name, opener)
        session.listen(sink.put)
        yield sink


def _source(
    options: ServerOptions,
    session: SharedSession,
    sound: tuple[Iterator[np.ndarray], int] | None,
    on_end: Callable[[Exception | None], None],
) -> Source | None:
    loop = asyncio.get_running_loop()

    def ended(error: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(on_end, error)

    if sound is not None:
        return Source(session, *sound, ended)
    if options.stdin:
        return Source(session, pipe_pieces(sys.stdin.buffer, options.rate), options.rate, ended)
    return None


def _source_ended(
    options: ServerOptions, stop: asyncio.Event, errors: list[Exception], error: Exception | None
) -> None:
    if error is not None and options.once:
        errors.append(error)
    elif error is not None:
        print(f"{options.audio or 'stdin'}: {' '.join(str(error).split())}", file=sys.stderr)
    if options.once:
        stop.set()


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not on Windows, nor in other threads: there the exception of the signal ends the loop.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _address(runner: web.AppRunner, options: ServerOptions, access: Access) -> str:
    port = runner.addresses[0][1]
    host = reachable_name(options.host)
    name = f"[{host}]" if ":" in host else host
    scheme = "http" if options.certificate is None else "https"
    return f"{scheme}://{name}:{port}/" + (f"?token={access.token}" if access.token else "")
