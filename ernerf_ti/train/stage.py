"""What the training loop needs of a stage: parameters, the loss of a step, grid updates, held-out renderings."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.model.calls import Call, call_plainly
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.train.camera_correction import CameraCorrection
from ernerf_ti.train.config import StageConfig, TrainConfig
from ernerf_ti.train.training_frames import TrainingFrame, TrainingFrames

_UPDATES_OF_ALL_CELLS = 16


class StepStatistics(NamedTuple):
    """Statistics of a training step; they have no part in the loss."""

    mse: Tensor
    """[] mean squared error of the rendered colors."""
    n_rays: int
    n_samples: Tensor | int
    """Samples of all rays at which the field was evaluated; 0 for the torso, which is not sampled."""


@dataclass(frozen=True)
class StepLoss:
    """Loss and statistics of a training step."""

    terms: dict[str, Tensor]
    """Weighted terms [] by name; the loss is their sum."""
    statistics: StepStatistics

    @property
    def total(self) -> Tensor:
        return reduce(torch.add, self.terms.values())


class Stage(ABC):
    """A stage of training.

    Args:
        config: training configuration.
        portrait: its parameters are trained.
        cameras: corrections of the training cameras.
        frames: training frames.
        held_out: frames for validation.
        call: calls what is torch alone in a step; see :mod:`ernerf_ti.portrait.model.calls`.
        ranks: the processes that render a step together; None for this one alone.
    """

    name: ClassVar[str]
    torso_only: ClassVar[bool] = False
    """Whether the torso is all that the stage needs of the training frames' pixels."""

    def __init__(
        self,
        config: TrainConfig,
        portrait: Portrait,
        cameras: CameraCorrection,
        frames: TrainingFrames,
        held_out: TrainingFrames,
        call: Call = call_plainly,
        ranks: Ranks | None = None,
    ):
        self.config, self.portrait, self.cameras, self.frames, self.held_out, self.call = (
            *(config, portrait, cameras, frames, held_out, call),
        )
        self.ranks = ranks or Ranks()
        self.settings: StageConfig = getattr(config, self.name)

    def prepare(self) -> None:
        """Load what the stage needs beyond its arguments: nothing, by default.

        Raises FileNotFoundError or ImportError if it is not installed.
        """
        return

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that this stage trains."""

    @abstractmethod
    def loss(self, frame: TrainingFrame, kind: str, progress: float | Tensor, generator: torch.Generator) -> StepLoss:
        """Render rays of a training frame and compare them with it.

        Args:
            frame: the training frame.
            kind: what the step computes, see :meth:`kind`.
            progress: fraction of this stage that is done, a number or [].
            generator: draws all random numbers of the step, on the training device.
        """

    def kind(self, step: int) -> str:
        """What is computed after so many steps of this stage. All steps of a kind do the same with other numbers."""
        return self.name

    def key(self, kind: str) -> Hashable:
        """What decides the shapes in a step of a kind, where shapes are fixed."""
        return kind

    @abstractmethod
    def render_held_out(self, frame: int) -> tuple[Tensor, Tensor]:
        """[H, W, 3] rendering of a held-out frame, and its target."""

    def adjust(self) -> list[str]:
        """Adapt to what was measured on the device since the last call, for which this waits.

        Returns:
            Lines to tell the user.
        """
        return []

    @torch.no_grad()
    def update_grid(self, generator: torch.Generator, step: int | None = None) -> None:
        """Update the occupancy grid with the field of a random training frame.

        Args:
            generator: draws all random numbers, on the CPU.
            step: steps of this stage before this one; None after the last. All cells are evaluated in the first updates
                and in the last, else the configured fraction of them.
        """
        frame = _draw_integer(len(self.frames), generator)
        # The grids draw many numbers: from a generator on their own device.
        noise = torch.Generator(self.frames.device).manual_seed(_draw_integer(2**62, generator))
        all_cells = step is None or step < _UPDATES_OF_ALL_CELLS * self.config.grid_update_every
        self._update_grid(frame, noise, all_cells)

    @abstractmethod
    def _update_grid(self, frame: int, noise: torch.Generator, all_cells: bool) -> None: ...

    def _draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Uniform random numbers in [0, 1) on the training device."""
        return torch.rand(shape, generator=generator, device=self.frames.device)

    def _random_colors(self, n_rays: int, generator: torch.Generator) -> Tensor:
        """[K, 3] background colors for the first K of the rays."""
        return self._draw(int(self.config.random_background_fraction * n_rays), 3, generator=generator)


def _draw_integer(n: int, generator: torch.Generator) -> int:
    """From 0 to n - 1, by a generator on the CPU."""
    return int(torch.randint(n, (1,), generator=generator).numpy()[0])
