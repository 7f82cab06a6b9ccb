import torch

from ernerf_ti.portrait.model import activations


def test_density_is_exp_with_a_limited_gradient():
    x = torch.tensor([-30.0, 0.0, 3.0, 14.0, 20.0], dtype=torch.float64, requires_grad=True)
    y = activations.density(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), x.detach().exp())
    torch.testing.assert_close(x.grad, x.detach().clamp(max=15).exp())


def test_an_overflowing_density_has_a_finite_gradient():
    x = torch.tensor([200.0], requires_grad=True)
    (1 - torch.exp(-activations.density(x))).sum().backward()
    assert x.grad.isfinite().all()


def test_unit_interval_reaches_its_ends():
    values = activations.unit_interval(torch.tensor([-50.0, 0.0, 50.0]))
    torch.testing.assert_close(values, torch.tensor([-0.001, 0.5, 1.001]))
