"""What the parts of the CUDA check share: sizes, time, settings to switch, the capture, and trainers of it."""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ernerf_ti.data.capture import Capture
from ernerf_ti.experiments.check_table import Budget
from ernerf_ti.process.device import CudaGraphs, use_deterministic_algorithms
from ernerf_ti.process.graphs import cuda_graphs
from ernerf_ti.process.precision import Precision, resolve_precision
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait
from ernerf_ti.train.config import PRESETS, STAGES, TrainConfig
from ernerf_ti.train.trainer import Trainer

_STEADY_STEP = 512


@dataclass(frozen=True)
class Sizes:
    """Sizes of the problems. The defaults are those that the targets are meant for."""

    image: int = 512
    """Width and height in pixels."""
    n_frames: int = 200
    """Of the synthetic capture."""
    n_rays: int = 65_536
    """Per training step."""
    quality_steps: int = 2000
    """Training steps in each precision."""
    steps_per_turn: int = 16
    """One of them updates the occupancy grid."""
    n_turns: int = 3
    """Of either setting."""
    warm_up: int = 10
    """Pairs of steps before the first turn, each with an update of the occupancy grid: enough to record all graphs."""
    profiled_steps: int = 20
    compared_steps: int = 20
    """With and without CUDA graphs."""
    frames_per_turn: int = 100
    grid_resolution: int | None = None
    """Of the occupancy grid; None for the preset's."""
    ops: tuple[str, ...] = ()
    """Beginnings of the names of the ops that are timed; all if empty."""
    op_scale: float = 1.0
    """Fraction of the full sizes of the ops."""
    op_repeats: int = 3
    tests: tuple[str, ...] = ("tests/kernels",)
    """Test files and folders, from the root of the checkout."""
    judged: bool = True
    """Whether figures are held against the targets."""


REHEARSAL = Sizes(
    image=32,
    n_frames=12,
    n_rays=128,
    quality_steps=4,
    steps_per_turn=2,
    n_turns=1,
    warm_up=1,
    profiled_steps=2,
    compared_steps=3,
    frames_per_turn=3,
    grid_resolution=32,
    ops=("spherical_harmonics", "composite"),
    op_scale=0.002,
    op_repeats=1,
    tests=("tests/kernels/test_morton.py",),
    judged=False,
)
"""Sizes with which every part runs within seconds on a CPU."""


