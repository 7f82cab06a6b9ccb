"""Audio output: the sound device through PortAudio, or silence at the same pace."""

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

import numpy as np

_LATENCY = 0.3  # s


class SoundOutput(Protocol):
    """Plays one recording at a time and reports how much of it was heard."""

    note: str
    """Why there is no sound; empty if there is."""
    volume: float
    """From 0 to 1; takes effect immediately."""

    def play(self, samples: np.ndarray, rate: int) -> None:
        """Start playing [S] mono samples in [-1, 1], instead of what played before."""

    def stop(self) -> None: ...

    def heard(self) -> float:
        """Seconds into the recording of what leaves the loudspeaker now."""

    def close(self) -> None: ...


class SilentOutput:
    """No sound; a clock runs instead.

    Args:
        note: why there is no sound.
        time: the clock, s.
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
    """The default sound device, through the library sounddevice.

    The device requests blocks in a thread of its own and reports when each will be heard, so that the time includes
    the delay of the device.

    Args:
        stream_type: sounddevice.OutputStream, or a class with its interface.
        rate: samples per second of everything that will be played.
    """

    note = ""

    def __init__(self, stream_type: Callable, rate: int):
        self.volume = 1.0
        self._lock = threading.Lock()
        self._anchor: tuple[float, int] | None  # a time of the stream, and the sample heard then
        self._heard: float
        self._begin(np.zeros(0, np.float32))
        # The clock accounts for the delay, which is long so that a busy machine causes no gaps: blocks wait for Python.
        self.stream = stream_type(samplerate=rate, channels=1, dtype="float32", latency=_LATENCY, callback=self._fill)
        """The library's stream."""
        self._rate = rate
        self.stream.start()

    def play(self, samples: np.ndarray, rate: int) -> None:
        if rate != self._rate:
            raise ValueError(f"rate: expected {self._rate} samples per second, got {rate}; resample the audio")
        with self._lock:
            self._begin(np.asarray(samples, np.float32))

    def stop(self) -> None:
        with self._lock:
            self._begin(np.zeros(0, np.float32))

    def heard(self) -> float:
        with self._lock:
            if self._anchor is not None:
                time, sample = self._anchor
                now = sample / self._rate + self.stream.time - time
                # A stalled device has played no more than it was given, and time never runs backwards.
                self._heard = max(self._heard, min(now, self._next / self._rate))
            return self._heard

    def close(self) -> None:
        self.stream.stop()
        self.stream.close()

    def _begin(self, samples: np.ndarray) -> None:
        self._samples, self._next, self._anchor, self._heard = samples, 0, None, 0.0

    def _fill(self, block: np.ndarray, n: int, time: Any, status: object) -> None:
        with self._lock:
            block_samples = self._samples[self._next : self._next + n]
            block[: len(block_samples), 0] = block_samples * self.volume
            block[len(block_samples) :, 0] = 0
            if len(block_samples):
                # Some hosts report no time; then the block is heard after the stream's latency.
                self._anchor = (time.outputBufferDacTime or self.stream.time + self.stream.latency, self._next)
                self._next += len(block_samples)


def open_output(rate: int) -> SoundOutput:
    """The sound device, or silence with the reason."""
    try:
        import sounddevice
    except ImportError:
        return SilentOutput("silent: the library sounddevice is not installed; pip install 'ernerf-ti[viewer]'")
    except OSError:  # raised on import if the system's library is missing
        return SilentOutput("silent: PortAudio is not installed; apt-get install libportaudio2")
    try:
        return DeviceOutput(sounddevice.OutputStream, rate)
    except sounddevice.PortAudioError as error:
        return SilentOutput(f"silent: no sound device ({str(error).splitlines()[0]})")
