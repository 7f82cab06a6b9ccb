"""CUDA graphs of the work between the kernels.

A training step launches hundreds of small CUDA kernels from Python, one after the other, which takes longer than the
kernels run. A CUDA graph records the launches of a function once and repeats them all with one call
[https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs]. It repeats them on the same addresses, with the
same shapes and the same Python numbers. So inputs are copied into memory of the graph, other shapes get another graph,
and a function that is run as a graph

- computes its results from its tensor arguments and the parameters of its module alone, without side effects;
- waits for the device nowhere (`.item()`, `nonzero`, a tensor made of Python numbers);
- launches no kernel of ours, unless their own launcher is on: Taichi's launches can't be recorded
  (:func:`taichi_kernels.runtime.launch` raises an error).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ernerf_ti.process.device import CudaGraphs
from ernerf_ti.process.graph_capture import Backend, CapturedCall, CudaBackend, Input, plain_results

STEADY_AFTER = 8
"""Uses of a shape until it is recorded: some shapes come once."""
_STALE_AFTER = 6  # calls of the function without a use of the shape
_MAX_GRAPHS = 2  # of a function: each holds the memory of its activations
_MAX_SHAPES = 64  # of a function whose uses are counted
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
# torch records one graph at a time.
_capture_lock = threading.Lock()


class Graphs:
    """Calls functions as CUDA graphs: `graphs(function, *tensors, **flags)` is `function(*tensors, **flags)`.

    A function is recorded once its arguments have had the same shapes for a few calls. The results and gradients of
    the graph are then compared with those of the plain call; if they differ, or the recording fails, the function is
    called plainly for good and `tell` is given a line that says why. It is also called plainly under autocast, and
    while a forward pass of its graph waits for the backward pass.

    Drop what plain calls return, unless it is detached, before the call that records. On CUDA an autograd graph that is
    still alive ties the parameters to the stream of its call, and the recording on another stream fails.

    The function is an `nn.Module` or a method of one, whose parameters get gradients, or it depends on its arguments
    alone.
    Arguments are tensors, floats or None; flags are Python values, and each combination of them gets its own graph. It
    returns tensors and None in tuples, dictionaries and dataclasses. What is returned are copies that later calls
    leave alone. Gradients of parameters are memory of the graph until its next forward pass, which copies those
    that are still in `.grad`: clear them before it, not after it.

    Use one object in one thread and on one stream.

    Args:
        backend: makes the graphs; None to call everything plainly.
        tell: gets lines for the user.
        dtype: the least precise dtype that the functions compute in, which decides the tolerance of the comparison.
        of_kernels: whether graphs may hold our kernels, where these can be recorded.
    """

    def __init__(
        self,
        backend: Backend | None,
        tell: Callable[[str], None],
        dtype: torch.dtype = torch.float32,
        of_kernels: bool = True,
    ):
        self.backend, self.tell, self.tolerance, self.of_kernels = backend, tell, _TOLERANCES[dtype], of_kernels
        self._parameters: dict[Callable[..., Any], list[nn.Parameter]] = {}
        self._functions: dict[tuple[Callable[..., Any], bool], _GraphedFunction] = {}
        self.is_off = False

    def __call__(self, function: Callable[..., Any], *inputs: Input, **flags: Any) -> Any:
        """Call a function through its graph, or plainly; see the class."""
        if self.backend is None or self.is_off:
            return function(*inputs, **flags)
        return self._graphed(function, inputs)(inputs, flags)

    def whole(self, function: Callable[..., Any], *inputs: Input, **flags: Any) -> Any:
        """Call a function that launches kernels, where these can be recorded, as one graph.

        What it calls through this object is part of that graph. Where the whole can't be recorded, it has graphs of its
        own.
        """
        if self.backend is None or self.is_off or not self.of_kernels:
            return function(*inputs, **flags)
        graphed = self._graphed(function, inputs)
        if graphed.is_plain:
            return function(*inputs, **flags)
        with self.off():
            return graphed(inputs, flags)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Context in which functions are called plainly."""
        was, self.is_off = self.is_off, True
        try:
            yield
        finally:
            self.is_off = was

    def _graphed(self, function: Callable[..., Any], inputs: Sequence[Input]) -> "_GraphedFunction":
        parameters = self._parameters.get(function)
        if parameters is None:
            owner = getattr(function, "__self__", function)
            parameters = list(owner.parameters()) if isinstance(owner, nn.Module) else []
            self._parameters[function] = parameters
        needs_gradient = torch.is_grad_enabled() and any(
            isinstance(x, Tensor) and x.requires_grad for x in (*inputs, *parameters)
        )
        graphed = self._functions.get((function, needs_gradient))
        if graphed is None:
            assert self.backend is not None
            graphed = _GraphedFunction(function, parameters, self.backend, self.tolerance, self.tell)
            self._functions[function, needs_gradient] = graphed
        return graphed

    def clear(self) -> None:
        """Drop all graphs with their memory. Functions that are used again are recorded again."""
        for graphed in self._functions.values():
            graphed.clear()


