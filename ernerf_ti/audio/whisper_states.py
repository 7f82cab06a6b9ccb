"""Hidden states of a Whisper encoder for sound of any length, with the same result for a recording and for a stream."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ernerf_ti.audio.frame_features import SAMPLE_RATE, STEP, check_samples
from ernerf_ti.audio.whisper_encoder import (
    STEM_STEPS,
    EncoderMemory,
    WhisperEncoder,
    log_energies,
    log_mel,
    scaled,
)
from ernerf_ti.audio.whisper_weights import load_whisper

LAYER = 3
"""Of tiny.en: layers in the middle say most about the mouth, the last one more about the words."""
BLOCK = 0.04
"""Seconds of states that a pass of the encoder gives, with a look-ahead: a frame's, as live portraits need them."""
_STEPS_PER_SECOND = SAMPLE_RATE // STEP


@dataclass(frozen=True)
class _Schedule:
    """Steps of 20 ms of a pass of the encoder: those before its output, its output, and those after it."""

    back: int
    output: int
    ahead: int

    @staticmethod
    def of(look_ahead: float | None, block: float, n_steps: int) -> "_Schedule":
        margin = n_steps // 15  # 2 s of 30 s
        if look_ahead is None:
            return _Schedule(margin, n_steps - 2 * margin, margin)
        output = max(1, round(block * _STEPS_PER_SECOND))
        longest = (n_steps - margin - output) / _STEPS_PER_SECOND
        if not 0 <= look_ahead <= longest:
            raise ValueError(
                f"look_ahead: expected 0 to {longest:g} seconds, got {look_ahead:g}; pass none for whole recordings"
            )
        return _Schedule(margin, output, round(look_ahead * _STEPS_PER_SECOND))

    @property
    def length(self) -> int:
        return self.back + self.output + self.ahead


class WhisperStates:
    """States of a layer of a Whisper encoder, 50 per second.

    For whole recordings, the encoder sees stretches of 30 s, as it was trained, which overlap; the states are those in
    the middle. With a look-ahead, a pass gives a block of states, which see the sound before them, at least 2 s and up
    to 30 s, as what each layer made of it when it was new, and the look-ahead after them. So each pass takes a few
    steps instead of a stretch. Before and after the sound there is silence.

    Args:
        model: file, folder or name, see :func:`ernerf_ti.audio.whisper_weights.load_whisper`; None for tiny.en.
        layer: from 1 on.
        look_ahead: seconds of sound that a state may depend on after the block that it is computed with. None for
            stretches of 30 s, of which 2 s at either end only give context.
        device: where the encoder runs.
        block: seconds of states per pass of the encoder, with a look-ahead. A stream waits for a block: shorter ones
            come sooner and take more passes.

    Raises:
        FileNotFoundError, ImportError: as :func:`ernerf_ti.audio.whisper_weights.load_whisper`.
        ValueError: as that, or a look-ahead that does not fit the encoder.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        layer: int = LAYER,
        look_ahead: float | None = None,
        device: torch.device | str = "cpu",
        block: float = BLOCK,
    ):
        weights = load_whisper(model, layer)
        self.model, self.layer, self.look_ahead, self.sha256 = weights.name, layer, look_ahead, weights.sha256
        self._encoder, self._device = WhisperEncoder(weights).to(device), device
        self.dimension = self._encoder.width
        self.schedule = _Schedule.of(look_ahead, block, self._encoder.n_steps)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[S] mono 16 kHz sound in [-1, 1] -> [ceil(S / 320), dimension] float32.

        Raises ValueError if the samples are not a vector of finite floats in [-1, 1].
        """
        stream = self.stream()
        return np.concatenate((stream.push(samples), stream.finish()))

    def stream(self, memory: "StateMemory | None" = None) -> "StateStream":
        """States of sound that arrives in chunks.

        Args:
            memory: of the sound that was heard before, which this one continues; only with a look-ahead.
        """
        if self.look_ahead is None:
            return StateStream(self.schedule, self.dimension, self.of_stretch)
        return StateStream(self.schedule, self.dimension, partial(self.of_next, memory or StateMemory()))

    @torch.no_grad()
    def of_stretch(self, samples: np.ndarray) -> np.ndarray:
        """[320 T] samples of a pass of the encoder, T = `schedule.length` -> [output, dimension] float32."""
        sound = torch.from_numpy(samples.astype(np.float32)).to(self._device)
        wanted = slice(self.schedule.back, self.schedule.back + self.schedule.output)
        return self._encoder(log_mel(sound, self._encoder.n_mels), wanted).cpu().numpy()

    @torch.no_grad()
    def of_next(self, memory: "StateMemory", samples: np.ndarray) -> np.ndarray:
        """The states after what is remembered, which are remembered too; otherwise as :meth:`of_stretch`."""
        schedule, encoder = self.schedule, self._encoder
        if memory.of_layers is None or memory.of_layers.n + schedule.output + schedule.ahead > encoder.n_steps:
            # Positions begin again, with the sound before the output.
            memory.of_layers, memory.loudest = EncoderMemory(encoder), None
            n_before, n_seen = schedule.back, 0
        else:
            n_before, n_seen = 0, STEM_STEPS
        n_kept = n_before + schedule.output
        first = len(samples) - (n_seen + n_kept + schedule.ahead) * STEP
        sound = torch.from_numpy(samples[first:].astype(np.float32)).to(self._device)
        logs = log_energies(sound, encoder.n_mels)
        memory.loudest = logs.max() if memory.loudest is None else torch.maximum(memory.loudest, logs.max())
        new = encoder.stem(scaled(logs, memory.loudest))[n_seen:]
        states = encoder.transform(new, slice(n_before, n_kept), memory.of_layers)
        memory.of_layers.n += n_kept
        return states.cpu().numpy()


