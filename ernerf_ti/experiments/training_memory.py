"""Bytes that training takes on a GPU, counted without one.

The tensors of training steps on the CPU, in the fixed shapes of CUDA, have the sizes that they have there. What torch
holds is counted as they come and go: weights, moments of the optimizer, averages, tables of the capture, activations,
gradients, and the memory that CUDA graphs keep. Not counted are frames that stay in memory, temporary memory within a
torch operation, the rounding of torch's allocator, and what CUDA, cuBLAS and Taichi take for themselves.
"""

import gc
import math
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.portrait.render.static_shapes import static_shapes_on_cpu
from ernerf_ti.process.graphs import STEADY_AFTER, Graphs
from ernerf_ti.process.precision import Precision
from ernerf_ti.train.config import PRESETS, STAGES, TrainConfig
from ernerf_ti.train.head_stages import HeadFieldStage
from ernerf_ti.train.trainer import Trainer

CPU = torch.device("cpu")
_STEADY_SAMPLES_PER_RAY = 5
"""Of a trained head seen in a whole frame."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within the context, as they come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_address(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and _address(value) not in given:
                self._add(value.untyped_storage())
        return result

    def reset_peak(self) -> None:
        self.peak = self.now

    def _add(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        known = self._known.get(address)
        if address == 0 or (known is not None and known.alive):
            return
        self._known[address] = weakref.finalize(storage, self._remove, storage.nbytes())
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _remove(self, n_bytes: int) -> None:
        self.now -= n_bytes


class CountedGraphs:
    """Stands for CUDA graphs, whose memory it holds: all that was in use at once while they were recorded.

    Replays do nothing, so that a graph's results are those of its recording.

    Args:
        live: counts.
    """

    def __init__(self, live: LiveBytes):
        self._live = live
        self.n_bytes = 0
        """Of all graphs that were recorded."""

    def pool(self) -> "_Pool":
        return _Pool(self._live.now)

    def side_stream(self) -> nullcontext:
        return nullcontext()

    def capture(
        self, function: Callable[[], Any], pool: "_Pool", generators: Sequence[torch.Generator] = ()
    ) -> tuple["_CountedGraph", Any]:
        live, peak = self._live, self._live.peak
        pool.free = None  # a later graph of the pool takes what is free in it
        live.reset_peak()
        result = function()
        was, pool.size = pool.size, max(pool.size, live.peak - pool.base)
        self.n_bytes += pool.size - was
        pool.free = torch.empty(max(0, pool.size - (live.now - pool.base)), dtype=torch.uint8)
        live.peak = max(peak, live.peak)
        return _CountedGraph(pool), result

    def synchronize(self) -> None:
        return


class _UncheckedGraphs(Graphs):
    """Records graphs whose results are wrong: those of their recording."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.tolerance = math.inf


class _Pool:
    """Memory that graphs share.

    Args:
        base: bytes of the tensors before.
    """

    def __init__(self, base: int):
        self.base, self.size = base, 0
        self.free: Tensor | None = None
        """Of the pool's memory what is not taken by tensors that outlive a recording."""


class _CountedGraph:
    def __init__(self, pool: _Pool):
        self._pool = pool

    def replay(self) -> None:
        return


def released(n_rays: int) -> TrainConfig:
    """The preset `released` with a number of rays per step."""
    config = PRESETS["released"]
    return replace(config, **{stage: replace(getattr(config, stage), n_rays=n_rays) for stage in STAGES})


def run(config: TrainConfig, image: int, precision: Precision) -> Iterator[tuple[str, float]]:
    """Count the bytes of each stage.

    Args:
        config: of the training; its presets have the sizes of a GPU.
        image: width and height of the frames in pixels.
        precision: of the networks.

    Yields names and GB (10^9 bytes), as they are counted.
    """
    with static_shapes_on_cpu(), tempfile.TemporaryDirectory(prefix="ernerf_ti_memory_") as folder:
        write_portrait_capture(SyntheticPortrait(12, image, seed=1, device=CPU), Path(folder) / "capture")
        capture = open_capture(Path(folder) / "capture")
        # Needs no weights; the measure that learned ones compute takes no more than the head's samples.
        finetune = replace(config.finetune, perceptual="dssim")
        config = replace(config, finetune=finetune, precision=precision, validation_frames=1)
        for stage in STAGES:
            with LiveBytes() as live:
                for what, n_bytes in _stage(config, capture, Path(folder) / stage, stage, live):
                    yield f"{stage}, {what}", n_bytes / 1e9


def _stage(
    config: TrainConfig, capture: Capture, folder: Path, stage: str, live: LiveBytes
) -> Iterator[tuple[str, int]]:
    trainer = Trainer(capture, config, folder, CPU)
    trainer.start_stage(stage)
    for _ in range(2):  # two kinds of rays
        trainer.train_step()
    yield "first steps, all cells occupied", live.peak
    trainer.optimizer.zero_grad()
    gc.collect()
    yield "weights, moments, averages and tables", live.now
    current = trainer.stages[stage]
    if isinstance(current, HeadFieldStage):
        current.expect_samples(_STEADY_SAMPLES_PER_RAY * current.settings.n_rays)
    live.reset_peak()
    for _ in range(2):
        trainer.train_step()
    yield "later steps", live.peak
    trainer.optimizer.zero_grad()
    live.reset_peak()
    trainer.validate()
    yield "validation", live.peak
    backend = CountedGraphs(live)
    current.call = _UncheckedGraphs(backend, print)
    live.reset_peak()
    for _ in range(2 * (STEADY_AFTER + 1)):  # of two kinds of rays
        trainer.train_step()
    yield "steps with CUDA graphs", live.peak
    yield "memory of the graphs", backend.n_bytes


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
