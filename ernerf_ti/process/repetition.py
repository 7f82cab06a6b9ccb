"""Work that changes tensors in place, recorded as one CUDA graph that repeats it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ernerf_ti.process.graph_capture import Backend, Graph
from ernerf_ti.process.graphs import cause

_TIMES_NOISE = 10
_MOST = 0.5  # whatever the noise: what does not happen at all deviates by 1


@dataclass
class Repetition:
    """What :func:`record_repetition` has done."""

    result: Tensor
    """Of the plain run."""
    graph: Graph | None
    """Repeats the work; None if it can't."""
    repeated: Tensor | None
    """Memory that the graph writes its result to."""
    problem: str
    """Why there is no graph; "" if there is one."""


@torch.no_grad()
def record_repetition(
    backend: Backend,
    function: Callable[[], Tensor],
    written: Sequence[Tensor],
    tolerance: float,
    generator: torch.Generator | None = None,
    pool: Any = None,
    recording: Callable[[], AbstractContextManager] = nullcontext,
) -> Repetition:
    """Run a function, and record a graph that repeats it.

    It runs plainly twice from the same state, the second time on the stream of the recording, as a warm-up, and as the
    graph once more. What the graph changes may differ from the plain run by more than the second plain run does
    (sums of atomic operations have no fixed order), but not by much. The tensors are left as by the first run.

    Args:
        backend: makes the graph.
        function: reads and writes fixed memory, and never waits for the device.
        written: the tensors that it changes, and that it reads before.
        tolerance: largest deviation, relative to how much the plain run changes a tensor, in the Euclidean norm.
        generator: draws the function's random numbers; a replay continues from the state that it then has.
        pool: memory for the graph; None for its own.
        recording: context around the recording.

    Raises what the plain run raises.
    """
    before, state = _clones(written), None if generator is None else generator.get_state()

    def reset() -> None:
        _copy(written, before)
        if generator is not None and state is not None:
            generator.set_state(state)

    with torch.enable_grad():
        result = function().clone()
    after = _clones(written)
    graph, repeated, problem = None, None, ""
    try:
        reset()
        with backend.side_stream(), torch.enable_grad():
            again = function().clone()
        noise = _deviation((*before, torch.zeros_like(result)), (*after, result), (*written, again))
        reset()
        generators = [] if generator is None else [generator]
        with recording(), torch.enable_grad():
            graph, repeated = backend.capture(function, backend.pool() if pool is None else pool, generators)
        reset()
        graph.replay()
        deviation = _deviation((*before, torch.zeros_like(result)), (*after, result), (*written, repeated))
        allowed = min(_MOST, tolerance + _TIMES_NOISE * noise)
        if not deviation <= allowed:
            problem = f"expected the numbers of the plain run within {allowed:.1g}, got a deviation of {deviation:.1g}"
    except Exception as error:
        problem = f"it can't be recorded ({cause(error)})"
    if problem:
        graph = repeated = None
    _copy(written, after)
    return Repetition(result, graph, repeated, problem)


@contextmanager
def capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Context for recording steps of an optimizer: torch refuses them without this mark, and warns of it elsewhere."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False


def _clones(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _copy(to: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    torch._foreach_copy_(list(to), list(values))


def _deviation(before: Sequence[Tensor], expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Largest norm of a difference, relative to that of the expected change."""
    largest = [
        _norm(b - a) / _norm(a - z).clamp(min=torch.finfo(torch.float32).tiny)
        for z, a, b in zip(before, expected, got, strict=True)
        if a.numel()
    ]
    return float(torch.stack(largest).nan_to_num(torch.inf).max())


def _norm(x: Tensor) -> Tensor:
    return x.detach().float().norm()
