"""Sound that the server itself gives to a session: a file, or raw samples from a pipe."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ernerf_ti.live_server.protocol import ProtocolError
from ernerf_ti.live_server.shared_session import SharedSession
from ernerf_ti.media.sound import probe_sound, sound_chunks

_AHEAD = 1.0  # s of sound that wait in the session
_PAUSE = 0.02  # s


class Source:
    """Speaks pieces of sound through a session, in a thread, no faster than they are heard.

    Args:
        session: who speaks.
        pieces: [n, channels] int16, with any n.
        rate: samples per second.
        on_end: called in the thread once all was spoken, or with what went wrong.
    """

    def __init__(
        self,
        session: SharedSession,
        pieces: Iterator[np.ndarray],
        rate: int,
        on_end: Callable[[Exception | None], None],
    ):
        self._session, self._pieces, self._rate, self._on_end = session, pieces, rate, on_end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-source", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say no more. A thread that waits for a pipe is left to it."""
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        error: Exception | None = None
        try:
            for piece in self._pieces:
                if not self._push(piece):
                    return
            self._session.flush()
            while self._session.buffered > 0 and not self._stop.wait(_PAUSE):
                pass
            self._stop.wait(self._session.latency + 0.2)
        except Exception as failure:  # of the file: the session goes on
            error = failure
        if not self._stop.is_set():
            self._on_end(error)

    def _push(self, piece: np.ndarray) -> bool:
        """Whether it was pushed: not if the source was closed."""
        while not self._stop.is_set():
            if self._session.buffered < _AHEAD:
                try:
                    self._session.push(piece, self._rate)
                    return True
                except ProtocolError:  # others speak as well
                    pass
            self._stop.wait(_PAUSE)
        return False


def file_pieces(path: Path) -> tuple[Iterator[np.ndarray], int]:
    """Sound of a file in pieces of at most half a second, and its rate; raises as
    :func:`ernerf_ti.media.sound.probe_sound`."""
    rate = probe_sound(path).rate

    def pieces() -> Iterator[np.ndarray]:
        for chunk in sound_chunks(path):
            mono = np.nan_to_num(chunk).mean(0)
            samples = np.rint(np.clip(mono, -1, 1) * 32767).astype(np.int16)[:, None]
            for begin in range(0, len(samples), max(1, rate // 2)):
                yield samples[begin : begin + max(1, rate // 2)]

    return pieces(), rate


def pipe_pieces(pipe: BinaryIO, rate: int) -> Iterator[np.ndarray]:
    """16-bit mono samples from a pipe as they come, in pieces of at most 100 ms."""
    left = b""
    read = getattr(pipe, "read1", pipe.read)
    while data := read(2 * (rate // 10)):
        data = left + data
        n = len(data) // 2 * 2
        left = data[n:]
        if n:
            yield np.frombuffer(data[:n], "<i2")[:, None]
