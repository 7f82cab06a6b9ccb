"""What is random in a training step: its frame and its random numbers."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ernerf_ti.train.config import STAGES, TrainConfig
from ernerf_ti.train.training_frames import TrainingFrames


class StepGenerators(NamedTuple):
    """Generators of the random numbers of a step."""

    host: torch.Generator
    """Of what the host must know: on the CPU."""
    device: torch.Generator
    """Of all else: on the training device. On the CPU it is the same generator."""


class StepDraws:
    """Frames and random numbers of the steps of a stage: functions of the seed, the stage and the step alone.

    Args:
        config: of the training.
        stage: name.
        frames: the training frames.
    """

    def __init__(self, config: TrainConfig, stage: str, frames: TrainingFrames):
        self._config, self._stage, self._frames = config, STAGES.index(stage), frames
        host = torch.Generator()
        on_host = frames.device.type == "cpu"
        self._generators = StepGenerators(host, host if on_host else torch.Generator(frames.device))
        self._order = lru_cache(2)(self._order_of_epoch)
        self._silence = lru_cache(64)(self._draw_silence)
        self._speech = lru_cache(64)(self._draw_frame)

    def frame(self, step: int) -> int:
        """Index of the training frame of a step."""
        silence = self._silence(step)
        return self._speech(step) if silence is None else silence[0]

    def context(self, step: int) -> int | None:
        """Where the audio context of a step begins that is silent; None for that of its frame."""
        silence = self._silence(step)
        return None if silence is None else silence[1]

    def coming(self, step: int, n: int) -> list[int]:
        """Frames of the steps after a step, at most n, without those after the end of the stage."""
        end = getattr(self._config, STAGES[self._stage]).iterations
        return [self.frame(s) for s in range(step + 1, min(step + 1 + n, end))]

    def generators(self, step: int) -> StepGenerators:
        """The generators of a step, valid until this is called for another step."""
        seed = int(self._seed(step, 0).generate_state(1, np.uint64)[0]) >> 1
        for generator in set(self._generators):
            generator.manual_seed(seed)
        return self._generators

    def _seed(self, *numbers: int) -> np.random.SeedSequence:
        return np.random.SeedSequence([self._config.seed, self._stage, *numbers])

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(self._seed(epoch, 1)).permutation(len(self._frames))

    def _draw_silence(self, step: int) -> tuple[int, int] | None:
        """A frame whose mouth is closed and a silent context, in a fraction of the steps that use the sound."""
        fraction, contexts = self._config.silence_fraction, self._frames.silent_contexts
        if not fraction or not len(contexts) or STAGES[self._stage] == "torso":
            return None
        rng = np.random.default_rng(self._seed(step, 3))
        if rng.random() >= fraction:
            return None
        return int(rng.choice(self._frames.closed_mouths)), int(rng.choice(contexts))

    def _draw_frame(self, step: int) -> int:
        """Epochs visit the frames, each in its own random order; between them some steps of the head draw rare ones."""
        n, fraction = len(self._frames), self._config.rare_frames_fraction
        if fraction and STAGES[self._stage] != "torso":
            rng = np.random.default_rng(self._seed(step, 2))
            if rng.random() < fraction:
                return int(rng.choice(n, p=self._frames.rarity))
        return int(self._order(step // n)[step % n])
