"""Where the sound goes: the computer's output through PortAudio, or nowhere at the same pace."""

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

import numpy as np

_LATENCY = 0.3  # s


class SoundOutput(Protocol):
    """Plays one piece of sound at a time and tells how much of it was heard."""

    note: str
    """What is to be said about it; empty if it plays."""
    volume: float
    """From 0 to 1; takes effect at once."""

    def play(self, samples: np.ndarray, rate: int) -> None:
        """Begin [S] mono samples in [-1, 1], instead of what played before."""

    def stop(self) -> None: ...

    def heard(self) -> float:
        """Seconds since the begin of the piece, of what leaves the loudspeaker now."""

    def close(self) -> None: ...


class SilentOutput:
    """No sound; the time of a clock runs instead.

    Args:
        note: why there is no sound.
        time: seconds, of whatever clock.
    """

    def __init__(self, note: str = "", time: Callable[[], float] = perf_counter):
        self.note, self.volume, self._time, self._begin = note, 1.0, time, 0.0

    def play(self, samples: np.ndarray, rate: int) -> None:
        self._begin = self._time()

    def stop(self) -> None:
        pass

    def heard(self) -> float:
        return self._time() - self._begin

    def close(self) -> None:
        pass


class DeviceOutput:
    """The default sound device, by the library sounddevice.

    The device asks for blocks in a thread of its own and says when each will be heard, so that the time is that of
    the loudspeaker, its delay included.

    Args:
        stream_type: sounddevice.OutputStream, or what behaves like it.
        rate: samples per second of all that will be played.
    """

    note = ""

    def __init__(self, stream_type: Callable, rate: int):
        self.volume = 1.0
        self._lock = threading.Lock()
        self._anchor: tuple[float, int] | None  # a time of the stream, and the sample that is heard then
        self._begin(np.zeros(0, np.float32))
        # The clock knows the delay, so that it may be long enough for a busy machine: blocks wait for Python.
        self._stream = stream_type(samplerate=rate, channels=1, dtype="float32", latency=_LATENCY, callback=self._fill)
        self._rate = rate
        self._stream.start()

    def play(self, samples: np.ndarray, rate: int) -> None:
        if rate != self._rate:
            raise ValueError(f"rate: expected {self._rate} samples per second, got {rate}; resample the sound")
        with self._lock:
            self._begin(np.asarray(samples, np.float32))

    def stop(self) -> None:
        with self._lock:
            self._begin(np.zeros(0, np.float32))

    def heard(self) -> float:
        with self._lock:
            if self._anchor is not None:
                time, sample = self._anchor
                now = sample / self._rate + self._stream.time - time
                # A device that stalls has heard no more than it was given, and nothing is heard twice.
                self._heard = max(self._heard, min(now, self._next / self._rate))
            return self._heard

    def close(self) -> None:
        self._stream.stop()
        self._stream.close()

    def _begin(self, samples: np.ndarray) -> None:
        self._samples, self._next, self._anchor, self._heard = samples, 0, None, 0.0

    def _fill(self, block: np.ndarray, n: int, time, status) -> None:
        with self._lock:
            part = self._samples[self._next : self._next + n]
            block[: len(part), 0] = part * self.volume
            block[len(part) :, 0] = 0
            if len(part):
                # Some hosts leave the time out; then the block is heard after the stream's latency.
                self._anchor = (time.outputBufferDacTime or self._stream.time + self._stream.latency, self._next)
                self._next += len(part)


def open_output(rate: int) -> SoundOutput:
    """The sound device, or silence that says why."""
    try:
        import sounddevice
    except ImportError:
        return SilentOutput("silent: the library sounddevice is not installed; pip install 'ernerf-ti[viewer]'")
    except OSError:  # it looks for the system's library when it is imported
        return SilentOutput("silent: PortAudio is not installed; apt-get install libportaudio2")
    try:
        return DeviceOutput(sounddevice.OutputStream, rate)
    except sounddevice.PortAudioError as error:
        return SilentOutput(f"silent: no sound device ({str(error).splitlines()[0]})")