@dataclass(frozen=True)
class Settings:
    """Settings whose effect is measured. The defaults are those of the commands."""

    precision: Precision = "auto"
    cuda_graphs: CudaGraphs = "auto"
    keep_frames: bool = True
    """Whether training frames stay on the device, rather than being decoded and copied each time."""
    deterministic: bool = False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Context with those settings that hold for the whole process."""
        if self.deterministic:
            use_deterministic_algorithms()
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)


@dataclass(frozen=True)
class Switch:
    """A setting that is measured off and on."""

    name: str
    other: Settings
    """The settings that are compared with the default ones."""
    is_on: bool = False
    """Whether it is on there, and off by default."""


@dataclass
class Check:
    """A running check; parts leave here what later ones need."""

    device: torch.device
    sizes: Sizes
    budget: Budget
    folder: Path
    """For files of the check; removed at its end."""
    capture: Capture | None = None
    run: Path | None = None
    """Run folder of the last portrait that was saved."""
    notes: list[str] = field(default_factory=list)
    """What CUDA graphs had to say since the last part: why a function is called plainly."""
    _n_trainers: int = field(default=0, init=False)

    @cached_property
    def default(self) -> Settings:
        """Those of the commands on CUDA. A rehearsal on the CPU evaluates the networks in bf16 too."""
        return Settings("bf16") if self.device.type == "cpu" else Settings()

    @cached_property
    def precision(self) -> str:
        """Name of the default precision here."""
        return str(resolve_precision(self.default.precision, self.device)).removeprefix("torch.")

    def switches(self) -> list[Switch]:
        """Of rendering and training."""
        return [
            Switch(f"networks in {self.precision}", replace(self.default, precision="float32")),
            Switch("CUDA graphs", replace(self.default, cuda_graphs="off")),
        ]

    def training_switches(self) -> list[Switch]:
        """Of training alone."""
        return [
            Switch("frames stay on the device", replace(self.default, keep_frames=False)),
            Switch("deterministic", replace(self.default, deterministic=True), is_on=True),
        ]

    def trainer(self, settings: Settings, steps: int, continued: bool = False) -> Trainer:
        """A trainer of the capture in the shape of the preset `released`.

        Args:
            settings: its settings.
            steps: iterations of each stage.
            continued: whether to start from the weights of the last run that was saved.

        Raises RuntimeError if there is no capture, or no run to continue.
        """
        if self.capture is None:
            raise RuntimeError("no capture: the part that makes it has failed")
        gc.collect()  # earlier trainers, whose graphs hold memory
        self._n_trainers += 1
        config, frame_memory = self._config(settings, steps), None if settings.keep_frames else 0
        folder = self.folder / f"run_{self._n_trainers}"
        trainer = Trainer(
            *(self.capture, config, folder, self.device),
            frame_memory=frame_memory,
            cuda_graphs=settings.cuda_graphs,
            tell=self.notes.append,
        )
        if continued:
            trainer.portrait.load_state_dict(self.trained(settings).portrait.state_dict())
            # The box around the occupied cells is not in the state.
            trainer.portrait.head_grid.set_bitfield(trainer.portrait.head_grid.bitfield.clone())
        return trainer

    def trained(self, settings: Settings) -> TrainedPortrait:
        """The last portrait that was saved. Raises RuntimeError if there is none."""
        if self.run is None:
            raise RuntimeError("no portrait: the parts that train one have failed")
        precision = resolve_precision(settings.precision, self.device)
        graphs = cuda_graphs(settings.cuda_graphs, self.device, self.notes.append, precision)
        return load_portrait(self.run, self.device, precision, graphs)

    def _config(self, settings: Settings, steps: int) -> TrainConfig:
        config, sizes = PRESETS["released"], self.sizes
        stages = {name: replace(getattr(config, name), iterations=steps, n_rays=sizes.n_rays) for name in STAGES}
        # Needs no weights, so that every machine measures the same.
        stages["finetune"] = replace(stages["finetune"], perceptual="dssim")
        if sizes.n_rays < stages["finetune"].patch_size ** 2:
            stages["finetune"] = replace(stages["finetune"], patch_size=8)
        if sizes.grid_resolution is not None:
            grid = replace(config.portrait.head_grid, resolution=sizes.grid_resolution)
            config = replace(config, portrait=replace(config.portrait, head_grid=grid))
        return replace(config, precision=settings.precision, validation_frames=20, **stages)


def begin(trainer: Trainer, stage: str, warm_up: int = 0) -> None:
    """Start a stage where its steps are those of most of a training: with frames in memory, and past the first updates
    of the occupancy grid, which evaluate all cells.

    Args:
        trainer: of any stage.
        stage: name.
        warm_up: pairs of steps to take before: the first adapts the room for samples, and the others have CUDA graphs
            recorded, in a smaller room than that of a portrait of which nothing is known.
    """
    trainer.start_stage(stage)
    trainer.step = _STEADY_STEP
    frames = trainer.frames
    frames.announce(list(range(len(frames))))
    for i in range(len(frames)):
        frames.frame(i)
    for k in range(warm_up):
        # The first of a pair updates the grid; the stage finetune takes lips and patches in turn.
        trainer.step = _STEADY_STEP + k * trainer.config.grid_update_every
        take_steps(trainer, 2)
    trainer.step = _STEADY_STEP


def take_steps(trainer: Trainer, n: int) -> Tensor:
    """Take n training steps and, as the training loop does at a log line, adapt to what they found; [n] losses."""
    losses = torch.stack([trainer.train_step().loss for _ in range(n)])
    trainer.stages[trainer.stage].adjust()
    return losses
