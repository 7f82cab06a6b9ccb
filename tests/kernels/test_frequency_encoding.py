import math

import pytest
import torch

from taichi_kernels import frequency_encode, reference
from tests.compare import assert_matches_twin

pytestmark = pytest.mark.usefixtures("each_variant")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "n_dims", "n_octaves"), [(1, 6, 3), (1031, 2, 8), (77, 3, 0), (0, 2, 8), (513, 1, 1)])
def test_matches_twin(n, n_dims, n_octaves, dtype, device):
    x = torch.randn(n, n_dims, device=device, dtype=dtype).requires_grad_()
    assert_matches_twin(
        lambda x: frequency_encode(x, n_octaves),
        lambda x: reference.frequency_encode(x, n_octaves),
        [x],
        value_scale=2**n_octaves,
    )


def test_hand_worked_order(device):
    x = torch.tensor([[0.0, math.pi / 2]], device=device)
    expected = [0, math.pi / 2, 0, 1, 1, 0, 0, 0, 1, -1]  # x, y | sin x, sin y, cos x, cos y | the same of 2x, 2y
    torch.testing.assert_close(frequency_encode(x, 2), torch.tensor([expected], device=device), atol=1e-6, rtol=0)


def test_float32_is_accurate_at_any_frequency(device):
    # Coordinates of pixels and positions lie within a few radians. CUDA's fast functions would fail.
    sizes = torch.logspace(-6, 4, 4099, device=device)
    x = torch.stack((sizes, -sizes), 1)
    expected = reference.frequency_encode(x.double(), 16)
    error = (frequency_encode(x, 16) - expected).abs()[:, 2:]
    assert error.max() < 2e-7


def test_many_octaves_are_as_accurate(device):
    x = torch.rand(500, 2, device=device) * 2 - 1
    expected = reference.frequency_encode(x.double(), 60)
    assert (frequency_encode(x, 60) - expected).abs()[:, 2:].max() < 2e-7


def test_what_is_not_finite_stays_so(device):
    x = torch.tensor([[math.nan], [math.inf], [-math.inf]], device=device)
    assert frequency_encode(x, 3)[:, 1:].isnan().all()


def test_gradcheck(device):
    x = torch.randn(7, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: frequency_encode(x, 4), x)


def test_octaves_must_be_a_whole_number(device):
    with pytest.raises(TypeError, match=r"n_octaves: expected an integer, got 2.5; pass the number of frequencies"):
        frequency_encode(torch.zeros(1, 2, device=device), 2.5)


def test_negative_octaves(device):
    with pytest.raises(ValueError, match="n_octaves: expected at least 0, got -1; pass the number of frequencies"):
        frequency_encode(torch.zeros(1, 2, device=device), -1)
