"""Phone posteriors joined with the principal components of a middle layer of Whisper's encoder.

Whisper has learned from many voices, languages and rooms, so that its states say more about an unknown speaker's mouth
than phone posteriors do; these keep what the 64 components lose.
"""

from pathlib import Path

import numpy as np
import torch

from ernerf_ti.audio.frame_features import FeatureStream, Statistics
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.speech_projection import N_COMPONENTS, SpeechProjection
from ernerf_ti.audio.whisper_states import BLOCK, LAYER, StateMemory, StateStream, WhisperStates


class WhisperFeatures:
    """Phone posteriors and projected Whisper states, 50 steps per second.

    Args:
        projection: of the states.
        model: file, folder or name of the encoder, see :func:`ernerf_ti.audio.whisper_weights.load_whisper`; None for
            tiny.en.
        device: where the encoder runs.
        block: as for :class:`ernerf_ti.audio.whisper_states.WhisperStates`.

    Raises:
        FileNotFoundError, ImportError: as :func:`ernerf_ti.audio.whisper_weights.load_whisper`.
        ValueError: as that, or the encoder has other weights than the one that the projection was fitted to.
    """

    name = "whisper"

    def __init__(
        self,
        projection: SpeechProjection,
        model: str | Path | None = None,
        device: torch.device | str = "cpu",
        block: float = BLOCK,
    ):
        self.projection = projection
        self._states = WhisperStates(model, projection.layer, projection.look_ahead, device, block)
        if self._states.sha256 != projection.sha256:
            raise ValueError(
                f"speech model: expected the weights of Whisper {projection.model} up to layer {projection.layer} "
                f"(SHA-256 {projection.sha256[:16]}...), got those of {self._states.model} "
                f"({self._states.sha256[:16]}...); pass the model that the capture was made with as --speech-model"
            )
        self._phones = PhonePosteriors()
        self.dimension = self._phones.dimension + N_COMPONENTS

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound in [-1, 1] -> [ceil(S / 320), dimension] float32.

        Raises ValueError if the samples are not a vector of finite floats in [-1, 1].
        """
        return np.concatenate((self._phones(samples), self.projection(self._states(samples))), 1)

    def stream(self, statistics: Statistics | None = None, memory: StateMemory | None = None) -> "WhisperFeatureStream":
        """Features of sound that arrives in chunks.

        Args:
            statistics: as for :meth:`ernerf_ti.audio.frame_features.FrameFeatures.stream`, of the phone posteriors.
            memory: as for :meth:`ernerf_ti.audio.whisper_states.WhisperStates.stream`.
        """
        return WhisperFeatureStream(self.projection, self._phones.stream(statistics), self._states.stream(memory))


class WhisperFeatureStream:
    """See :meth:`WhisperFeatures.stream`.

    A step is returned as soon as the encoder's look-ahead allows. With the statistics of the whole recording, the
    features equal those of the whole recording with the same look-ahead.
    """

    def __init__(self, projection: SpeechProjection, phones: FeatureStream, states: StateStream):
        self._projection, self._phones, self._states = projection, phones, states
        self._waiting: np.ndarray | None = None  # phones of steps whose states are not there yet

    def push(self, samples: np.ndarray) -> np.ndarray:
        """[S] further samples -> [n, dimension] float32, the steps that are now complete.

        Raises ValueError like :meth:`WhisperFeatures.__call__`, and RuntimeError after :meth:`finish`.
        """
        return self._joined(self._phones.push(samples), self._states.push(samples))

    def finish(self) -> np.ndarray:
        """End the sound and return the remaining steps, [n, dimension] float32."""
        return self._joined(self._phones.finish(), self._states.finish())

    def _joined(self, phones: np.ndarray, states: np.ndarray) -> np.ndarray:
        if self._waiting is not None:
            phones = np.concatenate((self._waiting, phones))
        self._waiting = phones[len(states) :]
        return np.concatenate((phones[: len(states)], self._projection(states)), 1)


def fit_whisper(
    samples: np.ndarray,
    n_fit: int,
    model: str | Path | None = None,
    layer: int = LAYER,
    look_ahead: float | None = None,
    device: torch.device | str = "cpu",
) -> tuple[SpeechProjection, np.ndarray]:
    """Fit the projection to a recording.

    Args:
        samples: [S] mono 16 kHz sound in [-1, 1].
        n_fit: steps of 20 ms from the start that the projection is fitted to, those of the training frames.
        model, layer, look_ahead, device: as for :class:`ernerf_ti.audio.whisper_states.WhisperStates`.

    Returns:
        The projection, and the features of the recording as :class:`WhisperFeatures` computes them.

    Raises:
        FileNotFoundError, ImportError, ValueError: as :class:`ernerf_ti.audio.whisper_states.WhisperStates`, or no
            sound to fit to.
    """
    extract = WhisperStates(model, layer, look_ahead, device)
    states, phones = extract(samples), PhonePosteriors()(samples)
    if not len(states[:n_fit]):
        raise ValueError("samples: expected sound to fit the features to, got none; use a recording of speech")
    mean, components = principal_components(states[:n_fit], float(phones[:n_fit].var(0).mean()))
    projection = SpeechProjection(extract.model, layer, extract.sha256, look_ahead, mean, components)
    return projection, np.concatenate((phones, projection(states)), 1)


def principal_components(states: np.ndarray, variance: float, n: int = N_COMPONENTS) -> tuple[np.ndarray, np.ndarray]:
    """The n directions of most variance.

    Args:
        states: [T, D].
        variance: what the mean of the components' variances becomes by one common factor, so that neither they nor the
            features that they are joined with drown the others.
        n: number of components, at most D.

    Returns:
        [D] and [n, D] float32: the mean, and the components, orthogonal.

    Raises ValueError for fewer than n values per state.
    """
    if states.shape[1] < n:
        raise ValueError(
            f"states: expected at least {n} values per step, got {states.shape[1]}; use a larger Whisper model"
        )
    mean = states.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov((states - mean).T, bias=True))
    values, vectors = values[: -n - 1 : -1], vectors[:, : -n - 1 : -1].T
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1)
    factor = np.sqrt(variance / max(values.mean(), 1e-12))
    return mean.astype(np.float32), (factor * np.sign(largest) * vectors).astype(np.float32)
