"""A function call recorded as CUDA graphs of its forward and backward pass.

Graphs repeat recorded launches on the same addresses. So what is here owns the tensors that the recording reads and
writes: inputs, results, gradients of results, and gradients. :mod:`ernerf_ti.process.graphs` decides what is recorded.
"""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Input = Tensor | float | None
"""Argument of a recorded function; a float is recorded as a tensor []."""
Recorded = TypeVar("Recorded")

_WARM_UPS = 3  # calls before the recording, in which libraries choose algorithms and allocate


class Graph(Protocol):
    """Recorded launches."""

    def replay(self) -> None: ...


class Backend(Protocol):
    """What this module needs of `torch.cuda`."""

    def pool(self) -> Any:
        """Memory that graphs may share which run in the order of their recording."""

    def side_stream(self) -> AbstractContextManager[None]:
        """A stream for the calls before a recording, ordered with the current one at both ends."""

    def capture(
        self, function: Callable[[], Recorded], pool: Any, generators: Sequence[torch.Generator] = ()
    ) -> tuple[Graph, Recorded]:
        """Record the launches of a function. Its tensors have no values before the graph is replayed, which draws from
        the generators as they are then."""

    def synchronize(self) -> None: ...


class CudaBackend:
    """CUDA graphs of torch.

    Args:
        device: where the functions run.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)  # also before memory that was used here is given to others

    def capture(
        self, function: Callable[[], Recorded], pool: Any, generators: Sequence[torch.Generator] = ()
    ) -> tuple[Graph, Recorded]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            # thread_local: other threads decode frames and pin memory meanwhile, which "global" would forbid them.
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                result = function()
        except BaseException:
            self._end_allocation(pool)
            self._end_capture_of_generators(generators)
            raise
        finally:
            # torch leaves the stream of the recording current when the recording fails.
            torch.cuda.set_stream(current)
        return graph, result

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def _end_allocation(self, pool: Any) -> None:
        """Torch 2.11 goes on as if a recording were underway when CUDA has ended it with an error: memory that other
        streams have used is then never free again, and later recordings fail."""
        with suppress(AttributeError, RuntimeError):  # it has ended by itself
            torch._C._cuda_endAllocateToPool(self._device.index or 0, pool)

    def _end_capture_of_generators(self, generators: Sequence[torch.Generator]) -> None:
        """These generators and the default one would refuse to draw numbers outside of the recording that has failed:
        copies of their states, which belong to none, take their place."""
        with suppress(AttributeError, IndexError, RuntimeError):
            for generator in (*generators, torch.cuda.default_generators[self._device.index or 0]):
                generator.graphsafe_set_state(generator.clone_state())


@dataclass
class PlainResults:
    """Detached results of a call, and gradients for random gradients of the results."""

    outputs: list[Tensor]
    output_gradients: list[Tensor | None]
    """Random; None for results without a gradient."""
    gradients: list[Tensor | None]
    """Of the inputs that are tensors, then of the parameters; None for those without one."""
    rebuild: Callable[[Iterator[Tensor]], Any]
    """Makes what the function returns from its tensors."""


def plain_results(
    function: Callable[..., Any],
    parameters: list[nn.Parameter],
    inputs: Sequence[Input],
    flags: dict[str, Any],
) -> PlainResults:
    """Call a function plainly, for a comparison; arguments as of :class:`CapturedCall`.

    Raises ValueError if gradients would flow into other tensors than the inputs and parameters.
    """
    leaves = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]
    outputs, rebuild = _flatten(function(*leaves, **flags))
    generator = torch.Generator(outputs[0].device).manual_seed(0)
    output_gradients: list[Tensor | None] = []
    for output in outputs:
        # Small, as those of a mean are: half precision must not overflow.
        noise = torch.randn(output.shape, generator=generator, device=output.device) / max(1, output.numel()) ** 0.5
        output_gradients.append(noise.to(output.dtype) if output.requires_grad else None)
    sources = _tensors(leaves) + parameters
    known = {id(source) for source in sources}
    if any(id(leaf) not in known for leaf in _graph_leaves(outputs)):
        raise ValueError("expected gradients of its arguments and its module's parameters, got others; pass them in")
    gradients = _gradients(outputs, sources, output_gradients)
    return PlainResults([output.detach() for output in outputs], output_gradients, gradients, rebuild)


def _gradients(
    outputs: Sequence[Tensor], sources: Sequence[Tensor], output_gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients of the sources; None for those that need none."""
    wanted = [source for source in sources if source.requires_grad]
    differentiable = [output for output in outputs if output.requires_grad]
    if not (wanted and differentiable):
        return [None] * len(sources)
    given = [gradient for gradient in output_gradients if gradient is not None]
    found = iter(torch.autograd.grad(differentiable, wanted, given, allow_unused=True))
    return [next(found) if source.requires_grad else None for source in sources]


