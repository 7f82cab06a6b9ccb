"""Record the torch operations that a piece of code calls, to find those that wait for the device."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "repeat_interleave", "bincount"),
    *("_linalg_check_errors", "linalg_inv_ex"),
    "lift_fresh",  # torch.tensor and new_tensor: numbers of the host, copied to the device from pageable memory
}
_WITHOUT_LAUNCH = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "slice", "select", "split", "split_with_sizes", "expand"),
    *("unsqueeze", "squeeze", "detach", "alias", "unfold", "as_strided", "unbind", "tensor_split", "_reshape_alias"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
}


@dataclass
class Operations:
    """Names of the operations, in order."""

    names: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    """Those whose shape or result depends on values, for which a GPU would be waited for, or that bring a tensor of a
    GPU to the CPU."""
    from_host: list[str] = field(default_factory=list)
    """Those that bring a tensor of the CPU, or Python numbers, to another device."""

    def count(self, name: str) -> int:
        """How often an operation was called, in place or not."""
        return self.names.count(name) + self.names.count(f"{name}_")

    @property
    def launches(self) -> int:
        """Operations that launch work on a device, where views and allocations do not."""
        return sum(name not in _WITHOUT_LAUNCH for name in self.names)


class _Recorder(TorchDispatchMode):
    def __init__(self, operations: Operations):
        super().__init__()
        self._operations = operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self._operations.names.append(name)
        indexed_by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in _WAITS or indexed_by_mask:
            self._operations.waits.append(name)
        result = func(*args, **(kwargs or {}))
        given, made = _devices(args), _devices((result,))
        if given == {"cpu"} and made - {"cpu"}:
            self._operations.from_host.append(name)
        if given - {"cpu"} and made == {"cpu"} and not _waits_for_nothing(name, args, kwargs or {}):
            self._operations.waits.append(name)
        return result


class _FromPython(TorchFunctionMode):
    """Tensors that are made of Python numbers are no operations to the recorder."""

    def __init__(self, operations: Operations):
        super().__init__()
        self._operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in ("tensor", "as_tensor", "new_tensor") and result.device.type != "cpu":
            self._operations.from_host.append(name)
        return result


def _waits_for_nothing(name: str, args: Any, kwargs: Any) -> bool:
    """Whether it is a copy into pinned memory that goes on in the background."""
    non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    return name == "copy_" and bool(non_blocking) and args[0].is_pinned()


def _devices(values: Iterable[Any]) -> set[str]:
    return {value.device.type for value in values if isinstance(value, torch.Tensor)}


@contextmanager
def recorded_operations() -> Iterator[Operations]:
    """The operations within the block, outside of operations of our own."""
    operations = Operations()
    with _FromPython(operations), _Recorder(operations):
        yield operations
