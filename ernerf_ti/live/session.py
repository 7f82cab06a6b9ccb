"""A session: one listener, or one room, to whom a portrait speaks."""

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch

from ernerf_ti.audio.frame_features import SAMPLE_RATE, STEP
from ernerf_ti.live.clock import Clock
from ernerf_ti.live.features import StreamingFeatures
from ernerf_ti.live.frame import FPS, LiveFrame
from ernerf_ti.live.motion import Blinks, CapturePath
from ernerf_ti.live.quality import Quality
from ernerf_ti.live.renderer import Background, LiveInputs, PictureMaker
from ernerf_ti.live.sound import mono
from ernerf_ti.live.speech import Moment, SpeechTrack, silent_steps, windows_of
from ernerf_ti.process.prefetch import ahead
from ernerf_ti.process.threads import one_torch_thread, usable_cores

_LEAD = 1 / FPS
"""Seconds before a frame is due at which it is begun."""
_LONGEST_DELAY = 0.5
"""Seconds by which frames may be late before some are left out."""


@dataclass(frozen=True, eq=False)
class _Made:
    """A frame before it is due."""

    number: int
    moment: Moment
    image: np.ndarray


class LiveSession:
    """Sound in, frames out; made by :meth:`ernerf_ti.live.portrait.LivePortrait.session`. Safe for threads.

    Frame k belongs to the time k / 25 of the session, counted from the first call of :meth:`frames`, always. Each frame
    carries its 40 ms of sound, so that neither sound nor picture can drift. What gives under load, in this order:

    - the resolution, which falls to the lower `scales` of the pictures, and rises again when there is time;
    - pictures: a frame whose picture is not ready repeats the last one, with its own sound; a picture that takes long
      is rendered for the time at which it will be seen;
    - with a reader that is half a second late, frames are left out, in which no sound was: the sound waits.

    If sound comes later than it is spoken, the mouth knows less of what comes, and then the portrait waits for it.

    Args:
        features, pictures, path: of the portrait.
        blinks, background, look_ahead, idle, clock, limit: see the method.
    """

    def __init__(
        self,
        features: StreamingFeatures,
        pictures: PictureMaker,
        path: CapturePath,
        blinks: Blinks,
        background: Background,
        look_ahead: float,
        idle: bool,
        clock: Clock,
        limit: float,
    ):
        self._pictures, self._path, self._blinks = pictures, path, blinks
        self._background, self._idle, self._clock = background, idle, clock
        steps = round(look_ahead * SAMPLE_RATE / STEP)
        self._speech = SpeechTrack(features, steps, limit)
        self._latency = 1 / FPS + steps * STEP / SAMPLE_RATE + features.delay + _LEAD
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._start: float | None = None
        self._next = 0  # number of the next frame to make
        self._n_in_flight = 0
        self._moved = 0  # frames in which head and eyes moved
        self._quality = Quality(1 / FPS, pictures.scales)
        self._is_read = False
        self._beside: ThreadPoolExecutor | None = None
        """Computes audio features while no picture waits for them."""
        self._fills_cores = torch.get_num_threads() >= usable_cores()
        self._preparing: Future[None] | None = None
        self._moment: Moment | None = None
        """That of the last frame whose features, and the next one's, are computed there."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self._pictures.size

    @property
    def fps(self) -> int:
        """Frames per second."""
        return FPS

    @property
    def latency(self) -> float:
        """Seconds from the moment at which the first sound of a segment is pushed to that at which it is heard and
        seen, to be rounded up to a frame. Constant."""
        return self._latency

    @property
    def buffered(self) -> float:
        """Seconds of sound that wait to be spoken."""
        with self._lock:
            return self._speech.buffered

    @property
    def scale(self) -> float:
        """Sides of the pictures as they are rendered, relative to their full size."""
        return self._quality.scale

    def push_audio(self, pcm: np.ndarray | bytes | bytearray | memoryview, sample_rate: int, channels: int = 1) -> None:
        """Add a piece of sound of any size, as fast as it comes. The first one after :meth:`flush` or
        :meth:`interrupt` begins a segment.

        Args:
            pcm: int16 or float samples, [n] with the channels interleaved or [n, channels], or bytes of int16.
            sample_rate: samples per second and channel; it may change.
            channels: number of channels, whose average is spoken.

        Raises:
            ValueError: sound of another form, or that is not finite.
            SoundQueueFull: there is no room for it, and nothing of it was taken.
            RuntimeError: the session is closed.
        """
        samples = mono(pcm, sample_rate, channels)
        with self._lock:
            self._check_open()
            self._speech.push(samples, int(sample_rate), self._frame_after(self._latency))
        self._prepare(None)

    def flush(self) -> None:
        """End the segment: what is there of it is spoken to its end. Does nothing without a segment.

        Raises RuntimeError if the session is closed.
        """
        with self._lock:
            self._check_open()
            self._speech.flush()

    def interrupt(self) -> float:
        """Stop speaking and drop all sound. The next frame is silent after 10 ms, and the mouth closes within 80 ms.

        Returns:
            Seconds of the current segment that frames were delivered of; 0 if nobody speaks.

        Raises RuntimeError if the session is closed.
        """
        with self._lock:
            self._check_open()
            return self._speech.interrupt(self._n_in_flight > 0)

    def frames(self) -> Generator[LiveFrame, None, None]:
        """Frames as they are due. Each is yielded at its time, and the iterator ends after :meth:`close`.

        Raises:
            RuntimeError: they are being read elsewhere.
            Exception: what rendering raised; the session is then closed.
        """
        with self._lock:
            if self._is_read:
                raise RuntimeError("frames: expected one reader at a time, got a second one; make another session")
            self._is_read = True
        made = self._made()
        try:
            with contextlib.closing(ahead(made, 1) if self._clock.is_real else made) as coming:
                for each in coming:
                    assert self._start is not None
                    self._clock.wait_until(self._start + each.number / FPS)
                    if self._closed.is_set():
                        return
                    yield self._delivered(each)
        except Exception:
            self.close()
            raise
        finally:
            with self._lock:
                self._is_read, self._n_in_flight = False, 0

    async def __aiter__(self) -> AsyncIterator[LiveFrame]:
        """:meth:`frames` for asyncio. The waiting is done in a thread."""
        frames, loop = self.frames(), asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, "live")
        try:
            while (frame := await loop.run_in_executor(executor, next, frames, None)) is not None:
                yield frame
        finally:
            # In the same thread, after the frame that it may still wait for; asyncio does not wait for either.
            executor.submit(frames.close)
            executor.shutdown(wait=False)

    def close(self) -> None:
        """End the session and drop its sound. May be called more than once."""
        self._closed.set()

    def __enter__(self) -> "LiveSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _made(self) -> Generator[_Made, None, None]:
        """Frames in order, each begun a little before it is due. No frame waits for a picture that is late."""
        clock = self._clock
        image: np.ndarray | None = None
        if clock.is_real:
            # To be repeated until there is another: time begins when it is there.
            pose, place = self._path.at(self._moved)
            silence = windows_of(silent_steps(self._speech.features.silence))
            inputs = LiveInputs(silence, self._blinks.at(self._moved), pose, place)
            image = self._pictures.picture(inputs, self._background, self._quality.scale)
            image.flags.writeable = False
        with self._lock:
            if self._start is None:
                self._start = clock.time() + _LEAD
            start = self._start
        executor = ThreadPoolExecutor(1, "live pictures") if clock.is_real else None
        coming: Future[np.ndarray] | None = None
        with self._lock:
            self._beside = ThreadPoolExecutor(1, "live features") if _has_a_core_for_features(clock) else None
        try:
            while not self._closed.is_set():
                clock.wait_until(start + self._next / FPS - _LEAD)
                late = clock.time() - (start + self._next / FPS)
                if late > _LONGEST_DELAY:
                    self._next = math.ceil((clock.time() - start) * FPS)
                with self._lock:
                    moment = self._speech.advance(self._next)
                    self._n_in_flight += 1
                self._moved += self._idle or moment.place is not None
                if executor is None:
                    if image is None or late <= 0:
                        image = self._picture(moment, self._moved, 0)
                else:
                    if coming is None:
                        coming = executor.submit(self._picture, moment, self._moved, self._quality.n_late)
                    else:
                        self._prepare(moment)
                    due = start + self._next / FPS
                    wait([coming], max(0.0, due - clock.time()))
                    if coming.done():
                        image, coming = coming.result(), None
                assert image is not None
                yield _Made(self._next, moment, image)
                self._next += 1
        finally:
            with self._lock:
                beside, self._beside = self._beside, None
            for each in (executor, beside):
                if each is not None:
                    each.shutdown()

    def _prepare(self, moment: Moment | None) -> None:
        """Begin to compute features beside, unless that is being done.

        Args:
            moment: that of a frame whose picture is begun or left out; None for the last one, as there is new sound.
        """
        with self._lock:
            self._moment = moment or self._moment
            is_idle = self._preparing is None or self._preparing.done()
            if self._beside is not None and self._moment is not None and is_idle:
                self._preparing = self._beside.submit(self._prepare_features, self._moment)

    def _prepare_features(self, moment: Moment) -> None:
        with one_torch_thread():  # the other cores belong to the picture
            self._speech.prepare(moment)

    def _picture(self, moment: Moment, moved: int, n_late: int) -> np.ndarray:
        """The picture of a frame, or of the one that it will be seen in, so many frames later."""
        began, preparing = self._clock.time(), self._preparing
        if preparing is not None and preparing.done():
            preparing.result()  # raises what went wrong there
        pose, place = self._path.at(moved + n_late)
        with one_torch_thread():
            windows = windows_of(self._speech.steps(moment, n_late))
        inputs = LiveInputs(windows, self._blinks.at(moved + n_late), pose, place)
        # Features of the next picture are computed beside this one, or behind it if it takes all cores.
        if not self._fills_cores:
            self._prepare(moment)
        image = self._pictures.picture(inputs, self._background, self._quality.scale)
        if self._fills_cores:
            self._prepare(moment)
        image.flags.writeable = False  # it may be repeated
        self._quality.add(self._clock.time() - began)
        return image

    def _delivered(self, made: _Made) -> LiveFrame:
        with self._lock:
            self._n_in_flight -= 1
            heard = self._speech.deliver(made.moment)
        return LiveFrame(
            made.image, heard.sound, made.number / FPS, heard.speaking, heard.segment, heard.starts, heard.ends
        )

    def _frame_after(self, seconds: float) -> int:
        """Number of the first frame that is due at least so many seconds from now."""
        now = 0.0 if self._start is None else self._clock.time() - self._start
        return math.ceil((now + seconds) * FPS - 1e-6)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise RuntimeError("this session is closed; make another one with LivePortrait.session")


def _has_a_core_for_features(clock: Clock) -> bool:
    """Whether features are computed in a thread of their own: not where time waits for them, or pictures would."""
    return clock.is_real and usable_cores() > 1
