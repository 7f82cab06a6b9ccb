"""Evaluate a field at the samples of rays, but not behind what is opaque.

The samples of a ray are taken a few at a time, front to back, and a ray that has become opaque takes no
more: they would have no weight and no gradient. The samples of all rays together are evaluated in parts,
which on a CPU fit its cache.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ernerf_ti.portrait.records import FieldOutput
from taichi_kernels import RaySamples

Field = Callable[[Tensor, Tensor], FieldOutput]
"""Positions and directions [M, 3] -> FieldOutput."""

_MARGIN = 0.5  # below the threshold: rounding must not end a ray before compositing would


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
        field: what is evaluated.
        samples: of N rays.
        T_threshold: transmittance below which compositing ends a ray.
        samples_per_pass: of a ray, evaluated before it is looked at again. On CUDA each wave waits for the
            device; the steps of a ray or more make it one wave.
        samples_per_chunk: of all rays, evaluated at once.
        recompute: a part's intermediate values are computed again in the backward pass, not kept.

    Returns:
        EvaluatedSamples; all that compositing visits are among them.

    Differentiable as the field is; the positions' gradient is that of the samples' positions. Deterministic
    on the CPU.
    """
    begin, count = samples.packed_info.long().unbind(1)
    n_samples = len(samples.ts)
    device = begin.device
    ray = torch.repeat_interleave(torch.arange(len(begin), device=device), count, output_size=n_samples)
    place = torch.arange(n_samples, device=device) - begin[ray]
    remaining = torch.arange(n_samples, device=device)
    thickness = torch.zeros(len(begin), dtype=samples.ts.dtype, device=device)
    opaque = -math.log(max(T_threshold * _MARGIN, torch.finfo(torch.float32).tiny))
    outputs, indices, end = [], [], 0
    while True:
        end += samples_per_pass
        index = remaining[place[remaining] < end]
        for part in index.split(samples_per_chunk) if len(index) or not outputs else ():
            output = _evaluate(field, samples, part, recompute)
            outputs.append(output)
            indices.append(part)
            thickness.index_add_(0, ray[part], output.sigmas.detach() * samples.deltas[part])
        remaining = remaining[(place[remaining] >= end) & (thickness < opaque)[ray[remaining]]]
        if not len(remaining):
            break
    if len(outputs) == 1 and len(indices[0]) == n_samples:
        return EvaluatedSamples(outputs[0], samples.ts, samples.deltas, samples.packed_info)
    kept, order = torch.cat(indices).sort()
    counts = torch.bincount(ray[kept], minlength=len(begin))
    packed_info = torch.stack((counts.cumsum(0) - counts, counts), 1).int()
    return EvaluatedSamples(_join(outputs, order), samples.ts[kept], samples.deltas[kept], packed_info)


def _evaluate(field: Field, samples: RaySamples, index: Tensor, recompute: bool) -> FieldOutput:
    def evaluate() -> FieldOutput:
        return field(_TakeRows.apply(samples.positions, index), _TakeRows.apply(samples.directions, index))

    if recompute and torch.is_grad_enabled():
        return checkpoint(evaluate, use_reentrant=False, preserve_rng_state=False)
    return evaluate()


def _join(outputs: list[FieldOutput], order: Tensor) -> FieldOutput:
    def join(name: str) -> Tensor | None:
        parts = [getattr(output, name) for output in outputs]
        return None if parts[0] is None else _TakeRows.apply(torch.cat(parts), order)

    return FieldOutput(*(join(name) for name in FieldOutput.__dataclass_fields__))


class _TakeRows(torch.autograd.Function):
    """x[index] for an index without repetitions, whose gradient needs no sums."""

    @staticmethod
    def forward(ctx, x, index):
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_copy_(0, index, grad.contiguous()), None
