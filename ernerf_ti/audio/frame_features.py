"""Features computed from short windows of sound, of a whole recording or of a stream, with the same result.

A feature step is 20 ms, two windows 10 ms apart: two steps for each frame of a 25 fps video.
"""

from abc import ABC, abstractmethod

import numpy as np

SAMPLE_RATE = 16_000
HOP = 160
"""Samples from window to window: 10 ms."""
STEP = 2 * HOP
"""Samples of a feature step: 20 ms."""

_LONGEST_MEMORY = 800  # frames that running statistics look back over, 8 s


class FrameFeatures(ABC):
    """An extractor: sound -> frames every 10 ms -> features every 20 ms.

    The frames' mean and variance over the recording are handed to the second stage, to take out the
    voice's level and the channel.
    """

    name: str
    """As captures and checkpoints record it."""
    dimension: int
    """Features of a step."""
    window: int
    """Samples that a frame is computed from."""
    context: int
    """Frames before and after that a step needs besides its own two."""

    @abstractmethod
    def frames(self, samples: np.ndarray, before: float) -> np.ndarray:
        """[S] samples and the one before them -> [T, D], one row for every full window."""

    @abstractmethod
    def steps(self, frames: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """[2 n + 2 context, D] frames; [D] or [2 n, D] mean and variance -> [n, dimension] float32."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound in [-1, 1] -> [ceil(S / 320), dimension] float32.

        Step k is about the 20 ms that begin at sample 320 k. Deterministic.

        Raises ValueError if the sound is not one row of finite numbers in [-1, 1].
        """
        samples = check_samples(samples)
        n_steps = -(-len(samples) // STEP)
        if n_steps == 0:
            return np.zeros((0, self.dimension), np.float32)
        padded = np.pad(samples, (self.padding, self.padding + n_steps * STEP - len(samples)))
        frames = self.frames(padded, 0.0)
        mean, variance = frames.mean(0), frames.var(0)
        return self.steps(np.pad(frames, ((self.context, self.context), (0, 0)), "edge"), mean, variance)

    def stream(self, statistics: tuple[np.ndarray, np.ndarray] | None = None) -> "FeatureStream":
        """Start on sound that arrives in pieces.

        Args:
            statistics: mean and variance of the frames, each [D], fixed; if None they are estimated as
                the sound comes in.
        """
        return FeatureStream(self, statistics)

    @property
    def padding(self) -> int:
        """Zeros before and after the sound that put the two windows of a step in the middle of its 20 ms."""
        return (self.window - HOP) // 2


class FeatureStream:
    """Features of sound that arrives in pieces of any length; see :meth:`FrameFeatures.stream`.

    A step comes out as soon as the sound that it needs is in. With the statistics of the whole sound the
    features are those of the whole sound.
    """

    def __init__(self, extractor: FrameFeatures, statistics: tuple[np.ndarray, np.ndarray] | None):
        self._extractor = extractor
        self._fixed = statistics
        self._running = _RunningStatistics()
        self._samples, self._before = np.zeros(extractor.padding), 0.0
        self._frames: np.ndarray | None = None  # those that steps to come need, after the first has come
        self._mean = self._variance = None  # at each of them, the context left out
        self._n_samples = 0
        self._ended = False

    def push(self, samples: np.ndarray) -> np.ndarray:
        """[S] further samples -> [n, dimension] float32, the steps that have become known.

        Raises ValueError as :meth:`FrameFeatures.__call__`, RuntimeError after :meth:`finish`.
        """
        if self._ended:
            raise RuntimeError("stream: expected samples before finish, got more after it; start a new stream")
        samples = check_samples(samples)
        self._n_samples += len(samples)
        self._take(samples)
        return self._known_steps()

    def finish(self) -> np.ndarray:
        """The steps that are left; the sound ends here."""
        if not self._ended and self._n_samples:
            self._take(np.zeros(-self._n_samples % STEP + self._extractor.padding))
            last = np.repeat(self._frames[-1:], self._extractor.context, 0)
            self._frames = np.concatenate((self._frames, last))
        self._ended = True
        return self._known_steps()

    def _take(self, samples: np.ndarray) -> None:
        self._samples = np.concatenate((self._samples, samples))
        frames = self._extractor.frames(self._samples, self._before)
        if not len(frames):
            return
        used = len(frames) * HOP
        self._before, self._samples = self._samples[used - 1], self._samples[used:]
        if self._fixed is None:
            mean, variance = self._running.at(frames)
        else:
            mean, variance = (np.broadcast_to(values, frames.shape) for values in self._fixed)
        if self._frames is None:
            self._frames = np.repeat(frames[:1], self._extractor.context, 0)
            self._mean, self._variance = mean[:0], variance[:0]
        self._frames = np.concatenate((self._frames, frames))
        self._mean = np.concatenate((self._mean, mean))
        self._variance = np.concatenate((self._variance, variance))

    def _known_steps(self) -> np.ndarray:
        context = 2 * self._extractor.context
        n = 0 if self._frames is None else max(0, len(self._frames) - context) // 2 * 2
        if n == 0:
            return np.zeros((0, self._extractor.dimension), np.float32)
        steps = self._extractor.steps(self._frames[: n + context], self._mean[:n], self._variance[:n])
        self._frames, self._mean, self._variance = self._frames[n:], self._mean[n:], self._variance[n:]
        return steps


class _RunningStatistics:
    """Mean and variance of the frames so far (Welford 1962), forgetting what is long past."""

    def __init__(self):
        self._n, self._mean, self._variance = 0, 0.0, 0.0

    def at(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[T, D] further frames -> mean and variance as they are known at each, [T, D]."""
        means, variances = np.empty_like(frames), np.empty_like(frames)
        for i, frame in enumerate(frames):
            self._n = min(self._n + 1, _LONGEST_MEMORY)
            off = frame - self._mean
            self._mean = self._mean + off / self._n
            self._variance = self._variance + (off * (frame - self._mean) - self._variance) / self._n
            means[i], variances[i] = self._mean, self._variance
        return means, variances


def check_samples(samples: np.ndarray) -> np.ndarray:
    """The samples as float64, if they are one row of finite floats in [-1, 1]; else ValueError."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"samples: expected one row of float samples at {SAMPLE_RATE} Hz, got {samples.dtype} of shape "
            f"{list(samples.shape)}; mix to mono and divide integers by their largest value"
        )
    if len(samples) and not np.abs(samples).max() <= 1:  # not: NaN fails too
        raise ValueError(
            f"samples: expected finite numbers in [-1, 1], got {np.abs(samples).max()}; scale the sound to that range"
        )
    return samples.astype(np.float64)
