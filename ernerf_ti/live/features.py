"""Audio features of sound that arrives, and those of silence."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ernerf_ti.audio.extractors import EXTRACTORS, WHISPER, extract_windows
from ernerf_ti.audio.frame_features import HOP, SAMPLE_RATE, STEP, FrameFeatures, RunningStatistics, Statistics
from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.silence import pause_windows
from ernerf_ti.audio.whisper_features import WhisperFeatures
from ernerf_ti.audio.whisper_states import BLOCK, StateMemory
from ernerf_ti.data.capture_files import CapturePaths
from ernerf_ti.live.sound import SegmentSound
from ernerf_ti.media.sound import read_sound
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import TrainedPortrait

_KNOWN_SECONDS = 30  # of the capture's sound, for the statistics that a session begins with
_KNOWN_FRAMES = 100  # that they count as: 1 s
_SILENT_FRAMES = 40


class Stream(Protocol):
    """Features of sound that arrives; see :class:`ernerf_ti.audio.frame_features.FeatureStream`."""

    def push(self, samples: np.ndarray) -> np.ndarray: ...

    def finish(self) -> np.ndarray: ...


@dataclass(eq=False)
class Voice:
    """What a session knows of the voice that it hears, from segment to segment."""

    statistics: Statistics
    """Running ones adapt to it."""
    states: StateMemory = field(default_factory=StateMemory)
    """What Whisper remembers of it."""

    def copy(self) -> "Voice":
        """The same, for :meth:`restore`."""
        statistics = self.statistics
        return Voice(statistics.copy() if isinstance(statistics, RunningStatistics) else statistics, self.states.copy())

    def restore(self, earlier: "Voice") -> None:
        """Forget the sound since a copy was made."""
        if isinstance(self.statistics, RunningStatistics) and isinstance(earlier.statistics, RunningStatistics):
            self.statistics.restore(earlier.statistics)
        self.states.restore(earlier.states)


@dataclass(frozen=True, eq=False)
class StreamingFeatures:
    """The features of a portrait, computed as the sound arrives. Shared by sessions; has no state of its own."""

    stream: Callable[[Voice], Stream]
    """Begins a stretch of sound."""
    voice: Callable[[], Voice]
    """What a session knows at its beginning."""
    delay: float
    """Seconds of sound after a step of 20 ms that the step needs."""
    silence: np.ndarray
    """[C] float32, a step of silence."""

    @classmethod
    def of(cls, trained: TrainedPortrait) -> "StreamingFeatures":
        """The features of a portrait.

        Raises:
            ValueError: they can't be computed as sound arrives.
            FileNotFoundError, ImportError: as :class:`WhisperFeatures`.
        """
        extractor: FrameFeatures | WhisperFeatures
        frames: FrameFeatures
        if trained.extractor == WHISPER and trained.speech_projection is not None:
            projection, frames = trained.speech_projection.live, PhonePosteriors()
            extractor = whisper = WhisperFeatures(projection, None, trained.background.device)
            states = BLOCK - STEP / SAMPLE_RATE + (projection.look_ahead or 0.0)
            delay = max(_delay(frames), states)

            def stream(voice: Voice) -> Stream:
                return whisper.stream(voice.statistics, voice.states)

        elif trained.extractor in ("ppg", "mel"):
            extractor = frames = PhonePosteriors() if trained.extractor == "ppg" else MelSpectrum()
            delay = _delay(frames)

            def stream(voice: Voice) -> Stream:
                return frames.stream(voice.statistics)

        else:
            streaming = [name for name in EXTRACTORS if name in ("ppg", WHISPER, "mel")]
            raise ValueError(
                f"{trained.checkpoint or 'portrait'}: expected audio features that can be computed as sound arrives "
                f"({', '.join(streaming)}), got {trained.extractor}; make the capture again with `ernerf-ti preprocess "
                f"--features {WHISPER}` and train on that"
            )
        if extractor.dimension != trained.feature_dimension:
            raise ValueError(
                f"{trained.checkpoint or 'portrait'}: expected {extractor.dimension} {trained.extractor} features, got "
                f"{trained.feature_dimension}; make the capture again with `ernerf-ti preprocess`"
            )
        known = _capture_statistics(trained, frames)

        def voice() -> Voice:
            return Voice(RunningStatistics() if known is None else RunningStatistics(*known, _KNOWN_FRAMES))

        return cls(stream, voice, delay, _silence(trained))


class SegmentSteps:
    """The steps of a segment, computed as far as they are asked for and the sound has come.

    Args:
        sound: of the segment.
        features: of the portrait.
        voice: of the session.
    """

    def __init__(self, sound: SegmentSound, features: StreamingFeatures, voice: Voice):
        self._sound, self._stream = sound, features.stream(voice)
        self._silence = features.silence
        self._delay = round(features.delay * SAMPLE_RATE)
        self._fed = 0  # samples
        self._steps = np.zeros((0, len(features.silence)), np.float32)
        self._first = 0  # number of the first step that is kept
        self._finished = False

    def compute(self, n: int) -> bool:
        """Compute the first n steps, or those whose sound has come. Returns whether there was any new sound."""
        wanted = n * STEP + self._delay - self._fed
        if wanted <= 0 or self._finished:
            return False
        samples = self._sound.heard.take(wanted)
        self._fed += len(samples)
        parts = [self._steps]
        if len(samples):
            parts.append(self._stream.push(samples.astype(np.float64)))
        if self._sound.ended and not len(self._sound.heard):
            self._finished = True
            parts.append(self._stream.finish())
        self._steps = np.concatenate(parts)
        return len(samples) > 0 or self._finished

    def get(self, i: int) -> np.ndarray | None:
        """[C] step i, silence after the end of the segment; None if it is not known."""
        i -= self._first
        if self._finished and i >= len(self._steps):
            return self._silence
        return self._steps[i] if 0 <= i < len(self._steps) else None

    def forget(self, before: int) -> None:
        """Drop the steps before one."""
        n = min(max(0, before - self._first), len(self._steps))
        if n:
            self._steps, self._first = self._steps[n:].copy(), self._first + n


def _delay(extractor: FrameFeatures) -> float:
    """Seconds of sound after a step that it needs."""
    return (extractor.context * HOP + extractor.padding) / SAMPLE_RATE


def _capture_statistics(trained: TrainedPortrait, extractor: FrameFeatures) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and variance of the frames of the capture's sound; None if it is not there any more."""
    if trained.checkpoint is None:
        return None
    try:
        path = CapturePaths(RunFolder.find(trained.checkpoint).capture()).sound
        samples = read_sound(path, SAMPLE_RATE)[: _KNOWN_SECONDS * SAMPLE_RATE]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if len(samples) < SAMPLE_RATE:
        return None
    frames = extractor.frames(samples.astype(np.float64), 0.0)
    return frames.mean(0), frames.var(0)


def _silence(trained: TrainedPortrait) -> np.ndarray:
    """[C] float32, the mean step of the silence that the portrait was trained on, or of any if it was not."""
    windows = trained.silence
    if windows is not None and windows.dim() == 4 and windows.shape[3] == trained.feature_dimension:
        return windows[0].float().mean((0, 1)).cpu().numpy()

    def extract(samples: np.ndarray, n: int) -> np.ndarray:
        return extract_windows(samples, trained.extractor, n, None, "cpu", trained.speech_projection)

    return pause_windows(np.zeros(0), extract, _SILENT_FRAMES, 0).mean((0, 1)).astype(np.float32)