@dataclass(eq=False)
class StateMemory:
    """What an encoder remembers of a voice; nothing at first."""

    of_layers: EncoderMemory | None = None
    loudest: torch.Tensor | None = None
    """Logarithm of the largest energy."""

    def copy(self) -> "StateMemory":
        """The same, for :meth:`restore`."""
        return StateMemory(None if self.of_layers is None else self.of_layers.copy(), self.loudest)

    def restore(self, earlier: "StateMemory") -> None:
        """Forget the sound since a copy was made."""
        again = earlier.copy()  # so that the same copy may be restored again
        self.of_layers, self.loudest = again.of_layers, again.loudest


class StateStream:
    """States of sound that arrives in chunks of any length; see :meth:`WhisperStates.stream`.

    A state is returned as soon as the sound of its pass has arrived. The states equal those of the whole recording
    with the same look-ahead.
    """

    def __init__(self, schedule: _Schedule, dimension: int, run: Callable[[np.ndarray], np.ndarray]):
        self._schedule, self._dimension, self._run = schedule, dimension, run
        self._samples = np.zeros(self._schedule.back * STEP)  # of passes to come
        self._n_samples = self._n_steps = 0
        self._ended = False

    def push(self, samples: np.ndarray) -> np.ndarray:
        """[S] further samples -> [n, dimension] float32, the states that are now complete.

        Raises ValueError like :meth:`WhisperStates.__call__`, and RuntimeError after :meth:`finish`.
        """
        if self._ended:
            raise RuntimeError("this stream is finished; start a new one")
        samples = check_samples(samples)
        self._n_samples += len(samples)
        self._samples = np.concatenate((self._samples, samples))
        return self._complete(self._n_samples)

    def finish(self) -> np.ndarray:
        """End the sound and return the remaining states, [n, dimension] float32."""
        wanted = -(-self._n_samples // STEP)
        if not self._ended:
            self._samples = np.pad(self._samples, (0, self._schedule.length * STEP))
        self._ended = True
        return self._complete(wanted * STEP)

    def _complete(self, until: int) -> np.ndarray:
        """States of the steps that begin before sample `until` and whose passes can be run."""
        schedule, parts = self._schedule, [np.zeros((0, self._dimension), np.float32)]
        while self._n_steps * STEP < until and len(self._samples) >= schedule.length * STEP:
            parts.append(self._run(self._samples[: schedule.length * STEP]))
            self._samples = self._samples[schedule.output * STEP :]
            self._n_steps += schedule.output
        states = np.concatenate(parts)
        excess = max(0, self._n_steps - until // STEP) if self._ended else 0
        return states[: len(states) - excess] if len(parts) > 1 else states
