"""Processes that train or render one portrait together, one per device, started by torchrun.

In training, all of them take the same steps with the same random numbers and keep the same weights. What a step renders
is shared: each process renders its part of the rays and gets the colors of the others'. From there on all compute the
same loss, whose gradient flows through the own rays alone in each, so that the sum over the processes is the gradient
of the whole step: the same training as by one process, up to the order of sums.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ernerf_ti.process.device import started_by_torchrun

Value = TypeVar("Value")

_TIMEOUT = timedelta(hours=4)
"""Longer than a process renders held-out frames, or measures them, while the others wait. An end is noticed at once."""


class Ranks:
    """The processes of a training; the default is one alone, for which every method returns at once.

    Args:
        index: of this process.
        count: of all.
    """

    def __init__(self, index: int = 0, count: int = 1):
        self.index, self.count = index, count

    @classmethod
    @contextmanager
    def joined(cls, device: torch.device) -> Iterator["Ranks"]:
        """Context in which the processes that torchrun has started can talk to each other.

        Args:
            device: of this process, its first visible one.
        """
        if not started_by_torchrun():
            yield cls()
            return
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_TIMEOUT)
        try:
            yield cls(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes what the training leaves."""
        return self.index == 0

    def part(self, n: int) -> slice:
        """Which of n rays this process renders: as many as the others, or one more."""
        return slice(*self._bounds(n)[self.index : self.index + 2])

    def join(self, n: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        """All rays' values from those of each process's part.

        Args:
            n: rays of all processes.
            tensors: [own, ...] values of the own part, which numbers of float32 hold; at least one.

        Returns:
            [n, ...] values; gradients flow into those of the own part.
        """
        if self.count == 1:
            return list(tensors)
        bounds, device = self._bounds(n), tensors[0].device
        columns = [tensor.detach().float().reshape(len(tensor), -1) for tensor in tensors]
        widths = [column.shape[1] for column in columns]
        mine = torch.zeros(-(-n // self.count), sum(widths), device=device)
        mine[: len(tensors[0])] = torch.cat(columns, 1)
        packed = mine.new_empty(self.count, *mine.shape)
        with _naming_the_end():
            dist.all_gather(list(packed), mine)
        values = [part[: end - begin] for part, begin, end in zip(packed, bounds, bounds[1:], strict=False)]
        joined = []
        for own, parts in zip(tensors, zip(*(value.split(widths, 1) for value in values), strict=True), strict=True):
            shaped = [part.reshape(-1, *own.shape[1:]).to(own.dtype) for part in parts]
            shaped[self.index] = own
            joined.append(torch.cat(shaped))
        return joined

    def once(self, term: Tensor) -> Tensor:
        """A term of the loss that depends on the weights directly, in all processes alike: its gradient counts once."""
        if self.count == 1:
            return term
        share = term / self.count
        return share + (term - share).detach()

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace the gradients by their sums over the processes: one message of all of them.

        Args:
            parameters: those without a gradient in any process keep none.
        """
        if self.count == 1:
            return
        on_cpu = parameters[0].device.type == "cpu"
        has = [parameter.grad is not None for parameter in parameters]
        if on_cpu:  # a part without samples leaves some without; shapes are fixed elsewhere, where asking would wait
            found = torch.tensor(has, dtype=torch.int32)
            self._all_reduce(found)
            has = [bool(number) for number in found.tolist()]
        summed = [parameter for parameter, is_there in zip(parameters, has, strict=True) if is_there]
        for parameter in summed:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in summed if parameter.grad is not None]
        bucket = torch.cat([gradient.reshape(-1).float() for gradient in gradients])
        self._all_reduce(bucket)
        sums = bucket.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [s.view_as(g) for s, g in zip(sums, gradients, strict=True)])

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values that the first one has."""
        if self.count > 1:
            for tensor in tensors:
                with _naming_the_end():
                    dist.broadcast(tensor, 0)

    def frames(self, n: int) -> list[int]:
        """Indices of the frames of a video of n that this process renders: every so many, after the first of all, which
        sets what has to be the same in all."""
        own = list(range(self.index, n, self.count))
        return own if self.is_first or n == 0 else [0, *own]

    def in_order(
        self, images: Iterable[tuple[np.ndarray, ...]], n: int
    ) -> Generator[tuple[np.ndarray, ...], None, None]:
        """The images of all n frames in order, in the first process. The others hand theirs over, and yield none.

        Args:
            images: of the frames of this process, see :meth:`frames`: arrays of the same shapes in all.
            n: frames of the video.
        """
        own = iter(images)
        if not self.is_first:
            next(own, None)
            for arrays in own:
                for array in arrays:
                    with _naming_the_end():
                        dist.send(torch.from_numpy(np.ascontiguousarray(array)), 0)
            return
        shapes: tuple[np.ndarray, ...] = ()
        for k in range(n):
            if k % self.count == 0:
                shapes = next(own)
                yield shapes
                continue
            received = tuple(torch.from_numpy(np.empty_like(array)) for array in shapes)
            for tensor in received:
                with _naming_the_end():
                    dist.recv(tensor, k % self.count)
            yield tuple(tensor.numpy() for tensor in received)

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes in their order, in the first one; the others get none."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        with _naming_the_end():
            dist.gather_object(value, gathered if self.is_first else None)
        return gathered if self.is_first else []

    def of_first(self, value: Value) -> Value:
        """The value that the first process has, in all of them."""
        if self.count == 1:
            return value
        values = [value]
        with _naming_the_end():
            dist.broadcast_object_list(values)
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes; waits for all of them, not for the devices."""
        if self.count == 1:
            return flag
        found = torch.tensor(int(flag))
        self._all_reduce(found)
        return bool(found)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any(False)

    def _bounds(self, n: int) -> list[int]:
        """Where the parts of n rays begin, and the end of the last."""
        size, larger = divmod(n, self.count)
        return [k * size + min(k, larger) for k in range(self.count + 1)]

    def _all_reduce(self, tensor: Tensor) -> None:
        with _naming_the_end():
            dist.all_reduce(tensor)


@contextmanager
def _naming_the_end() -> Iterator[Any]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"several processes: expected all of them to go on, but one has ended ({error}); see what it said, and run "
            "the same command again, which continues a training from what is saved"
        ) from error
