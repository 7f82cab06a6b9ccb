"""Features computed from short windows of sound, with the same result for a whole recording and for a stream.

A feature step covers 20 ms, two windows 10 ms apart, so that a frame of a 25 fps video has two steps.
"""

from abc import ABC, abstractmethod

import numpy as np

SAMPLE_RATE = 16_000
HOP = 160
"""Samples from window to window: 10 ms."""
STEP = 2 * HOP
"""Samples of a feature step: 20 ms."""

_MEMORY = 800  # frames in the running statistics, 8 s


class FrameFeatures(ABC):
    """An extractor in two stages: sound -> frames every 10 ms -> features every 20 ms.

    The second stage gets the mean and variance of the frames over the recording, to normalize the level and the
    channel.
    """

    name: str
    """As recorded in captures and checkpoints."""
    dimension: int
    """Features per step."""
    window: int
    """Samples per frame."""
    context: int
    """Frames that a step needs before and after its own two."""

    @abstractmethod
    def frames(self, samples: np.ndarray, before: float) -> np.ndarray:
        """[S] samples and the preceding one -> [T, D], one row per complete window."""

    @abstractmethod
    def steps(self, frames: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """[2 n + 2 context, D] frames; [D] or [2 n, D] mean and variance -> [n, dimension] float32."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound in [-1, 1] -> [ceil(S / 320), dimension] float32.

        Step k describes the 20 ms from sample 320 k on. Deterministic.

        Raises ValueError if the samples are not a vector of finite floats in [-1, 1].
        """
        samples = check_samples(samples)
        n_steps = -(-len(samples) // STEP)
        if n_steps == 0:
            return np.zeros((0, self.dimension), np.float32)
        padded = np.pad(samples, (self.padding, self.padding + n_steps * STEP - len(samples)))
        frames = self.frames(padded, 0.0)
        mean, variance = frames.mean(0), frames.var(0)
        return self.steps(np.pad(frames, ((self.context, self.context), (0, 0)), "edge"), mean, variance)

    def stream(self, statistics: "Statistics | None" = None) -> "FeatureStream":
        """Features of sound that arrives in chunks.

        Args:
            statistics: fixed mean and variance of the frames, each [D]; or running statistics, which the sound
                continues, for a voice that was heard before; None to estimate them from this sound alone.
        """
        return FeatureStream(self, statistics)

    @property
    def padding(self) -> int:
        """Zeros before and after the sound, which center the two windows of a step in its 20 ms."""
        return (self.window - HOP) // 2


class FeatureStream:
    """Features of sound that arrives in chunks of any length; see :meth:`FrameFeatures.stream`.

    A step is returned as soon as all of its samples have arrived. With the statistics of the whole recording, the
    features equal those of the whole recording.
    """

    def __init__(self, extractor: FrameFeatures, statistics: "Statistics | None"):
        self._extractor = extractor
        self._fixed = statistics if isinstance(statistics, tuple) else None
        self._running = statistics if isinstance(statistics, RunningStatistics) else RunningStatistics()
        self._samples, self._before = np.zeros(extractor.padding), 0.0
        # Frames that steps to come still need, and mean and variance at each of these frames, without the context.
        self._frames: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # None before the first
        self._n_samples = 0
        self._ended = False

    def push(self, samples: np.ndarray) -> np.ndarray:
        """[S] further samples -> [n, dimension] float32, the steps that are now complete.

        Raises ValueError like :meth:`FrameFeatures.__call__`, and RuntimeError after :meth:`finish`.
        """
        if self._ended:
            raise RuntimeError("this stream is finished; start a new one")
        samples = check_samples(samples)
        self._n_samples += len(samples)
        self._append(samples)
        return self._complete_steps()

    def finish(self) -> np.ndarray:
        """End the sound and return the remaining steps, [n, dimension] float32."""
        if not self._ended and self._n_samples:
            self._append(np.zeros(-self._n_samples % STEP + self._extractor.padding))
            assert self._frames is not None  # padded like this, any sound fills a window
            frames, mean, variance = self._frames
            last = np.repeat(frames[-1:], self._extractor.context, 0)
            self._frames = np.concatenate((frames, last)), mean, variance
        self._ended = True
        return self._complete_steps()

    def _append(self, samples: np.ndarray) -> None:
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
            self._frames = np.repeat(frames[:1], self._extractor.context, 0), mean[:0], variance[:0]
        earlier_frames, earlier_mean, earlier_variance = self._frames
        self._frames = (
            np.concatenate((earlier_frames, frames)),
            np.concatenate((earlier_mean, mean)),
            np.concatenate((earlier_variance, variance)),
        )

    def _complete_steps(self) -> np.ndarray:
        context = 2 * self._extractor.context
        if self._frames is not None:
            frames, mean, variance = self._frames
            n = max(0, len(frames) - context) // 2 * 2
            if n:
                steps = self._extractor.steps(frames[: n + context], mean[:n], variance[:n])
                self._frames = frames[n:], mean[n:], variance[n:]
                return steps
        return np.zeros((0, self._extractor.dimension), np.float32)


class RunningStatistics:
    """Mean and variance of the recent frames (Welford 1962, with a bounded count).

    Args:
        mean, variance: [D] to begin with.
        n: number of frames that they count as.
    """

    def __init__(self, mean: np.ndarray | float = 0.0, variance: np.ndarray | float = 0.0, n: int = 0):
        self._n, self._mean, self._variance = n, mean, variance

    def copy(self) -> "RunningStatistics":
        """The same, for :meth:`restore`."""
        return RunningStatistics(self._mean, self._variance, self._n)

    def restore(self, earlier: "RunningStatistics") -> None:
        """Forget the frames since a copy was made."""
        self._n, self._mean, self._variance = earlier._n, earlier._mean, earlier._variance

    def at(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[T, D] further frames -> mean and variance after each of them, [T, D]."""
        means, variances = np.empty_like(frames), np.empty_like(frames)
        for i, frame in enumerate(frames):
            self._n = min(self._n + 1, _MEMORY)
            deviation = frame - self._mean
            self._mean = self._mean + deviation / self._n
            self._variance = self._variance + (deviation * (frame - self._mean) - self._variance) / self._n
            means[i], variances[i] = self._mean, self._variance
        return means, variances


Statistics = tuple[np.ndarray, np.ndarray] | RunningStatistics
"""Mean and variance of frames."""


def check_samples(samples: np.ndarray) -> np.ndarray:
    """The samples as float64; raises ValueError unless they are a vector of finite floats in [-1, 1]."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"samples: expected a vector of floats at {SAMPLE_RATE} Hz, got {samples.dtype} of shape "
            f"{list(samples.shape)}; mix to mono and divide integers by their full scale"
        )
    if len(samples) and not np.abs(samples).max() <= 1:  # not: NaN fails too
        raise ValueError(
            f"samples: expected finite values in [-1, 1], got {np.abs(samples).max()}; scale the sound to that range"
        )
    return samples.astype(np.float64)
