"""Where rounding decides on which side of a ReLU's kink a sample falls, and how that changes gradients.

A hidden unit whose input is zero within rounding has two valid derivatives, and two correct programs may take one
each, so that gradients that sum over a million units can differ by the contribution of a single one. These units are
found from the magnitude of the sums behind their inputs, and from how the inputs change when the samples move by the
rounding error of their positions.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ROUNDING = 256
"""Bound on the rounding error of a unit's input, in multiples of the unit roundoff times the sum of its terms' absolute
values. A dot product of n terms is within n of those [Higham, Accuracy and Stability of Numerical Algorithms, section
3.1], and up to four of them, of 36 to 84 terms, follow one another. The positions of the samples are rounded too."""
_MAX_UNITS = 64
"""Units per layer that are considered: those with the largest gradients."""
_MAX_FLIPPED = 10


class _Layer(NamedTuple):
    """Units of a layer at M samples, [width, M] each."""

    inputs: Tensor
    magnitudes: Tensor | None
    """Sums of the absolute values of the inputs' terms; None if they are no product."""
    outputs: Tensor
    """Outputs of the ReLU; their .grad is filled by backward()."""


class ReluTrace(TorchFunctionMode):
    """While active, records the layers of :class:`ernerf_ti.portrait.model.mlp.MLP` before a ReLU, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[_Layer] = []
        self._magnitudes: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.relu:
            outputs = torch.relu(args[0])  # not in place, to keep the inputs
            if outputs.requires_grad:
                outputs.retain_grad()
            self.layers.append(_Layer(args[0], self._magnitudes, outputs))
            return outputs
        result = func(*args, **(kwargs or {}))
        if func is torch.mm:
            self._record_magnitudes(*args)
        elif func is torch.addmm:
            bias, weight, x = args
            self._record_magnitudes(weight, x, bias)
        elif func is torch.Tensor.addmm_:
            _, weight, x = args
            self._record_magnitudes(weight, x, self._magnitudes)
        return result

    @torch.no_grad()
    def _record_magnitudes(self, weight: Tensor, x: Tensor, others: Tensor | None = None) -> None:
        self._magnitudes = weight.abs() @ x.abs() + (0 if others is None else others.abs())


class Kink(NamedTuple):
    """A unit at its kink, and what taking the other side adds to the gradients."""

    layer: int
    unit: int
    sample: int
    changes: dict[str, Tensor]


def find_kinks(
    trace: ReluTrace,
    moved: ReluTrace,
    evaluate: Callable[[Tensor], ReluTrace],
    parameters: Mapping[str, Tensor],
    norms: dict[str, float],
) -> list[Kink]:
    """Find the units at kinks that matter to a gradient.

    Args:
        trace: trace of the forward pass, after its backward().
        moved: trace of a forward pass with the samples moved by their rounding error.
        evaluate: [k] sample indices -> trace of a forward pass of these samples alone, with a graph of its own.
        parameters: parameters whose gradients are compared, by name.
        norms: norms of these gradients; units that change each by less than 1e-4 of its norm are left out.
    """
    found = []
    for number, (layer, elsewhere) in enumerate(zip(trace.layers, moved.layers, strict=True)):
        if layer.outputs.grad is None:
            continue
        assert layer.magnitudes is not None  # an MLP has a product before each ReLU
        roundoff = torch.finfo(layer.inputs.dtype).eps / 2
        rounding = _ROUNDING * roundoff * layer.magnitudes + (elsewhere.inputs - layer.inputs).abs()
        at_kink = layer.inputs.abs() <= rounding
        gradient = layer.outputs.grad * at_kink
        largest = gradient.abs().flatten().topk(min(_MAX_UNITS, gradient.numel())).indices.tolist()
        for unit, sample in (divmod(index, gradient.shape[1]) for index in largest):
            if gradient[unit, sample] != 0:
                side = -1.0 if layer.inputs[unit, sample] > 0 else 1.0
                found.append((number, unit, sample, side * gradient[unit, sample]))
    if not found:
        return []
    alone = evaluate(torch.tensor([sample for _, _, sample, _ in found], device=found[0][3].device))
    kinks = []
    for index, (number, unit, sample, gradient) in enumerate(found):
        changes = torch.autograd.grad(
            alone.layers[number].inputs[unit, index],
            list(parameters.values()),
            gradient,
            retain_graph=True,
            allow_unused=True,
        )
        changed = {
            name: change
            for name, change in zip(parameters, changes, strict=True)
            if change is not None and float(change.norm()) > 1e-4 * norms[name]
        }
        if changed:
            kinks.append(Kink(number, unit, sample, changed))
    return kinks


def choose_sides(errors: dict[str, Tensor], kinks: list[Kink], limit: float) -> tuple[dict[str, Tensor], list[Kink]]:
    """Flip units at kinks to their other side, one by one, until the errors of all gradients are within a limit.

    A unit is flipped for all gradients at once; the one that reduces the sum of squared errors most comes first.

    Args:
        errors: difference of each gradient by name, relative to the norm of the gradient.
        kinks: units at kinks, with changes relative to the same norms.
        limit: largest norm of an error.

    Returns:
        The remaining errors, and the units that were flipped, at most ten.
    """
    errors, remaining = dict(errors), list(kinks)
    flipped: list[Kink] = []

    def gain(kink: Kink) -> float:
        return sum(
            float(errors[name].square().sum() - (errors[name] + change).square().sum())
            for name, change in kink.changes.items()
        )

    def within_limit() -> bool:
        return all(float(error.norm()) <= limit for error in errors.values())

    while remaining and len(flipped) < _MAX_FLIPPED and not within_limit():
        best = max(remaining, key=gain)
        if gain(best) <= 0:
            break
        errors |= {name: errors[name] + change for name, change in best.changes.items()}
        remaining = [kink for kink in remaining if kink is not best]
        flipped.append(best)
    return errors, flipped
