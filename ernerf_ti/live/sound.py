"""Sound that arrives in pieces: checked, mixed, resampled, and queued until it is spoken."""

import threading
from collections import deque

import numpy as np
import soxr

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.live.frame import SOUND_RATE
from ernerf_ti.media.sound_frames import HIGHEST_SAMPLE

_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
_MOST_CHANNELS = 16
_PIECE = 1 << 16  # samples resampled at once


class SoundQueueFull(RuntimeError):
    """There is no room for a piece of sound; nothing of it was taken."""


def mono(pcm: np.ndarray | bytes | bytearray | memoryview, sample_rate: int, channels: int = 1) -> np.ndarray:
    """Sound of a caller as one channel.

    Args:
        pcm: int16 or float samples, [n] with the channels interleaved or [n, channels], or bytes of int16 in the
            machine's order. Full scale of floats is 1.
        sample_rate: samples per second and channel.
        channels: number of channels, whose average is taken.

    Returns:
        [n] float32, clipped to [-1, 1].

    Raises ValueError for sound of another form, or that is not finite.
    """
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)):
        raise ValueError(f"sample_rate: expected a whole number of Hz, got {sample_rate!r}; round it")
    if not _LOWEST_RATE <= sample_rate <= _HIGHEST_RATE:
        raise ValueError(
            f"sample_rate: expected {_LOWEST_RATE} to {_HIGHEST_RATE} Hz, got {sample_rate}; pass the rate of the sound"
        )
    if isinstance(channels, bool) or not isinstance(channels, (int, np.integer)) or not 1 <= channels <= _MOST_CHANNELS:
        raise ValueError(f"channels: expected 1 to {_MOST_CHANNELS}, got {channels!r}; pass the number of channels")
    if isinstance(pcm, (bytes, bytearray)) or (isinstance(pcm, memoryview) and pcm.itemsize == 1):
        data = bytes(pcm)
        if len(data) % 2:
            raise ValueError(f"pcm: expected bytes of int16, an even number, got {len(data)}; pass whole samples")
        samples = np.frombuffer(data, np.int16)
    else:
        samples = np.asarray(pcm)
    if samples.dtype != np.int16 and samples.dtype not in (np.float32, np.float64):
        raise ValueError(f"pcm: expected int16, float32 or float64, got {samples.dtype}; convert the samples")
    if samples.ndim == 1:
        if len(samples) % channels:
            raise ValueError(
                f"pcm: expected a multiple of {channels} interleaved samples, got {len(samples)}; pass whole frames of "
                "all channels"
            )
        samples = samples.reshape(-1, channels)
    if samples.ndim != 2 or samples.shape[1] != channels:
        raise ValueError(
            f"pcm: expected shape [n] or [n, {channels}], got {list(samples.shape)}; pass the number of channels as "
            "channels, and one row per sample"
        )
    scale = 1 / 32768 if samples.dtype == np.int16 else 1.0
    mixed = samples.astype(np.float32).mean(1) * np.float32(scale) if channels > 1 else None
    voice = samples[:, 0].astype(np.float32) * np.float32(scale) if mixed is None else mixed
    if not np.isfinite(voice).all():
        raise ValueError("pcm: expected finite samples, got NaN or infinity; check where the sound comes from")
    if len(voice) and np.abs(voice).max() > HIGHEST_SAMPLE:
        raise ValueError(
            f"pcm: expected floats with a full scale of 1, got samples of up to {np.abs(voice).max():.0f}; divide "
            "integers by their full scale, such as 32768"
        )
    return np.clip(voice, -1, 1, out=voice)


class SoundFifo:
    """Samples that leave in the order in which they came. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[np.ndarray] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, samples: np.ndarray) -> None:
        """Add [n] samples, which are not copied."""
        with self._lock:
            if len(samples):
                self._pieces.append(samples)
                self._length += len(samples)

    def take(self, n: int) -> np.ndarray:
        """[m] float32, the first m = n samples, or all if there are fewer."""
        taken: list[np.ndarray] = []
        with self._lock:
            n = min(n, self._length)
            self._length -= n
            while n > 0:
                piece = self._pieces.popleft()
                if len(piece) > n:
                    self._pieces.appendleft(piece[n:])
                    piece = piece[:n]
                taken.append(piece)
                n -= len(piece)
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)


class SegmentSound:
    """The sound of a segment, at the rate of the output and at that of the features.

    Values don't depend on the sizes of the pieces.
    """

    def __init__(self) -> None:
        self.spoken, self.heard = SoundFifo(), SoundFifo()
        """Samples at 48 kHz for the output, and at 16 kHz for the features."""
        self.n_spoken = self.n_heard = 0
        """Samples that have come so far, with those that were taken."""
        self.ended = False
        self._rate = 0
        self._resamplers: tuple[soxr.ResampleStream | None, ...] = ()

    def push(self, samples: np.ndarray, rate: int) -> None:
        """Add [n] float32 samples."""
        if rate != self._rate:
            self._drain()
            self._rate = rate
            self._resamplers = tuple(
                None if rate == wanted else soxr.ResampleStream(rate, wanted, 1, "float32")
                for wanted in (SOUND_RATE, SAMPLE_RATE)
            )
        for begin in range(0, len(samples), _PIECE):
            piece = samples[begin : begin + _PIECE]
            self._put(*(piece if each is None else each.resample_chunk(piece) for each in self._resamplers))

    def end(self) -> None:
        """No more sound comes."""
        if not self.ended:
            self._drain()
            self.ended = True

    def _drain(self) -> None:
        if self._resamplers:
            nothing = np.zeros(0, np.float32)
            self._put(*(nothing if each is None else each.resample_chunk(nothing, True) for each in self._resamplers))

    def _put(self, spoken: np.ndarray, heard: np.ndarray) -> None:
        self.spoken.put(spoken)
        self.heard.put(np.clip(heard, -1, 1))
        self.n_spoken += len(spoken)
        self.n_heard += len(heard)
