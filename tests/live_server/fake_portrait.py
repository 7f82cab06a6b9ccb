"""A portrait that renders nothing: gray pictures or a flash with a beep, at the pace of a live session."""

import itertools
import queue
import threading
import time

import numpy as np

from ernerf_ti.live import LiveFrame, SoundQueueFull

RATE, SOUND_RATE = 25, 48_000
SAMPLES = SOUND_RATE // RATE
SIGNAL = 15  # frames from one flash to the next, and of the first
BEEP = 1000.0  # Hz


class FakeSession:
    """With `signal` a white frame and a beep of 40 ms every 0.6 s; else gray, and the sound that is pushed."""

    latency = 0.158
    fps = 25

    def __init__(self, portrait, background, limit):
        self.portrait, self.background, self.limit = portrait, background, limit
        self.size, self.fails_at = portrait.size, portrait.fails_at
        self.pushed, self.played, self.n_flushes, self.n_interrupts = [], 0.0, 0, 0
        self._waiting = queue.Queue()
        self._closed = threading.Event()

    @property
    def buffered(self):
        return self._waiting.qsize() / RATE

    def push_audio(self, pcm, sample_rate, channels=1):
        if self.portrait.push_error:
            raise self.portrait.push_error
        if self.buffered + len(pcm) / sample_rate > self.limit:
            raise SoundQueueFull
        self.pushed.append((np.array(pcm), sample_rate, channels))
        for _ in range(round(len(pcm) / sample_rate * RATE)):
            self._waiting.put(1)

    def flush(self):
        self.n_flushes += 1

    def interrupt(self):
        self.n_interrupts += 1
        self._waiting = queue.Queue()
        played, self.played = self.played, 0.0
        return played

    def close(self):
        self._closed.set()
        self.portrait.n_open -= not self.__dict__.setdefault("was_closed", False)
        self.was_closed = True

    def frames(self):
        begin = time.monotonic()
        for k in itertools.count():
            if self._closed.wait(max(0, begin + k / RATE - time.monotonic())):
                return
            if self.fails_at is not None and k >= self.fails_at:
                raise ValueError("the renderer has failed")
            yield self._frame(k)

    def _frame(self, k):
        width, height = self.size
        marked = self.portrait.signal and k % SIGNAL == 0
        image = np.full((height, width, 3), 255 if marked else 16, np.uint8)
        if self.background == "transparent":
            alpha = np.zeros((height, width, 1), np.uint8)
            alpha[:, : width // 2] = 255
            image = np.concatenate((image, alpha), 2)
        elif self.background is not None:
            image[:, width // 2 :] = self.background
        at = np.arange(SAMPLES) / SOUND_RATE
        sound = (0.5 * np.sin(2 * np.pi * BEEP * at) if marked else np.zeros(SAMPLES)).astype(np.float32)
        try:
            self._waiting.get_nowait()
            speaking = True
            self.played += 1 / RATE
        except queue.Empty:
            speaking = False
        return LiveFrame(image, sound[None], k / RATE, speaking, 0 if speaking else None)


class FakePortrait:
    def __init__(self, size=(96, 96), signal=False):
        self.size, self.signal = size, signal
        self.fails_at = self.push_error = self.open_error = None
        self.n_open = 0
        self.sessions = []

    def session(self, look_ahead=0.08, background=None, idle=True, limit=120.0):
        if self.open_error:
            raise self.open_error
        self.n_open += 1
        self.sessions.append(FakeSession(self, background, limit))
        return self.sessions[-1]
