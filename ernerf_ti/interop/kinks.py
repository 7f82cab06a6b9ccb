"""Where rounding decides on which side of a ReLU's kink a sample falls, and what that does to gradients.

A hidden unit whose input is zero within rounding has two derivatives, and two programs that are right may take one
each: so gradients that are sums over a million units can differ by what one of them passes on. Which units these
are follows from the sizes of the sums that made their inputs, and from how the inputs change when samples move by as
much as their places are rounded.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ROUNDING = 256
"""Of a unit's input, as a multiple of the unit roundoff times the sum of its terms' absolute values. A dot product of
n terms is within n of those [Higham, Accuracy and Stability of Numerical Algorithms, section 3.1], and up to four
of 36 to 84 terms follow one another. Where the samples lie is rounded besides."""
_MOST_UNITS = 64
"""Of a layer that are looked at: those that pass on the most."""
_MOST_CHOSEN = 10


class _Layer(NamedTuple):
    """The units of a layer at M samples, [width, M] each."""

    inputs: Tensor
    sizes: Tensor
    """Sums of the absolute values of the inputs' terms."""
    outputs: Tensor
    """Their .grad is what the units pass on."""


class ReluTrace(TorchFunctionMode):
    """While active, notes the layers of :class:`ernerf_ti.portrait.model.mlp.MLP` that a ReLU follows, in order."""

    def __init__(self):
        super().__init__()
        self.layers: list[_Layer] = []
        self._sizes: Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.relu:
            outputs = torch.relu(args[0])  # not in place: the inputs are kept
            if outputs.requires_grad:
                outputs.retain_grad()
            self.layers.append(_Layer(args[0], self._sizes, outputs))
            return outputs
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.__matmul__, torch.Tensor.matmul):
            self._note_sizes(*args)
        elif func is torch.addmm:
            self._note_sizes(*args[1:], bias=args[0])
        return result

    @torch.no_grad()
    def _note_sizes(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> None:
        if weight.dim() == 2 and x.dim() == 2:
            self._sizes = weight.abs() @ x.abs() + (0 if bias is None else bias.abs())


class Kink(NamedTuple):
    """A unit whose side is open, and what taking the other side adds to the gradients."""

    layer: int
    unit: int
    sample: int
    changes: dict[str, Tensor]


def find_kinks(
    trace: ReluTrace,
    moved: ReluTrace,
    evaluate: Callable[[Tensor], ReluTrace],
    parameters: dict[str, Tensor],
    sizes: dict[str, float],
) -> list[Kink]:
    """Units at kinks that matter to a gradient.

    Args:
        trace: of the pass, after its backward().
        moved: of the pass through samples that lie elsewhere within rounding.
        evaluate: [k] indices of samples -> the trace of a pass through these alone, with a graph of its own.
        parameters: whose gradients are compared, by name.
        sizes: of these gradients, norms; what changes none by 1e-4 of it is left out.
    """
    found = []
    for number, (layer, elsewhere) in enumerate(zip(trace.layers, moved.layers, strict=True)):
        if layer.outputs.grad is None:
            continue
        roundoff = torch.finfo(layer.inputs.dtype).eps / 2
        rounding = _ROUNDING * roundoff * layer.sizes + (elsewhere.inputs - layer.inputs).abs()
        is_open = layer.inputs.abs() <= rounding
        passed_on = layer.outputs.grad * is_open
        largest = passed_on.abs().flatten().topk(min(_MOST_UNITS, passed_on.numel())).indices.tolist()
        for unit, sample in (divmod(place, passed_on.shape[1]) for place in largest):
            if passed_on[unit, sample] != 0:
                side = -1.0 if layer.inputs[unit, sample] > 0 else 1.0
                found.append((number, unit, sample, side * passed_on[unit, sample]))
    if not found:
        return []
    alone = evaluate(torch.tensor([sample for _, _, sample, _ in found], device=found[0][3].device))
    kinks = []
    for place, (number, unit, sample, passed_on) in enumerate(found):
        changes = torch.autograd.grad(
            alone.layers[number].inputs[unit, place],
            list(parameters.values()),
            passed_on,
            retain_graph=True,
            allow_unused=True,
        )
        changed = {
            name: change
            for name, change in zip(parameters, changes, strict=True)
            if change is not None and float(change.norm()) > 1e-4 * sizes[name]
        }
        if changed:
            kinks.append(Kink(number, unit, sample, changed))
    return kinks


def choose_sides(errors: dict[str, Tensor], kinks: list[Kink], limit: float) -> tuple[dict[str, Tensor], list[Kink]]:
    """Take other sides, one after the other, until the errors of all gradients are within a limit.

    A side is taken for all gradients at once, and the one that explains most of all errors together comes first.

    Args:
        errors: by name, each divided by the norm of its gradient.
        kinks: with changes divided in the same way.
        limit: of the norm of an error.

    Returns:
        The errors that are left, and the kinks whose other side was taken, at most ten.
    """
    errors, left, chosen = dict(errors), list(kinks), []

    def gain(kink: Kink) -> float:
        return sum(
            float(errors[name].square().sum() - (errors[name] + change).square().sum())
            for name, change in kink.changes.items()
        )

    while left and len(chosen) < _MOST_CHOSEN and not all(float(error.norm()) <= limit for error in errors.values()):
        best = max(left, key=gain)
        if gain(best) <= 0:
            break
        errors |= {name: errors[name] + change for name, change in best.changes.items()}
        left = [kink for kink in left if kink is not best]
        chosen.append(best)
    return errors, chosen
