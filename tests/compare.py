"""Compare a kernel with its torch twin: values, and gradients under a random upstream gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

# float32 accumulates rounding over corners, levels and samples; the twins sum in another order.
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 2e-6},
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
}
GRADIENT_TOLERANCE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
}


def assert_matches_twin(
    op,
    twin,
    inputs: list[Tensor],
    value_scale: float = 1.0,
    value_tolerance: dict[str, float] | None = None,
    gradient_tolerance: dict[str, float] | None = None,
    values_within: list[Tensor] | None = None,
    gradients_within: Callable[[list[Tensor]], list[Tensor | None]] | None = None,
) -> None:
    """`op` and `twin` map `inputs` to a tensor or a tuple of tensors; inputs that require a gradient get one.

    `value_scale` multiplies the absolute tolerance of gradients, for ops whose gradients are larger than 1.
    The tolerances (rtol, atol) replace the defaults where one side rounds more than the dtype's usual. Where terms
    cancel, rounding is not relative to the result: `values_within` then holds the largest difference of each element
    of each output, and `gradients_within` gives the same for gradients, from the upstream ones; None for the tolerance.
    """
    results = []
    for function in (op, twin):
        leaves = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        outputs = function(*leaves)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        results.append((leaves, outputs))
    (leaves, outputs), (twin_leaves, twin_outputs) = results
    assert len(outputs) == len(twin_outputs)
    for i, (output, expected) in enumerate(zip(outputs, twin_outputs, strict=True)):
        if values_within is not None:
            assert_within(output.detach(), expected.detach(), values_within[i], f"output {i}")
            continue
        allowed = value_tolerance or TOLERANCE.get(expected.dtype, {"rtol": 0, "atol": 0})
        torch.testing.assert_close(output.detach(), expected.detach(), **allowed)
    wanted = [i for i, x in enumerate(inputs) if x.requires_grad]
    if not wanted:
        return
    upstream = [torch.randn_like(o) for o in twin_outputs if o.requires_grad]
    gradients = torch.autograd.grad([o for o in outputs if o.requires_grad], [leaves[i] for i in wanted], upstream)
    expected = torch.autograd.grad(
        [o for o in twin_outputs if o.requires_grad], [twin_leaves[i] for i in wanted], upstream
    )
    within = gradients_within(upstream) if gradients_within else [None] * len(wanted)
    for i, gradient, reference, largest in zip(wanted, gradients, expected, within, strict=True):
        assert_gradient_close(gradient, reference, f"gradient of input {i}", value_scale, gradient_tolerance, largest)
        assert leaves[i].grad is None, "a .grad appeared as a side effect"
        assert torch.equal(leaves[i], inputs[i]), "an input was modified"


def assert_within(result: Tensor, expected: Tensor, largest: Tensor, name: str) -> None:
    """No element of `result` is further from that of `expected` than `largest` says."""
    assert result.shape == expected.shape == largest.shape and result.dtype == expected.dtype
    excess = (result - expected).abs() - largest
    assert (excess <= 0).all(), f"{name}: {(excess > 0).sum()} elements differ too much, one by {excess.max():.2e} more"


def assert_gradient_close(
    gradient: Tensor,
    reference: Tensor,
    name: str,
    value_scale: float = 1.0,
    tolerance: dict[str, float] | None = None,
    within: Tensor | None = None,
) -> None:
    """By element, and as a vector: a gradient that is small everywhere could pass the first unseen."""
    tolerance = dict(tolerance or GRADIENT_TOLERANCE[reference.dtype])
    tolerance["atol"] *= value_scale
    if within is not None:
        assert_within(gradient, reference, within, name)
    else:
        torch.testing.assert_close(gradient, reference, **tolerance, msg=lambda text: f"{name}: {text}")
    norm = reference.double().norm()
    if norm > 0:
        error = (gradient.double() - reference.double()).norm() / norm
        assert error < tolerance["rtol"], f"{name}: relative L2 error {error:.2e}"