def cuda_graphs(
    setting: CudaGraphs, device: torch.device | str, tell: Callable[[str], None], dtype: torch.dtype = torch.float32
) -> Graphs:
    """Graphs on CUDA, unless they are switched off; elsewhere functions are called plainly.

    Args:
        setting: "auto"; "parts" for graphs of what lies between the kernels alone, also where kernels can be recorded;
            or "off".
        device: where the functions run.
        tell, dtype: as of :class:`Graphs`.

    Raises ValueError for another setting.
    """
    if setting not in get_args(CudaGraphs):
        raise ValueError(f"cuda_graphs: expected auto, parts or off, got {setting!r}; pass one of these")
    device = torch.device(device)
    backend = CudaBackend(device) if setting != "off" and device.type == "cuda" else None
    return Graphs(backend, tell, dtype, of_kernels=setting == "auto")


@dataclass
class _Shapes:
    """One combination of shapes: how steadily it is used, and its graph."""

    uses: int = 0
    last_use: int = 0
    captured: CapturedCall | None = None


class _GraphedFunction:
    """The graphs of one function, by the shapes of its arguments.

    Args:
        function: the function.
        parameters: those of its module.
        backend: makes the graphs.
        tolerance: largest deviation of a graph from the plain call.
        tell: gets a line if the function is called plainly for good.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: list[nn.Parameter],
        backend: Backend,
        tolerance: float,
        tell: Callable[[str], None],
    ):
        self._function, self._parameters, self._backend = function, parameters, backend
        self._tolerance, self._tell = tolerance, tell
        self._by_key: dict[tuple[Any, ...], _Shapes] = {}
        self._n_calls = 0
        self.is_plain = False
        """Whether it can't be recorded."""

    def __call__(self, inputs: Sequence[Input], flags: dict[str, Any]) -> Any:
        captured = None
        if not (self.is_plain or torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu")):
            captured = self._captured(inputs, flags)
        if captured is None or captured.is_pending:
            return self._function(*inputs, **flags)
        return captured(inputs)

    def clear(self) -> None:
        """Drop the graphs."""
        self._drop(list(self._by_key))

    def _captured(self, inputs: Sequence[Input], flags: dict[str, Any]) -> CapturedCall | None:
        if len(self._by_key) > _MAX_SHAPES:
            self._drop_stale()
        shapes = self._by_key.setdefault(self._key(inputs, flags), _Shapes())
        self._n_calls += 1
        shapes.uses = shapes.uses + 1 if self._n_calls - shapes.last_use <= _STALE_AFTER else 1
        shapes.last_use = self._n_calls
        if shapes.captured is None and shapes.uses >= STEADY_AFTER:
            shapes.uses = 0
            if self._has_room():
                shapes.captured = self._capture(inputs, flags)
        return shapes.captured

    def _key(self, inputs: Sequence[Input], flags: dict[str, Any]) -> tuple[Any, ...]:
        return (
            *((x.shape, x.dtype, x.requires_grad) if isinstance(x, Tensor) else type(x) for x in inputs),
            # A graph reads the addresses that the parameters had when it was recorded.
            *((parameter.data_ptr(), parameter.requires_grad) for parameter in self._parameters),
            *sorted(flags.items()),
        )

    def _has_room(self) -> bool:
        """Whether one more graph may be recorded, once those that are not in use any more are dropped."""
        self._drop_stale()
        return sum(shapes.captured is not None for shapes in self._by_key.values()) < _MAX_GRAPHS

    def _drop_stale(self) -> None:
        self._drop([key for key, shapes in self._by_key.items() if self._n_calls - shapes.last_use > _STALE_AFTER])

    def _drop(self, keys: list[tuple[Any, ...]]) -> None:
        if any(self._by_key[key].captured is not None for key in keys):
            self._backend.synchronize()  # it may still run
        for key in keys:
            del self._by_key[key]

    def _capture(self, inputs: Sequence[Input], flags: dict[str, Any]) -> CapturedCall | None:
        """The graph of a call, or None if it can't be recorded or is wrong."""
        try:
            expected = plain_results(self._function, self._parameters, inputs, flags)
            with _capture_lock:
                captured = CapturedCall(self._backend, self._function, self._parameters, inputs, flags, expected)
            deviation = captured.deviation(inputs, expected)
            if deviation <= self._tolerance:
                return captured
            reason = (
                f"expected results within {self._tolerance:.1g} of the plain call's, got a deviation of {deviation:.1g}"
            )
        except Exception as error:
            reason = f"it can't be recorded ({cause(error)})"
        self.is_plain = True
        self.clear()
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        self._tell(f"CUDA graph of {name}: {reason}; it runs without a graph")
        return None


def cause(error: BaseException) -> str:
    """First line of the error that others followed from: ending a recording that has failed raises one more."""
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
