"""Evaluate a field at the samples of rays, skipping samples behind an opaque surface.

The samples of a ray are evaluated front to back in passes of a few. A ray that has become opaque is left out of the
next pass: its remaining samples would have neither weight nor gradient. Within a pass the samples of all rays are
evaluated in chunks, which on the CPU fit into the cache. A GPU would have to be waited for after each pass: there all
samples are evaluated.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ernerf_ti.portrait.records import FieldOutput
from taichi_kernels import RaySamples

Field = Callable[[Tensor, Tensor], FieldOutput]
"""Positions and directions [M, 3] -> FieldOutput."""

_MARGIN = 0.5  # times the threshold: rounding must not end a ray before compositing does


class EvaluatedSamples(NamedTuple):
    """The field at M' of M samples, ray after ray."""

    output: FieldOutput
    """Of the M' samples."""
    ts: Tensor
    """[M'] distance to the sample, scene units."""
    deltas: Tensor
    """[M'] step length, scene units."""
    packed_info: Tensor
    """[N, 2] int32, first sample and number of samples of each ray."""


def evaluate_samples(
    field: Field,
    samples: RaySamples,
    T_threshold: float,
    samples_per_pass: int,
    samples_per_chunk: int,
    recompute: bool = False,
) -> EvaluatedSamples:
    """Evaluate the samples of rays front to back, until each ray is opaque.

    Args:
        field: positions and directions [M, 3] -> FieldOutput.
        samples: samples of N rays.
        T_threshold: transmittance below which compositing ends a ray.
        samples_per_pass: samples of a ray per pass. On CUDA each pass waits for the device.
        samples_per_chunk: samples of all rays that are evaluated at once.
        recompute: recompute the intermediate values of a chunk in the backward pass instead of keeping them.

    Returns:
        EvaluatedSamples, which include all samples that compositing visits.

    Differentiable in what the field is differentiable in. Deterministic on the CPU.
    """
    begin, count = samples.packed_info.long().unbind(1)
    n_samples = len(samples.ts)
    device = begin.device
    ray = torch.repeat_interleave(torch.arange(len(begin), device=device), count, output_size=n_samples)
    position_in_ray = torch.arange(n_samples, device=device) - begin[ray]
    remaining = torch.arange(n_samples, device=device)
    thickness = torch.zeros(len(begin), dtype=samples.ts.dtype, device=device)
    opaque = -math.log(max(T_threshold * _MARGIN, torch.finfo(torch.float32).tiny))
    outputs: list[FieldOutput] = []
    indices: list[Tensor] = []
    end = 0
    while True:
        end += samples_per_pass
        index = remaining[position_in_ray[remaining] < end]
        for chunk in index.split(samples_per_chunk) if len(index) or not outputs else ():
            output = _evaluate(field, samples, chunk, recompute)
            outputs.append(output)
            indices.append(chunk)
            thickness.index_add_(0, ray[chunk], output.sigmas.detach() * samples.deltas[chunk])
        remaining = remaining[(position_in_ray[remaining] >= end) & (thickness < opaque)[ray[remaining]]]
        if not len(remaining):
            break
    if len(outputs) == 1 and len(indices[0]) == n_samples:
        return EvaluatedSamples(outputs[0], samples.ts, samples.deltas, samples.packed_info)
    kept, order = torch.cat(indices).sort()
    counts = torch.bincount(ray[kept], minlength=len(begin))
    packed_info = torch.stack((counts.cumsum(0) - counts, counts), 1).int()
    output = _map(lambda values: _TakeRows.apply(torch.cat(values), order), outputs)
    return EvaluatedSamples(output, samples.ts[kept], samples.deltas[kept], packed_info)


def evaluate_all_samples(
    field: Field, samples: RaySamples, samples_per_chunk: int, recompute: bool = False
) -> EvaluatedSamples:
    """Evaluate all M samples of rays, with the padding behind them, in shapes that depend on M alone.

    Args:
        field, recompute: as for :func:`evaluate_samples`.
        samples: M samples of N rays; those that belong to no ray are padding, which gets no gradient.
        samples_per_chunk: samples that are evaluated at once.

    Differentiable in what the field is differentiable in.
    """
    outputs = [
        _evaluate(field, samples, slice(begin, begin + samples_per_chunk), recompute)
        for begin in range(0, max(1, len(samples.ts)), samples_per_chunk)
    ]
    output = outputs[0] if len(outputs) == 1 else _map(torch.cat, outputs)
    return EvaluatedSamples(output, samples.ts, samples.deltas, samples.packed_info)


def _evaluate(field: Field, samples: RaySamples, rows: Tensor | slice, recompute: bool) -> FieldOutput:
    """Evaluate the samples of some rows, which are taken again where they are recomputed."""

    def take(values: Tensor) -> Tensor:
        return values[rows] if isinstance(rows, slice) else _TakeRows.apply(values, rows)

    def evaluate() -> FieldOutput:
        return field(take(samples.positions), take(samples.directions))

    if recompute and torch.is_grad_enabled():
        return checkpoint(evaluate, use_reentrant=False, preserve_rng_state=False)
    return evaluate()


def _map(function: Callable[[list[Tensor]], Tensor], outputs: list[FieldOutput]) -> FieldOutput:
    """Combine the values of several outputs into one."""
    columns: Iterator[list[Any]] = (
        [getattr(output, name) for output in outputs] for name in FieldOutput.__dataclass_fields__
    )
    combined: list[Any] = [None if values[0] is None else function(values) for values in columns]
    return FieldOutput(*combined)


class _TakeRows(torch.autograd.Function):
    """x[index] for an index without repetitions: its gradient is a copy, without the sums of `index_select`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_copy_(0, index, grad.contiguous()), None
