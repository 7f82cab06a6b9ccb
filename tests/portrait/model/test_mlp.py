import pytest
import torch
import torch.nn.functional as F

from ernerf_ti.portrait.model.mlp import MLP, concatenate, in_precision


@pytest.mark.parametrize("n_layers", [1, 2, 4])
@pytest.mark.parametrize("n_shared", [0, 3])
def test_equals_linear_layers(n_layers, n_shared):
    mlp = MLP(9, 16, 5, n_layers).double()
    x, shared = torch.randn(7, 9 - n_shared, dtype=torch.float64), torch.randn(n_shared, dtype=torch.float64)
    expected = torch.cat((x, shared.expand(7, n_shared)), 1)
    for i, layer in enumerate(mlp.layers):
        assert layer.bias is None
        expected = F.linear(F.relu(expected) if i else expected, layer.weight)
    shared_or_none = shared if n_shared else None
    torch.testing.assert_close(mlp(x, shared=shared_or_none), expected)
    parts = x.split([1, 3, 5 - n_shared], 1)
    torch.testing.assert_close(mlp(*parts, shared=shared_or_none), expected)
    with torch.no_grad():
        out = torch.empty(5, 7, dtype=torch.float64)
        result = mlp(*parts, shared=shared_or_none, out=out)
    assert result.data_ptr() == out.data_ptr()
    torch.testing.assert_close(out.t(), expected)
    mlp.layers[0], weight = torch.nn.Linear(9, 16 if n_layers > 1 else 5, bias=False).double(), mlp.first_weight
    torch.testing.assert_close(mlp(x, shared=shared_or_none, first_weight=weight), expected)


def test_gradients():
    mlp = MLP(6, 8, 2, 2).double()
    x, shared = torch.randn(5, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    weights = [layer.weight.detach().clone().requires_grad_() for layer in mlp.layers]

    def function(x, shared, *weights):
        names = [name for name, _ in mlp.named_parameters()]
        weights = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(mlp, weights, x.split([1, 3], 1), {"shared": shared})

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), shared.requires_grad_(), *weights))


def test_no_points():
    assert MLP(4, 8, 3, 3)(torch.zeros(0, 4)).shape == (0, 3)


def test_concatenate_is_cat():
    parts = [torch.randn(6, 3), torch.randn(2, 6).t(), torch.randn(1, 6).t()]
    torch.testing.assert_close(concatenate(parts), torch.cat(parts, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    mlp, x, shared = MLP(9, 16, 5, 3), torch.randn(7, 6), torch.randn(3)
    expected = mlp(x, shared=shared)
    output = mlp(*in_precision(x, dtype).split([4, 2], 1), shared=shared)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), expected, atol=0.02, rtol=0.02)
    output.sum().backward()
    assert all(layer.weight.grad.dtype == torch.float32 for layer in mlp.layers)


def test_float32_is_no_cast():
    x = torch.zeros(2, dtype=torch.float64)
    assert in_precision(x, torch.float32) is x


def test_no_layers():
    with pytest.raises(ValueError, match="n_layers: expected at least 1, got 0"):
        MLP(3, 3, 3, 0)
