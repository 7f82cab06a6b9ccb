"""`shencoder` and `freqencoder` against the twins of the kernels that they use."""

import pytest
import torch
import torch.nn.functional as F

from taichi_kernels.compat.torch_ngp import freqencoder, shencoder
from taichi_kernels.reference.frequency_encoding import frequency_encode
from taichi_kernels.reference.spherical_harmonics import spherical_harmonics
from tests.compare import assert_matches_twin


@pytest.mark.parametrize(("input_dim", "degree"), [(2, 8), (6, 3), (3, 0)])
def test_frequencies_match_the_twin(input_dim, degree, device):
    encoder = freqencoder.FreqEncoder(input_dim, degree)
    x = torch.randn(5, 7, input_dim, device=device, dtype=torch.float64, requires_grad=True)
    assert encoder.output_dim == input_dim * (1 + 2 * degree)
    assert encoder(x, bound=2).shape == (5, 7, encoder.output_dim)
    assert_matches_twin(lambda x: encoder(x, bound=2), lambda x: frequency_encode(x, degree), [x])
    assert_matches_twin(
        lambda x: freqencoder.freq_encode(x, degree, encoder.output_dim),
        lambda x: frequency_encode(x, degree),
        [x.detach().view(35, -1).requires_grad_()],
    )
    assert list(encoder.state_dict()) == []


@pytest.mark.parametrize("degree", range(1, 9))
def test_harmonics_match_the_twin(degree, device):
    encoder = shencoder.SHEncoder(3, degree)
    directions = F.normalize(torch.randn(3, 11, 3, device=device, dtype=torch.float64), dim=-1).requires_grad_()
    assert encoder(directions).shape == (3, 11, degree**2) and encoder.output_dim == degree**2
    assert_matches_twin(encoder, lambda d: spherical_harmonics(d, degree), [directions])
    assert_matches_twin(
        lambda d: encoder(d, size=2), lambda d: spherical_harmonics(d / 2, degree), [(2 * directions).detach()]
    )


def test_directions_without_gradient_get_none(device):
    directions = torch.rand(4, 3, device=device, requires_grad=True)
    assert not shencoder.sh_encode(directions, 4).requires_grad
    assert shencoder.sh_encode(directions, 4, True).requires_grad


def test_half_precision_is_computed_in_float32(device):
    x = torch.randn(9, 3, device=device)
    for function in (lambda x: freqencoder.freq_encode(x, 6, 39), lambda x: shencoder.sh_encode(x, 4)):
        expected = function(x.half().float())
        with torch.autocast(device.type, dtype=torch.bfloat16):
            assert torch.equal(function(x.half()), expected)
            assert function(x.double()).dtype == torch.float32
        assert function(x.half()).dtype == torch.float32
        assert torch.equal(function(x.half().t().contiguous().t()), expected)


def test_nothing_to_encode(device):
    none = torch.zeros(0, 3, device=device)
    assert freqencoder.FreqEncoder()(none).shape == (0, 27)
    assert shencoder.SHEncoder()(none).shape == (0, 16)


def test_errors(device):
    x = torch.zeros(4, 3, device=device)
    with pytest.raises(ValueError) as error:
        freqencoder.freq_encode(x, 4, 28)
    assert str(error.value) == "output_dim: expected 27, D (1 + 2 degree), got 28; pass that"
    with pytest.raises(ValueError, match=r"inputs: expected shape \[B, 3\], got \[4, 2\]; "):
        shencoder.sh_encode(x[:, :2], 4)
    with pytest.raises(ValueError, match=r"degree: expected 1 to 8, got 9; choose a degree in this range"):
        shencoder.SHEncoder(3, 9)
    with pytest.raises(ValueError, match=r"input_dim: expected 3, got 2; "):
        shencoder.SHEncoder(2)
