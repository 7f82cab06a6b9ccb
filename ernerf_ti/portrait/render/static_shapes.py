"""Where rendering and training use tensors of fixed shapes.

A shape that depends on values, such as the number of samples of all rays, makes the host wait for the device, and can't
be recorded in a CUDA graph. With fixed shapes work is padded instead: room for samples beyond the last one, torso
pixels that turn out to be empty. On a GPU that is cheaper than waiting; on a CPU the padding would only cost time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from taichi_kernels import runtime

_device_types = {"cuda"}


def static_shapes(device: torch.device) -> bool:
    """Whether shapes are fixed on a device: on CUDA, and on the CPU within :func:`static_shapes_on_cpu`."""
    return device.type in _device_types


def kernels_can_be_captured(device: torch.device) -> bool:
    """Whether CUDA graphs can hold our kernels there: they can if these are launched by their own launcher."""
    return static_shapes(device) and runtime.can_capture(device)


@contextmanager
def static_shapes_on_cpu() -> Iterator[None]:
    """Use fixed shapes on the CPU too, in all threads, to try what runs on CUDA."""
    had = "cpu" in _device_types
    _device_types.add("cpu")
    try:
        yield
    finally:
        if not had:
            _device_types.discard("cpu")
