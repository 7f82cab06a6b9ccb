"""Pictures that are rendered in a process of their own.

Rendering, audio features and a server each call thousands of short operations a second. In one process each of these
calls waits for Python's lock, so that on two cores pictures take half as long again while somebody speaks.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.live.renderer import POSE_MEMORY, Background, LiveInputs, PortraitPictures
from ernerf_ti.process.threads import usable_cores
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait

_PIPE_SIZE = 2**20
"""Bytes, the most that a user may have by default."""
_BACKGROUNDS = 32
"""How many of them the process keeps, the last ones that were used."""


class PictureProcess:
    """As :class:`ernerf_ti.live.renderer.PortraitPictures`, in another process, which ends with this object or
    process.

    Args:
        trained: a portrait that was loaded from a file. It is loaded there once more.
        pose_memory: bytes for what is kept of poses.

    Raises ValueError if it was not loaded from a file.
    """

    def __init__(self, trained: TrainedPortrait, pose_memory: int = POSE_MEMORY):
        if trained.checkpoint is None:
            raise ValueError(
                "trained: expected a portrait that was loaded from a file, got one in memory, which another process "
                "can't load; use PortraitPictures"
            )
        here = PortraitPictures(trained, 0)
        self.size, self.scales, self.keeps_poses = here.size, here.scales, here.keeps_poses
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        _widen(self._process)
        self._link = _Link(self._process)
        threading.Thread(target=self._link.receive, name="pictures", daemon=True).start()
        self._end = weakref.finalize(self, _end, self._process)
        precision = trained.portrait.head.precision
        self._link.call(trained.checkpoint.resolve(), precision, torch.get_num_threads(), pose_memory)

    @staticmethod
    def helps(trained: TrainedPortrait) -> bool:
        """Whether it is faster: for a baked portrait on a CPU with a second core."""
        return trained.baked_renderer is not None and trained.checkpoint is not None and usable_cores() > 1

    def capacity(self, pose: Tensor, place: float) -> int:
        """See :meth:`PortraitPictures.capacity`."""
        return int(self._link.call("capacity", pose, place))

    def prepare(self, pose: Tensor, place: float) -> bool:
        """See :meth:`PortraitPictures.prepare`."""
        return bool(self._link.call("prepare", pose, place))

    def picture(self, inputs: LiveInputs, background: Background, scale: float) -> np.ndarray:
        """See :class:`ernerf_ti.live.renderer.PictureMaker`.

        Raises RuntimeError if the process has ended.
        """
        image = self._link.call("picture", inputs, background, scale)
        assert isinstance(image, np.ndarray)
        return image

    def close(self) -> None:
        """End the process. Pictures can't be made any more."""
        self._end()


class _Link:
    """Calls to the process and their results, from any number of threads."""

    def __init__(self, process: "subprocess.Popen[bytes]"):
        self._process = process
        self._lock, self._numbers = threading.Lock(), count()
        self._waiting: dict[int, Future[Any]] = {}
        self._has_ended = False
        self._sent: OrderedDict[int, Tensor] = OrderedDict()
        """Backgrounds that the process has, by identity. It forgets them in the same order."""

    def call(self, *message: Any) -> Any:
        """The result for a message, once it is there."""
        result: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            if self._has_ended:
                raise self._ended()
            self._waiting[number] = result
            with contextlib.suppress(OSError, ValueError):  # it has ended, which the other thread is about to notice
                assert self._process.stdin is not None
                _send(self._process.stdin, (number, *(self._without_known(each) for each in message)))
        return result.result()

    def receive(self) -> None:
        """Take results until the process ends."""
        assert self._process.stdout is not None
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                number, result, error = pickle.load(self._process.stdout)
                with self._lock:
                    waiting = self._waiting.pop(number)
                if error is None:
                    waiting.set_result(result)
                else:
                    waiting.set_exception(error)
        self._process.wait()
        with self._lock:
            self._has_ended = True
            left, self._waiting = self._waiting, {}
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what is left in it goes nowhere
                    assert pipe is not None
                    pipe.close()
        for each in left.values():
            each.set_exception(self._ended())

    def _ended(self) -> RuntimeError:
        return RuntimeError(
            "expected the process that renders the pictures to run, it has ended with exit status "
            f"{self._process.returncode}; open the portrait again"
        )

    def _without_known(self, argument: Any) -> Any:
        """A background by its number, with what it is if the process does not have it."""
        if not isinstance(argument, Tensor) or argument.ndim != 3:
            return argument
        known = id(argument) in self._sent  # which keeps it, so that no other one gets its identity
        _keep(self._sent, id(argument), argument)
        return _Background(id(argument), None if known else argument.cpu().numpy())


class _Background:
    def __init__(self, number: int, values: np.ndarray | None):
        self.number, self.values = number, values


def _keep(kept: "OrderedDict[int, Tensor]", number: int, background: Tensor) -> None:
    kept[number] = background
    kept.move_to_end(number)
    while len(kept) > _BACKGROUNDS:
        kept.popitem(last=False)


def _widen(process: "subprocess.Popen[bytes]") -> None:
    """Let a picture fit into the pipe, on Linux: in many pieces it takes 4 ms."""
    assert process.stdout is not None
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Close its input, which ends it."""
    with contextlib.suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Make pictures for the process that started this one, until it ends or closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which reaches both: the other one decides
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may be written there
    sending = threading.Lock()
    backgrounds: OrderedDict[int, Tensor] = OrderedDict()
    pictures: PortraitPictures | None = None

    def answer(number: int, method: str, arguments: list[Any]) -> None:
        result: object = None
        error: Exception | None = None
        try:
            result = getattr(pictures, method)(*arguments)
        except Exception as raised:
            error = raised
        with sending, contextlib.suppress(OSError):  # nobody listens any more
            _send(results, (number, result, error))

    with ThreadPoolExecutor(max(2, usable_cores()), "pictures") as executor, contextlib.suppress(EOFError):
        while True:
            number, *message = pickle.load(sys.stdin.buffer)
            if pictures is None:
                path, precision, n_threads, pose_memory = message
                torch.set_num_threads(n_threads)
                error = None
                try:
                    pictures = PortraitPictures(load_portrait(path, "cpu", precision), pose_memory)
                except Exception as raised:
                    error = raised
                with sending:
                    _send(results, (number, None, error))
                continue
            method, *arguments = message
            for i, argument in enumerate(arguments):
                if isinstance(argument, _Background):
                    values = argument.values
                    background = backgrounds[argument.number] if values is None else torch.from_numpy(values)
                    _keep(backgrounds, argument.number, background)
                    arguments[i] = background
            executor.submit(answer, number, method, arguments)
