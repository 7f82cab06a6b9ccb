import math

import pytest
import torch
import torch.nn.functional as F

from taichi_kernels import reference, spherical_harmonics
from tests.compare import assert_matches_twin

pytestmark = pytest.mark.usefixtures("each_variant")


def random_directions(n, device="cpu", dtype=torch.float32):
    return F.normalize(torch.randn(n, 3, device=device, dtype=dtype), dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("degree", range(1, 9))
def test_matches_twin(degree, dtype, device):
    directions = random_directions(517, device, dtype).requires_grad_()
    # The twin's monomials cancel: float32 is too little for them at the higher degrees.
    assert_matches_twin(
        lambda d: spherical_harmonics(d, degree),
        lambda d: reference.spherical_harmonics(d.double(), degree).to(dtype),
        [directions],
        value_scale=10 * degree,
    )


def test_degree_4_of_the_spec(device):
    directions = random_directions(50, device)
    x, y, z = directions.unbind(1)
    expected = [
        0.28209479177387814 + 0 * x,
        -0.48860251190291987 * y,
        0.48860251190291987 * z,
        -0.48860251190291987 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.94617469575755997 * z * z - 0.31539156525251999,
        -1.0925484305920792 * x * z,
        0.54627421529603959 * (x * x - y * y),
        0.59004358992664352 * y * (-3 * x * x + y * y),
        2.8906114426405538 * x * y * z,
        0.45704579946446572 * y * (1 - 5 * z * z),
        0.3731763325901154 * z * (5 * z * z - 3),
        0.45704579946446572 * x * (1 - 5 * z * z),
        1.4453057213202769 * z * (x * x - y * y),
        0.59004358992664352 * x * (-x * x + 3 * y * y),
    ]
    torch.testing.assert_close(spherical_harmonics(directions, 4), torch.stack(expected, 1), atol=1e-6, rtol=1e-5)


def test_orthonormal_over_the_sphere(device):
    # A Fibonacci sphere integrates the products of two harmonics below degree 8 to a few 1e-3.
    n = 20_000
    i = torch.arange(n, dtype=torch.float64, device=device) + 0.5
    z, angle = 1 - 2 * i / n, i * math.pi * (1 + math.sqrt(5))
    r = (1 - z * z).sqrt()
    harmonics = spherical_harmonics(torch.stack((r * angle.cos(), r * angle.sin(), z), 1), 8)
    products = harmonics.t() @ harmonics * (4 * math.pi / n)
    torch.testing.assert_close(products, torch.eye(64, dtype=torch.float64, device=device), atol=5e-3, rtol=0)


@pytest.mark.parametrize("degree", [1, 2, 5, 8])
def test_gradcheck(degree, device):
    directions = torch.randn(5, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: spherical_harmonics(d, degree), directions)


@pytest.mark.parametrize("n", [0, 1])
def test_few(n, device):
    directions = random_directions(n, device).requires_grad_()
    harmonics = spherical_harmonics(directions, 3)
    assert harmonics.shape == (n, 9)
    harmonics.sum().backward()
    assert directions.grad.shape == (n, 3)


@pytest.mark.parametrize("degree", [0, 9])
def test_degree_out_of_range(degree, device):
    with pytest.raises(ValueError, match=f"degree: expected 1 to 8, got {degree}; choose a degree in this range"):
        spherical_harmonics(torch.zeros(1, 3, device=device), degree)
