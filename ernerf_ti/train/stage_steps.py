"""Steps of a stage: loss, gradients and optimizer, on CUDA as one graph."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ernerf_ti.portrait.render.static_shapes import kernels_can_be_captured
from ernerf_ti.process.graph_capture import Backend, Graph
from ernerf_ti.process.graphed_optimizer import GraphedOptimizer
from ernerf_ti.process.graphs import STEADY_AFTER, Graphs
from ernerf_ti.process.repetition import capturable, record_repetition
from ernerf_ti.train.stage import Stage, StepLoss, StepStatistics
from ernerf_ti.train.training_frames import TrainingFrame

_TIMES_TOLERANCE = 10  # of a function's results: how much that may change a step of the optimizer


class StageSteps:
    """Takes the steps of a stage.

    Where kernels can be recorded, steps of each kind are recorded once their shapes have been the same for a few, and
    repeated as one graph: rays, field, losses, gradients and optimizer. If that fails, `graphs.tell` is given a line
    that says why. From then on, as where kernels can't be recorded, there are graphs of what lies between the kernels.

    Args:
        stage: computes the loss; its `call` is `graphs` or calls plainly.
        optimizer: of the parameters.
        scaler: of the loss. With one that is enabled, for float16, the whole step is not recorded.
        graphs: of the stage.
    """

    def __init__(self, stage: Stage, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, graphs: Graphs):
        self._stage, self._optimizer, self._scaler, self._graphs = stage, optimizer, scaler, graphs
        self._graphed_optimizer = GraphedOptimizer(optimizer, graphs.backend, graphs.tell)
        self._whole: dict[str, _WholeStep] = {}
        self._ranks, self._parameters = stage.ranks, list(stage.parameters().values())
        self._can_be_whole = graphs.of_kernels and not scaler.is_enabled() and self._ranks.count == 1

    def take(self, frame: TrainingFrame, step: int, generator: torch.Generator) -> tuple[Tensor, StepLoss]:
        """Take a step.

        Args:
            frame: to train on.
            step: steps of the stage before this one.
            generator: draws all random numbers, on the training device.

        Returns:
            The loss [], and what it consists of.
        """
        kind, progress = self._stage.kind(step), step / self._stage.settings.iterations
        backend = self._graphs.backend
        if backend is None or not (self._can_be_whole and kernels_can_be_captured(frame.pixels.device)):
            return self._step(frame, kind, progress, generator)
        key = self._stage.key(kind)
        whole = self._whole.get(kind)
        if whole is None or whole.key != key:
            self._drop(kind, backend)
            whole = self._whole[kind] = _WholeStep(kind, key)
        whole.uses += 1
        with self._graphs.off():
            if whole.uses <= STEADY_AFTER:
                return self._step(frame, kind, progress, generator)
            if whole.graph is None:
                packed = self._record(whole, backend, frame, progress, generator)
            else:
                packed = whole.replay(frame, progress)
        return whole.unpack(packed)

    def clear(self) -> None:
        """Free the graphs; later steps record them again."""
        self._graphed_optimizer.clear()
        if self._graphs.backend is not None:
            for kind in list(self._whole):
                self._drop(kind, self._graphs.backend)

    def _step(
        self, frame: TrainingFrame, kind: str, progress: float | Tensor, generator: torch.Generator
    ) -> tuple[Tensor, StepLoss]:
        # Before the loss: the forward pass of a CUDA graph would have to copy gradients that are still there.
        self._optimizer.zero_grad(set_to_none=True)
        result = self._stage.loss(frame, kind, progress, generator)
        loss = result.total
        self._scaler.scale(loss).backward()
        self._ranks.sum_gradients(self._parameters)
        if self._scaler.is_enabled():
            self._scaler.step(self._optimizer)
            self._scaler.update()
        elif self._graphs.is_off:
            self._optimizer.step()
        else:
            self._graphed_optimizer.step()
        return loss, result

    def _record(
        self, whole: "_WholeStep", backend: Backend, frame: TrainingFrame, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Take a step, and record its repetition; returns what :meth:`_WholeStep.pack` does."""
        own_frame, own_progress = frame.in_own_memory(), torch.full((), progress, device=frame.pixels.device)
        whole.frame, whole.progress = own_frame, own_progress

        def step() -> Tensor:
            packed = whole.pack(*self._step(own_frame, whole.kind, own_progress, generator))
            self._optimizer.zero_grad(set_to_none=True)  # their memory is the graph's
            return packed

        pools = (other.pool for other in self._whole.values() if other.graph is not None)
        # One after the other, the graphs of all kinds can use the same memory.
        whole.pool = next(pools, None)
        if whole.pool is None:
            whole.pool = backend.pool()
        made = record_repetition(
            *(backend, step, self._written(), _TIMES_TOLERANCE * self._graphs.tolerance, generator, whole.pool),
            recording=partial(capturable, self._optimizer),
        )
        whole.graph, whole.values = made.graph, made.repeated
        if made.problem:
            self._can_be_whole = False
            self.clear()
            self._graphs.tell(
                f"CUDA graph of a whole step ({whole.kind}): {made.problem}; graphs between the kernels replace it"
            )
        return made.result

    def _written(self) -> list[Tensor]:
        """What a step changes: the parameters that get gradients, and the state of the optimizer."""
        return [
            tensor
            for parameter, state in self._optimizer.state.items()
            for tensor in (parameter, *(value for value in state.values() if isinstance(value, Tensor)))
        ]

    def _drop(self, kind: str, backend: Backend) -> None:
        whole = self._whole.pop(kind, None)
        if whole is not None and whole.graph is not None:
            backend.synchronize()  # it may still run


@dataclass
class _WholeStep:
    """Steps of one kind: how steadily they have the same shapes, and their graph with the memory that it uses."""

    kind: str
    key: Hashable
    uses: int = 0
    graph: Graph | None = None
    pool: Any = None
    frame: TrainingFrame | None = None
    progress: Tensor | None = None
    values: Tensor | None = None
    """What the graph computes, see :meth:`pack`."""
    _names: tuple[str, ...] = ()
    _statistics: StepStatistics | None = None

    def pack(self, loss: Tensor, result: StepLoss) -> Tensor:
        """One tensor with the loss, its terms and the statistics, float32."""
        self._names, self._statistics = tuple(result.terms), result.statistics
        numbers = (loss, *result.terms.values(), result.statistics.mse, result.statistics.n_samples)
        return torch.stack([number.detach().float() for number in numbers if isinstance(number, Tensor)])

    def unpack(self, packed: Tensor) -> tuple[Tensor, StepLoss]:
        """The inverse of :meth:`pack`."""
        loss, *others = packed.unbind()
        n = len(self._names)
        assert self._statistics is not None
        statistics = self._statistics._replace(mse=others[n])
        if isinstance(statistics.n_samples, Tensor):
            statistics = statistics._replace(n_samples=others[n + 1])
        return loss, StepLoss(dict(zip(self._names, others, strict=False)), statistics)

    def replay(self, frame: TrainingFrame, progress: float) -> Tensor:
        """Repeat the step with another frame."""
        assert self.graph is not None and self.values is not None
        assert self.frame is not None and self.progress is not None
        self.frame.load(frame)
        self.progress.fill_(progress)
        self.graph.replay()
        return self.values.clone()
