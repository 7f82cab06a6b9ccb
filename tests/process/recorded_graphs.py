"""CUDA graphs on the CPU, for tests: each operation is recorded with its tensors and repeated on the same memory.

What goes wrong on CUDA shows here as a wrong number, NaN or the same error:

- inputs that are not copied into the recorded tensors, and Python numbers that change, have no effect on a replay;
- results have no values before the first replay, and the next replay writes over them;
- graphs of one pool share memory: a replay spoils what graphs that were recorded later have computed;
- operations that wait for the device, copy numbers to it, or launch Taichi kernels can't be recorded.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ernerf_ti.process.graph_capture import CudaBackend

_ATEN = torch.ops.aten
_FORBIDDEN = {
    *(_ATEN._local_scalar_dense.default, _ATEN.nonzero.default, _ATEN.masked_select.default, _ATEN.equal.default),
    *(_ATEN.bincount.default, _ATEN.repeat_interleave.Tensor, _ATEN.lift_fresh.default),
}


class CountingBackend:
    """CUDA graphs on CUDA, :class:`RecordedGraph` on the CPU; counts recordings."""

    def __init__(self, device: torch.device, records_kernels: bool = False):
        self._backend = CudaBackend(device) if device.type == "cuda" else RecordingBackend(records_kernels)
        self.n_captures = 0
        self._made: weakref.WeakSet = weakref.WeakSet()

    @property
    def n_alive(self) -> int:
        """Graphs that still hold memory."""
        return len(self._made)

    def capture(self, function: Callable[[], Any], pool: Any, generators: Sequence = ()) -> tuple[Any, Any]:
        self.n_captures += 1
        graph, result = self._backend.capture(function, pool, generators)
        self._made.add(graph)
        return graph, result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class RecordingBackend:
    """Makes :class:`RecordedGraph`.

    Args:
        records_kernels: as the kernels' own launcher does on CUDA, where Taichi's can't be recorded.
    """

    def __init__(self, records_kernels: bool = False):
        self._records_kernels = records_kernels

    def pool(self) -> list["RecordedGraph"]:
        return []

    def side_stream(self) -> nullcontext:
        return nullcontext()

    def capture(
        self, function: Callable[[], Any], pool: list["RecordedGraph"], generators: Sequence = ()
    ) -> tuple["RecordedGraph", Any]:
        graph = RecordedGraph(pool, self._records_kernels, generators)
        with graph:
            result = function()
        graph.spoil()
        return graph, result

    def synchronize(self) -> None:
        return


class RecordedGraph(TorchDispatchMode):
    """Operations, with the tensors that they read and wrote."""

    def __init__(self, pool: list["RecordedGraph"], records_kernels: bool, generators: Sequence):
        super().__init__()
        self._pool, self._records_kernels, self._has_generators = pool, records_kernels, bool(generators)
        self._calls: list[tuple[Callable, tuple, dict, list[Tensor]]] = []
        self._allocated: list[Tensor] = []
        pool.append(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        indexes_by_mask = func is _ATEN.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        is_kernel = func.namespace == "taichi_kernels" and not self._records_kernels
        # Another object than that of the caller for the same generator, so that they can't be compared.
        draws = kwargs.get("generator") is not None and not self._has_generators
        if func in _FORBIDDEN or is_kernel or indexes_by_mask or draws:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        result = func(*args, **kwargs)
        outputs = _tensors(result)
        read = {_address(tensor) for tensor in _tensors((args, kwargs))}
        self._calls.append((func, args, kwargs, outputs))
        self._allocated += [tensor for tensor in outputs if _address(tensor) not in read]
        return result

    def replay(self) -> None:
        for graph in self._pool[self._pool.index(self) + 1 :]:
            graph.spoil()
        with torch.no_grad():
            for func, args, kwargs, outputs in self._calls:
                for recorded, repeated in zip(outputs, _tensors(func(*args, **kwargs)), strict=True):
                    if _address(recorded) != _address(repeated):  # neither a view nor written in place
                        # In another shape if it was squeezed in place since.
                        recorded.data.copy_(repeated.reshape(recorded.shape))

    def spoil(self) -> None:
        """Fill what the graph has allocated with NaN."""
        for tensor in self._allocated:
            if tensor.is_floating_point():
                tensor.data.fill_(torch.nan)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
