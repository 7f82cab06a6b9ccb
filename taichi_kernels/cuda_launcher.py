"""Launch kernels that Taichi has compiled for CUDA by the driver, without Taichi's launcher.

On by default. With the environment variable TAICHI_KERNELS_CUDA_LAUNCHER=taichi, Taichi launches the kernels of a
process instead.

Taichi's own launch works on device 0 and the legacy default stream only, allocates and copies around every launch,
and can't be captured in a CUDA graph. Launched here, a kernel is one `cuLaunchKernel` with its arguments by value, on
torch's current stream of the device where its tensors are:

1. The first launch of a kernel is Taichi's, which compiles it (:func:`taichi_kernels.ptx.ptx_of`).
2. Its code is rewritten to take its arguments by value (:func:`taichi_kernels.ptx.pass_by_value`), so that nothing is
   allocated or copied, and a captured launch keeps its arguments with the graph.
3. The code is loaded on each device when it is first used there, and launched with as many blocks as there is work for.

So each kernel has to run once on a device before it can be captured there.

It takes kernels that are one loop over a number known at compile time, or no parallel loop, and that use nothing of
Taichi's runtime: no random numbers, printing, assertions or temporary memory. Others keep Taichi's launch, which
a warning says once for each.
"""

import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from taichi_kernels.cuda_driver import LoadedFunction
from taichi_kernels.ptx import KernelCode, UnsuitableKernel

SWITCH = "TAICHI_KERNELS_CUDA_LAUNCHER"

# Enough to fill a multiprocessor.
_THREADS_PER_MULTIPROCESSOR = 2048
# Taichi's argument buffer is laid out as a C structure; an array is one of its length and its address.
_ARRAY = "0QiQ"
_NUMBERS = {"i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f", "f64": "d"}


def is_switched_on() -> bool:
    """Whether this launcher is used, which it is unless the environment asks for Taichi's.

    Raises ValueError if the variable is neither "driver", the default, nor "taichi".
    """
    value = os.environ.get(SWITCH) or "driver"
    if value not in ("driver", "taichi"):
        raise ValueError(f"{SWITCH}: expected driver or taichi, got {value!r}; unset it for the default, driver")
    return value == "driver"


def argument_layout(args: Sequence[Any], annotations: Sequence[Any]) -> struct.Struct:
    """Layout of the buffer of a kernel's arguments.

    Pack it with the arguments in their order: number of elements and address of a tensor, numbers as they are.

    Args:
        args: of a launch.
        annotations: of the kernel's arguments.

    Raises UnsuitableKernel if there are arguments of other kinds than flat tensors and numbers of 4 or 8 bytes.
    """
    parts = []
    for a, annotation in zip(args, annotations, strict=True):
        if isinstance(a, Tensor):
            if annotation.ndim != 1 or annotation.needs_grad is not False:
                raise UnsuitableKernel("it takes arrays that are not flat, or that have gradients")
            parts.append(_ARRAY)
        else:
            name = annotation.to_string()
            if name not in _NUMBERS:
                raise UnsuitableKernel(f"it takes a number of type {name}")
            parts.append(_NUMBERS[name])
    return struct.Struct("@" + "".join(parts) + "0Q")


class DriverKernel:
    """One kernel, launched by the driver.

    Args:
        name: for errors.
        code: takes its arguments by value.
        layout: of its arguments.
        max_elements: in a tensor.
        check: raises the error for a tensor that has more, or no memory.
    """

    def __init__(
        self, name: str, code: KernelCode, layout: struct.Struct, max_elements: int, check: Callable[[Tensor], None]
    ):
        self._name, self._code, self._layout = name, code, layout
        self._max_elements, self._check = max_elements, check
        self._functions: dict[int, LoadedFunction] = {}
        self._lock = threading.Lock()

    def launch(self, args: Sequence[Any]) -> None:
        """Launch on torch's current stream of the tensors' device. Does not wait.

        Raises ValueError for a number that does not fit its type, RuntimeError with the driver's words if it fails, and
        inside the capture of a CUDA graph if it has not run on this device before.
        """
        values: list[Any] = []
        n_largest = 0
        for a in args:
            if isinstance(a, Tensor):
                n, address = a.numel(), a.data_ptr()
                if n > n_largest:
                    n_largest = n
                if address == 0:
                    self._check(a)
                values.append(n)
                values.append(address)
            else:
                values.append(a)
        if n_largest > self._max_elements:
            for a in args:
                if isinstance(a, Tensor):
                    self._check(a)
        try:
            parameter = self._layout.pack(*values)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{self._name}: expected numbers that fit their types, got {args!r}: {error}") from None
        device_index = device_of(args)
        function = self._functions.get(device_index) or self.load(device_index)
        function.launch(
            self._n_blocks(n_largest, function.n_multiprocessors),
            self._code.n_threads,
            torch.cuda.current_stream(device_index).cuda_stream,
            parameter,
        )

    def load(self, device_index: int) -> LoadedFunction:
        """Load the code on a device, for which nothing there may be captured at the time.

        Raises RuntimeError if something is, or with the driver's words if it does not take the code.
        """
        with self._lock:
            if device_index not in self._functions:
                refuse_in_capture(self._name, device_index)
                self._functions[device_index] = LoadedFunction(
                    device_index, self._code.text, self._code.entry, self._name
                )
            return self._functions[device_index]

    def _n_blocks(self, n: int, n_multiprocessors: int) -> int:
        # The size of the largest tensor bounds what there is to do in our kernels. Other numbers are slower, not wrong.
        # At least a block for each multiprocessor: each thread of a smaller launch counts through more of the threads
        # that the code was compiled for.
        if not self._code.is_loop:
            return 1
        n_threads = self._code.n_threads
        n_full = n_multiprocessors * (_THREADS_PER_MULTIPROCESSOR // n_threads)
        return min(max((n + n_threads - 1) // n_threads, n_multiprocessors), n_full)


def device_of(args: Sequence[Any]) -> int:
    """Number of the device of the first tensor; the others are on the same."""
    for a in args:
        if isinstance(a, Tensor):
            return a.get_device()
    raise ValueError("expected a tensor among the arguments of a kernel, got none")


def refuse_in_capture(name: str, device_index: int) -> None:
    with torch.cuda.device(device_index):
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{name}: expected a kernel that has run on cuda:{device_index} before the capture of a CUDA graph, "
                "got its first launch in one, which has to compile or load it; run what you capture once before"
            )
