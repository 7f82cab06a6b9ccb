"""Steps of an optimizer as a CUDA graph."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ernerf_ti.process.graph_capture import Backend, Graph
from ernerf_ti.process.graphs import STEADY_AFTER
from ernerf_ti.process.repetition import capturable, record_repetition

_TOLERANCE = 1e-3


class GraphedOptimizer:
    """Takes the steps of an optimizer, which is recorded once the same parameters have had gradients for a few steps.

    A plain step is undone and repeated by the graph, which has to give the same numbers. If it does not, or the
    recording fails, steps stay plain for good and `tell` is given a line that says why.

    Args:
        optimizer: its steps must not wait for the device. Its learning rates are tensors there, since a graph repeats
            the numbers that it was recorded with.
        backend: makes the graph; None to take every step plainly.
        tell: gets lines for the user.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, backend: Backend | None, tell: Callable[[str], None]):
        self._optimizer, self._backend, self._tell = optimizer, backend, tell
        self.clear()

    def clear(self) -> None:
        """Free the graph; later steps record it again."""
        self._graph: Graph | None = None
        self._gradients: list[Tensor] = []
        self._key: tuple[int, ...] = ()
        self._uses = 0

    def step(self) -> None:
        """Take a step with the gradients that the parameters have."""
        if self._backend is None:
            self._optimizer.step()
            return
        parameters = [p for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        # The graph reads and writes the addresses at which it was recorded.
        key = tuple(tensor.data_ptr() for tensor in self._written(parameters))
        if key != self._key:
            self.clear()
            self._key = key
        self._uses += 1
        if self._graph is not None:
            torch._foreach_copy_(self._gradients, [p.grad for p in parameters])
            self._graph.replay()
        elif self._uses <= STEADY_AFTER:
            self._optimizer.step()
        else:
            self._record(self._backend, parameters)

    def _written(self, parameters: list[Tensor]) -> list[Tensor]:
        """What a step changes: parameters, and their state once there is one."""
        states = (self._optimizer.state.get(p, {}) for p in parameters)
        return parameters + [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def _record(self, backend: Backend, parameters: list[Tensor]) -> None:
        """Take a step plainly, and record its repetition."""
        given = [parameter.grad for parameter in parameters]
        self._gradients = [gradient.clone() for gradient in given if gradient is not None]
        try:
            for parameter, gradient in zip(parameters, self._gradients, strict=True):
                parameter.grad = gradient
            recording = partial(capturable, self._optimizer)
            made = record_repetition(backend, self._step, self._written(parameters), _TOLERANCE, recording=recording)
        finally:
            for parameter, own in zip(parameters, given, strict=True):
                parameter.grad = own
        self._graph = made.graph
        if made.problem:
            self._backend, self._gradients = None, []
            self._tell(f"CUDA graph of the optimizer: {made.problem}; it runs without a graph")

    def _step(self) -> Tensor:
        self._optimizer.step()
        return self._gradients[0]
