import pytest
import torch
import torch.nn.functional as F

from ernerf_ti.portrait.model.mlp import MLP, concatenate


@pytest.mark.parametrize("n_layers", [1, 2, 4])
@pytest.mark.parametrize("n_shared", [0, 3])
def test_equals_linear_layers(n_layers, n_shared):
    mlp = MLP(9, 16, 5, n_layers).double()
    x, shared = torch.randn(7, 9 - n_shared, dtype=torch.float64), torch.randn(n_shared, dtype=torch.float64)
    expected = torch.cat((x, shared.expand(7, n_shared)), 1)
    for i, layer in enumerate(mlp.layers):
        assert layer.bias is None
        expected = F.linear(F.relu(expected) if i else expected, layer.weight)
    torch.testing.assert_close(mlp(x, shared if n_shared else None), expected)


def test_gradients():
    mlp = MLP(6, 8, 2, 2).double()
    x, shared = torch.randn(5, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    weights = [layer.weight.detach().clone().requires_grad_() for layer in mlp.layers]

    def function(x, shared, *weights):
        names = [name for name, _ in mlp.named_parameters()]
        return torch.func.functional_call(mlp, dict(zip(names, weights, strict=True)), (x, shared))

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), shared.requires_grad_(), *weights))


def test_no_points():
    assert MLP(4, 8, 3, 3)(torch.zeros(0, 4)).shape == (0, 3)


def test_concatenate_is_cat():
    parts = [torch.randn(6, 3), torch.randn(2, 6).t(), torch.randn(1, 6).t()]
    torch.testing.assert_close(concatenate(parts), torch.cat(parts, 1))


def test_no_layers():
    with pytest.raises(ValueError, match="n_layers: expected at least 1, got 0"):
        MLP(3, 3, 3, 0)
