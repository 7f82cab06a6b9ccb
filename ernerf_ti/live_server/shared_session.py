"""One live portrait of the server, with everyone who watches it and everyone who speaks through it."""

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ernerf_ti.live import LiveFrame, LivePortrait, LiveSession, SoundQueueFull
from ernerf_ti.live.frame import FPS
from ernerf_ti.live_server.marks import Watermark
from ernerf_ti.live_server.protocol import Background, ProtocolError

_JOIN_SECONDS = 5.0
Result = TypeVar("Result")


class SharedSession:
    """Renders in a thread of its own and hands every frame to the listeners.

    Args:
        portrait: what is rendered.
        background: see :data:`ernerf_ti.live_server.protocol.Background`.
        look_ahead: seconds of sound that are heard before a frame is rendered.
        watermark: whether pictures carry a visible sign.
        buffered_seconds: sound that may wait to be spoken.
        name: by which programs join; a random one if None.
    """

    def __init__(
        self,
        portrait: LivePortrait,
        background: Background,
        look_ahead: float,
        watermark: bool,
        buffered_seconds: float,
        name: str | None = None,
    ):
        self.name = secrets.token_hex(16) if name is None else name
        self.background = background
        self.error: Exception | None = None
        """What ended the session, if it was a fault."""
        self._portrait, self._look_ahead, self._most = portrait, look_ahead, buffered_seconds
        self._watermark = Watermark() if watermark else None
        self._listeners: tuple[Callable[[LiveFrame], None], ...] = ()
        self._watchers: tuple[Callable[[dict[str, Any]], None], ...] = ()
        self._lock = threading.Lock()
        self._live: LiveSession = self._begin(background)
        self._closing = False
        self._times: deque[float] = deque(maxlen=2 * FPS)
        self._speaking = False
        # Calls into the session may take a moment. Its own thread keeps them in order, and away from other sessions.
        self._caller = ThreadPoolExecutor(1, f"live-calls-{self.name[:6]}")
        self._thread = threading.Thread(target=self._run, name=f"live-{self.name[:6]}", daemon=True)

    def start(self) -> None:
        """Begin to render."""
        self._thread.start()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self._live.size
        return width, height

    @property
    def latency(self) -> float:
        """Seconds from a sound to its frame."""
        return float(self._live.latency)

    @property
    def buffered(self) -> float:
        """Seconds of sound that wait to be spoken."""
        return float(self._live.buffered)

    @property
    def frames_per_second(self) -> float:
        """Of the last two seconds."""
        times = list(self._times)
        return (len(times) - 1) / max(times[-1] - times[0], 1e-3) if len(times) > 1 else 0.0

    def listen(self, listener: Callable[[LiveFrame], None]) -> Callable[[], None]:
        """Have every frame handed over, in the rendering thread; returns what ends that."""
        return self._subscribe("_listeners", listener)

    def watch(self, watcher: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Have events handed over, in the rendering thread; returns what ends that."""
        return self._subscribe("_watchers", watcher)

    def _subscribe(self, name: str, subscriber: Callable[[Any], None]) -> Callable[[], None]:
        # Tuples that are replaced: the rendering thread goes through them without the lock.
        with self._lock:
            setattr(self, name, (*getattr(self, name), subscriber))

        def leave() -> None:
            with self._lock:
                setattr(self, name, tuple(one for one in getattr(self, name) if one is not subscriber))

        return leave

    def push(self, pcm: np.ndarray, sample_rate: int) -> None:
        """Speak [n, channels] int16 samples; raises ProtocolError if too much waits already. Not for the event loop."""
        try:
            self._live.push_audio(pcm, sample_rate, pcm.shape[1])
        except SoundQueueFull:
            message = f"sound: expected at most {self._most:g} s that wait to be spoken, got more; send it more slowly"
            raise ProtocolError("buffer_full", message) from None

    def flush(self) -> None:
        """End a segment of speech. Not for the event loop."""
        self._live.flush()

    def interrupt(self) -> float:
        """Stop speaking; returns the seconds of the segment that were heard. Not for the event loop."""
        return float(self._live.interrupt())

    def change_background(self, background: Background) -> None:
        """Go on before another background, with a new session. Not for the event loop."""
        if background == self.background:
            return
        following = self._begin(background)
        with self._lock:
            if self._closing:
                following.close()
                return
            before, self._live, self.background = self._live, following, background
        before.close()

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call one of the methods above from an event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._caller, function, *arguments)

    def close(self) -> None:
        """End rendering and free everything; waits for the thread. Not for the event loop. Again: nothing."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            live = self._live
        self._caller.shutdown(wait=False, cancel_futures=True)
        live.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)
        self._listeners = self._watchers = ()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def _begin(self, background: Background) -> LiveSession:
        return self._portrait.session(self._look_ahead, background, limit=self._most)

    def _run(self) -> None:
        begin = 0.0  # of the present session on the clock of all
        end = 0.0
        try:
            while not self._closing:
                live = self._live
                for frame in live.frames():
                    if self._closing or live is not self._live:
                        break
                    end = begin + frame.time
                    self._hand_over(frame, end)
                begin = end + 1 / FPS
                if live is self._live:
                    break
        except Exception as error:  # of this portrait; the others go on
            self.error = error
        if not self._closing:
            for watcher in self._watchers:
                watcher({"type": "ended"})

    def _hand_over(self, frame: LiveFrame, at: float) -> None:
        self._times.append(time.monotonic())
        image = frame.image if self._watermark is None else self._watermark(frame.image)
        frame = replace(frame, image=image, time=at)
        for listener in self._listeners:
            listener(frame)
        if frame.speaking != self._speaking:
            self._speaking = frame.speaking
            for watcher in self._watchers:
                watcher({"type": "speaking" if frame.speaking else "silent", "time": round(at, 3)})


def int16_sound(samples: np.ndarray) -> np.ndarray:
    """[1, n] float32 sound of a frame -> [n] int16."""
    return np.rint(np.clip(samples[0], -1, 1) * 32767).astype(np.int16)
