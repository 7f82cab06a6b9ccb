"""Pixels of training frames in the memory of the training device, decoded ahead of their use.

A frame of the head stages takes 8 bytes a pixel (image RGB, torso RGBA, marks), one of the torso stage 4 (torso RGBA).
At 512x512 that is 2 MiB or 1 MiB. A clip of five minutes (7,500 frames, 6,818 of them trained on) takes 13.3 GiB or
6.7 GiB: by default it fits on a card of 48 GB. On a card of 6 GB of which 5.5 GiB are free, 0.75 GiB are for
frames, 384 or 768 of them; the others are decoded by threads and copied again whenever they are used, which takes
another 34 MiB for the frames on their way.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

N_AHEAD = 16
"""Frames that are decoded ahead of their use."""

_CPU_BYTES = 1 << 31
_TRAINING_BYTES = 4 << 30  # in float32 tensors take up to 3.0 GB at 65,536 rays (`ernerf-ti bench memory`)
_MAX_THREADS = 8


def default_frame_memory(device: torch.device) -> int:
    """Bytes for the frames that stay in memory: 2 GiB on the CPU; on CUDA half of what training leaves.

    Training itself is counted with 4 GiB. On a card with less free memory than that no frame stays.
    """
    if device.type == "cpu":
        return _CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return max(0, (free - _TRAINING_BYTES) // 2)


def decoding_threads(device: torch.device) -> int:
    """Threads that decode frames: none on the CPU, whose cores the training itself needs."""
    return 0 if device.type == "cpu" else max(1, min(_MAX_THREADS, (os.cpu_count() or 1) // 2))


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all stores on a CUDA device: torch keeps freed memory for the stream that it was made on."""
    return torch.cuda.Stream(device)


class FrameStore:
    """uint8 tensors of frames by index.

    Frames stay until they take `max_bytes`. Those that are read later pass through: they are held from the time that
    they are announced to the time that another frame is used. Epochs visit all frames, each in its own random order:
    a store with room for half of them serves half of the reads, while one that drops the least recently used frame
    would serve 15 %.

    On CUDA, threads decode the announced frames into pinned memory, from which they are copied on a stream of their
    own. The stream that uses a frame waits for its copy on the device; the host waits only for a frame that is not
    decoded in time. The threads call nothing of CUDA, which would break the recording of a CUDA graph meanwhile.

    Args:
        read: index -> uint8 array; called by threads if there are any.
        shape: of a frame.
        device: where the tensors lie.
        max_bytes: of the frames that stay.
        n_threads: threads that decode the announced frames; 0 decodes each frame when it is used.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        shape: tuple[int, ...],
        device: torch.device,
        max_bytes: int = 0,
        n_threads: int = 0,
    ):
        self._read, self._shape, self._device = read, shape, device
        self._max_bytes, self._n_threads = max_bytes, n_threads
        self._copy_stream = _copy_stream(device) if device.type == "cuda" else None
        self._threads: ThreadPoolExecutor | None = None
        self._decoding: dict[int, Future[Tensor]] = {}
        self._copies: dict[int, torch.cuda.Event] = {}  # those that no other stream has waited for yet
        self._staying: dict[int, Tensor] = {}
        self._passing: dict[int, Tensor] = {}
        self._bytes = 0
        self._announced: frozenset[int] = frozenset()

    def get(self, i: int) -> Tensor:
        """The tensor of frame i. It must not be changed, and is used on the current stream.

        Raises what `read` raises.
        """
        frame = self._find(i)
        if frame is None:
            future = self._decoding.pop(i, None)
            frame = self._admit(i, self._decode(i, self._buffer()) if future is None else future.result())
        copy = self._copies.pop(i, None)
        if copy is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copy)
            frame.record_stream(stream)  # its memory is not used again before this stream is done with it
        for k in [k for k in self._passing if k != i and k not in self._announced]:
            del self._passing[k]
            self._copies.pop(k, None)
        return frame

    def announce(self, coming: Sequence[int]) -> None:
        """Decode and copy frames that will be used soon; replaces the previous announcement.

        Errors of `read` are raised when the frame is used.
        """
        if not self._n_threads:
            return
        self._announced = frozenset(coming)
        for i in coming:
            if self._find(i) is not None:
                continue
            future = self._decoding.get(i)
            if future is None:
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(self._n_threads, "decode")
                self._decoding[i] = self._threads.submit(self._decode, i, self._buffer())
            elif future.done() and future.exception() is None:
                self._admit(i, self._decoding.pop(i).result())

    def close(self) -> None:
        """Stop the threads. Frames in memory stay, and a later announcement starts the threads again."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._threads = None
        self._decoding.clear()

    def _find(self, i: int) -> Tensor | None:
        return self._staying.get(i, self._passing.get(i))

    def _buffer(self) -> Tensor | None:
        """Pinned memory for a frame. Torch does not give it to another one before the copy from it is done."""
        if self._copy_stream is None:
            return None
        return torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)

    def _decode(self, i: int, buffer: Tensor | None) -> Tensor:
        frame = self._read(i)
        if buffer is None:
            return torch.from_numpy(frame)
        np.copyto(buffer.numpy(), frame)  # torch would start a team of OpenMP threads for each of our threads
        return buffer

    def _admit(self, i: int, frame: Tensor) -> Tensor:
        if self._copy_stream is not None:
            with torch.cuda.stream(self._copy_stream):
                frame = frame.to(self._device, non_blocking=True)
                self._copies[i] = self._copy_stream.record_event()
        stays = self._bytes + frame.nbytes <= self._max_bytes
        if stays:
            self._bytes += frame.nbytes
        (self._staying if stays else self._passing)[i] = frame
        return frame