def _graph_leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that gradients of the outputs would be accumulated in."""
    nodes, seen, leaves = [output.grad_fn for output in outputs], set(), []
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
            if hasattr(node, "variable"):
                leaves.append(node.variable)
    return leaves


class CapturedCall:
    """A call at fixed shapes as two graphs, of its forward and backward pass, on memory of their own.

    Args:
        backend: makes the graphs.
        function, inputs, flags: the call.
        parameters: those of the function's module.
        expected: results of the plain call.
    """

    def __init__(
        self,
        backend: Backend,
        function: Callable[..., Any],
        parameters: list[nn.Parameter],
        inputs: Sequence[Input],
        flags: dict[str, Any],
        expected: PlainResults,
    ):
        self._rebuild = expected.rebuild
        device = expected.outputs[0].device
        self._inputs = [_static(x, device) for x in inputs]
        n_inputs = len(_tensors(inputs))
        # Those that the function does not use would be without a gradient.
        self._parameters = [
            p for p, gradient in zip(parameters, expected.gradients[n_inputs:], strict=True) if gradient is not None
        ]
        pairs = zip(self._inputs, inputs, strict=True)
        sources = [x for x, given in pairs if x is not None and isinstance(given, Tensor)] + self._parameters
        self._output_gradients = [None if g is None else torch.empty_like(g) for g in expected.output_gradients]

        def forward() -> list[Tensor]:
            return _flatten(function(*self._inputs, **flags))[0]

        with backend.side_stream():
            for _ in range(_WARM_UPS):
                _gradients(forward(), sources, self._output_gradients)
        pool = backend.pool()
        self._forward, outputs = backend.capture(forward, pool)
        self._backward: Graph | None = None
        self._gradients: list[Tensor | None] = [None] * len(sources)
        if any(output.requires_grad for output in outputs):
            self._backward, self._gradients = backend.capture(
                lambda: _gradients(outputs, sources, self._output_gradients), pool
            )
        # Detached: the nodes of the recorded call would tie the parameters to the stream of the recording.
        self._outputs = [output.detach() for output in outputs]
        self._last_pass: Callable[[], _Pass | None] = lambda: None

    @property
    def n_parameters(self) -> int:
        """Parameters that get a gradient."""
        return len(self._parameters)

    @property
    def is_pending(self) -> bool:
        """Whether a backward pass still needs what the last forward pass has left in the graph's memory."""
        last = self._last_pass()
        return last is not None and not last.is_done

    def __call__(self, inputs: Sequence[Input]) -> Any:
        if self._backward is None:
            with torch.no_grad():
                return self._rebuild(iter(self.forward(inputs)))
        return self._rebuild(iter(_Replay.apply(self, inputs, *_tensors(inputs), *self._parameters)))

    @torch.no_grad()
    def deviation(self, inputs: Sequence[Input], expected: PlainResults) -> float:
        """Largest deviation from the plain results, relative to the largest value of each; waits for the device."""
        for buffer in self._inputs:
            if buffer is not None:
                buffer.zero_()  # what is not copied in must show
        pairs = list(zip(expected.outputs, self.forward(inputs), strict=True))
        if self._backward is not None:
            found = [g for g in self.backward(expected.output_gradients) if g is not None]
            pairs += zip([g for g in expected.gradients if g is not None], found, strict=True)
        return max(_deviation(*pair) for pair in pairs)

    def forward(self, inputs: Sequence[Input]) -> list[Tensor]:
        """Copies of the results; called without gradients."""
        first = len(self._gradients) - len(self._parameters)
        for parameter, buffer in zip(self._parameters, self._gradients[first:], strict=True):
            # From here on the graph writes over its gradients, which autograd hands over without a copy.
            gradient = parameter.grad
            if gradient is not None and buffer is not None and gradient.data_ptr() == buffer.data_ptr():
                parameter.grad = gradient.clone()
        for static, given in zip(self._inputs, inputs, strict=True):
            if static is None or given is None:
                continue
            if isinstance(given, Tensor):
                static.copy_(given)
            else:
                static.fill_(given)
        self._forward.replay()
        return [output.clone() for output in self._outputs]

    def backward(self, output_gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of the tensors among the inputs and of the used parameters, in memory of the graph."""
        assert self._backward is not None
        for static, given in zip(self._output_gradients, output_gradients, strict=True):
            if static is not None:
                if given is None:
                    static.zero_()
                else:
                    static.copy_(given)
        self._backward.replay()
        return [None if gradient is None else gradient.detach() for gradient in self._gradients]

    def begin(self) -> "_Pass":
        """A forward pass whose backward pass will follow, unless what it returns is dropped."""
        begun = _Pass()
        self._last_pass = weakref.ref(begun)
        return begun

    def is_differentiable(self, i: int) -> bool:
        """Whether result i has a gradient."""
        return self._output_gradients[i] is not None


class _Pass:
    """A forward pass, kept alive by what it has returned."""

    is_done = False


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, captured: CapturedCall, inputs: Sequence[Input], *sources: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.captured, ctx.begun = captured, captured.begin()
        ctx.is_leaf = [source.is_leaf for source in sources[: len(sources) - captured.n_parameters]]
        outputs = captured.forward(inputs)
        ctx.mark_non_differentiable(*(o for i, o in enumerate(outputs) if not captured.is_differentiable(i)))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *output_gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if ctx.begun.is_done:
            raise RuntimeError(
                "CUDA graph: expected one backward pass after a forward pass, got a second one, whose intermediate "
                "values are gone; set cuda_graphs to off"
            )
        ctx.begun.is_done = True
        gradients = ctx.captured.backward(output_gradients)
        for i, is_leaf in enumerate(ctx.is_leaf):
            if is_leaf and gradients[i] is not None:
                gradients[i] = gradients[i].clone()  # it will be in .grad when the graph writes there again
        return None, None, *gradients


def _flatten(value: Any) -> tuple[list[Tensor], Callable[[Iterator[Tensor]], Any]]:
    """The tensors in what a function returns, and a function that puts others in their places."""
    if isinstance(value, Tensor):
        return [value], next
    if value is None:
        return [], lambda tensors: None
    kind = type(value)
    if isinstance(value, dict):
        names, values = list(value), list(value.values())
        make = lambda found: dict(zip(names, found, strict=True))  # noqa: E731
    elif is_dataclass(value):
        values, make = [getattr(value, field.name) for field in fields(value)], lambda found: kind(*found)
    else:
        values, make = list(value), getattr(kind, "_make", kind)
    parts = [_flatten(part) for part in values]
    rebuilders = [rebuild for _, rebuild in parts]
    return [tensor for found, _ in parts for tensor in found], lambda tensors: make([r(tensors) for r in rebuilders])


def _tensors(values: Sequence[Input]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def _static(value: Input, device: torch.device) -> Tensor | None:
    """Memory for an argument, with its present value."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    return None if value is None else torch.full((), value, device=device)


def _deviation(expected: Tensor, got: Tensor) -> float:
    """Largest difference relative to the largest finite value of `expected`; infinite if one alone is not finite."""
    if not expected.numel():
        return 0.0
    a, b = (x if x.dtype == torch.float64 else x.float() for x in (expected, got))
    largest = a.abs().nan_to_num(0.0, 0.0, 0.0).max()
    same = (a == b) | (a.isnan() & b.isnan())
    relative = torch.where(same, 0.0, (a - b).abs() / largest).nan_to_num(math.inf)
    return float(relative.max())
