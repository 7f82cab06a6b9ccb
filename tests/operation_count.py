"""Counts the operations that a piece of code dispatches, and finds those that wait for the device."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = {"_local_scalar_dense", "nonzero", "linalg_inv_ex", "unique_dim", "_unique2", "masked_select", "bincount"}
_WITHOUT_LAUNCH = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "slice", "select", "split", "split_with_sizes", "expand"),
    *("unsqueeze", "squeeze", "detach", "alias", "unfold", "as_strided", "unbind", "tensor_split", "_reshape_alias"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
}


class Operations(TorchDispatchMode):
    """While active, records every operation of torch by name, and what would make the host wait on CUDA."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self._waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        self.names[name] += 1
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        # torch.tensor and new_tensor: numbers of the host, copied to the device from pageable memory.
        if name in _WAITING or by_mask or name == "lift_fresh":
            self._waits.append(name)
        return func(*args, **(kwargs or {}))

    def waits(self) -> list[str]:
        """Names of the operations that wait for the device."""
        return self._waits

    def count(self, name: str) -> int:
        """How often an operation was dispatched, in place or not."""
        return self.names[name] + self.names[f"{name}_"]

    def launches(self) -> int:
        """Operations that launch work on a device, where views and allocations do not."""
        return sum(n for name, n in self.names.items() if name not in _WITHOUT_LAUNCH)
