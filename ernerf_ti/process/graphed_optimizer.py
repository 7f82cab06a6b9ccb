"""Steps of an optimizer as a CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor

from ernerf_ti.process.graph_capture import Backend, Graph
from ernerf_ti.process.graphs import STEADY_AFTER, cause

_TOLERANCE = 1e-5  # of a repeated step, relative to the largest value of a tensor


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

    @torch.no_grad()
    def _record(self, backend: Backend, parameters: list[Tensor]) -> None:
        """Take a step plainly, and record its repetition."""
        written, given = self._written(parameters), [p.grad for p in parameters]
        before = [tensor.clone() for tensor in written]
        self._optimizer.step()
        after = [tensor.clone() for tensor in written]
        try:
            self._gradients = [gradient.clone() for gradient in given if gradient is not None]
            for parameter, gradient in zip(parameters, self._gradients, strict=True):
                parameter.grad = gradient
            self._set_capturable(True)
            graph, _ = backend.capture(self._step, backend.pool())
            torch._foreach_copy_(written, before)
            graph.replay()
            deviation = max(_deviation(*pair) for pair in zip(after, written, strict=True))
            if deviation > _TOLERANCE:
                raise ValueError(f"expected the numbers of a plain step, got a deviation of {deviation:.1g}")
            self._graph = graph
        except Exception as error:
            self._backend, self._gradients = None, []
            self._tell(f"CUDA graph of the optimizer: {cause(error)}; it runs without a graph")
        finally:
            self._set_capturable(False)
            for parameter, own in zip(parameters, given, strict=True):
                parameter.grad = own
            torch._foreach_copy_(written, after)

    def _step(self) -> None:
        self._optimizer.step()

    def _set_capturable(self, value: bool) -> None:
        # Torch warns of steps outside of a recording with it, and refuses to record without it.
        for group in self._optimizer.param_groups:
            group["capturable"] = value


def _deviation(expected: Tensor, got: Tensor) -> float:
    largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float(((got - expected).abs().max() / largest).nan_to_num(torch.inf)) if expected.numel() else 0.0
