"""Rendered frames as images on the host, so that rendering, copying and what the caller does with them overlap.

On CUDA a frame is converted to 8 bits on the device, and copied into pinned memory on a stream of its own while the
next frames are rendered. Frames are rendered in a thread of their own, :func:`images_ahead`, which is the only one that
calls CUDA; the caller encodes them in another. The CPU does the same without streams and pinned memory.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.process.prefetch import ahead, in_flight
from ernerf_ti.process.threads import adaptive_threads
from ernerf_ti.synthesis.frames import frames_in_flight

Image = Callable[[RenderOutput], Tensor]
"""A rendered frame -> [H, W, channels] uint8 on its device."""


def images_ahead(
    frames: Iterable[RenderOutput], images: Sequence[Image], device: torch.device
) -> Generator[tuple[np.ndarray, ...], None, None]:
    """:func:`images_on_host` in a thread of its own, a few frames ahead, with the best number of CPU threads.

    Close it to stop the thread early (`contextlib.closing`). An exception in the thread is raised here.
    """
    return ahead(adaptive_threads(images_on_host(frames, images, device), device.type))


def images_on_host(
    frames: Iterable[RenderOutput], images: Sequence[Image], device: torch.device
) -> Iterator[tuple[np.ndarray, ...]]:
    """The images of each frame, in order.

    Args:
        frames: rendered frames, as of :func:`ernerf_ti.synthesis.frames.render_frames`.
        images: what is made of a frame.
        device: of the frames.

    Yields:
        For each of `images` an array [H, W, channels] uint8.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    started = (_start_copies(tuple(image(frame) for image in images), stream) for frame in frames)
    for copies in in_flight(started, frames_in_flight(device)):
        yield copies.arrays()


class _Copies(NamedTuple):
    """Images of a frame on their way to the host."""

    on_device: tuple[Tensor, ...]
    """Kept until the copies are complete: the memory of a tensor that is dropped goes to the next one."""
    on_host: tuple[Tensor, ...]
    complete: torch.cuda.Event | None

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Wait for the copies."""
        if self.complete is not None:
            self.complete.synchronize()
        return tuple(image.numpy() for image in self.on_host)


def _start_copies(images: tuple[Tensor, ...], stream: torch.cuda.Stream | None) -> _Copies:
    """Copy images to the host on a stream, after the work that was submitted to the current stream before.

    Torch keeps pinned memory that is freed, and hands it out again when the copies into it are complete: after the
    first frames none is allocated.
    """
    if stream is None:
        return _Copies(images, images, None)
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        on_host = tuple(_pinned_like(image).copy_(image, non_blocking=True) for image in images)
    # A blocking event lets the waiting thread sleep, and leaves its core to the encoder.
    return _Copies(images, on_host, stream.record_event(torch.cuda.Event(blocking=True)))


def _pinned_like(image: Tensor) -> Tensor:
    return torch.empty(image.shape, dtype=image.dtype, device="cpu", pin_memory=True)
