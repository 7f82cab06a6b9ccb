import pytest
import torch
import torch.nn.functional as F

from ernerf_ti.portrait.model.audio_encoder import AudioEncoder, TemporalAttention
from tests.reference.head_rendering import encode_audio


@pytest.mark.parametrize(("dimension", "steps"), [(29, 16), (42, 16), (44, 16), (80, 16), (1024, 2), (5, 1)])
def test_shapes_and_gradients(dimension, steps):
    encoder = AudioEncoder(dimension)
    code = encoder(torch.randn(8, dimension, steps))
    assert code.shape == (32,)
    (code * torch.randn(32)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_longer_windows_are_cropped():
    encoder, window = AudioEncoder(7), torch.randn(8, 7, 20)
    torch.testing.assert_close(encoder(window), encoder(window[:, :, :16]))


def test_attention_weighs_the_codes():
    attention = TemporalAttention(6)
    codes = torch.randn(8, 6)
    with torch.no_grad():
        attention.scores.weight.zero_()
        attention.scores.bias.copy_(torch.tensor([0.0, 0, 0, 0, 9, 0, 0, 0]))
        expected = F.softmax(attention.scores.bias, 0) @ codes
        torch.testing.assert_close(attention(codes), expected)
        assert (attention(codes) - codes[4]).abs().max() < 0.01


@pytest.mark.parametrize(("dimension", "steps"), [(29, 16), (42, 11), (7, 2), (5, 1)])
def test_equals_convolutions(dimension, steps):
    encoder, window = AudioEncoder(dimension).double(), torch.randn(8, dimension, steps, dtype=torch.float64)
    torch.testing.assert_close(encoder(window), encode_audio(encoder, window))


def test_several_frames_at_once():
    encoder, windows = AudioEncoder(9), torch.randn(2, 3, 8, 9, 16)
    codes = encoder(windows)
    assert codes.shape == (2, 3, 32)
    torch.testing.assert_close(codes[1, 2], encoder(windows[1, 2]))


@pytest.mark.parametrize("shape", [(7, 29, 16), (8, 30, 16), (8, 29)])
def test_wrong_windows_are_named(shape):
    with pytest.raises(ValueError, match=r"audio_window: expected shape \[8, 29, steps\], got"):
        AudioEncoder(29)(torch.zeros(shape))


def test_standardized_features():
    encoder = AudioEncoder(2)
    windows = torch.tensor([[[1.0, 10.0], [3.0, 10.0]], [[1.0, 14.0], [3.0, 14.0]]])  # [2, 2, 2]
    encoder.standardize(windows)
    # The channels' means are 2 and 12; the deviations are 1 and 2, so their mean square is 2.5.
    torch.testing.assert_close(encoder.feature_mean, torch.tensor([[2.0], [12.0]]))
    torch.testing.assert_close(encoder.feature_scale, torch.tensor(2.5).sqrt())
    plain = AudioEncoder(2)
    plain.load_state_dict(encoder.state_dict())
    plain.feature_mean.zero_()
    plain.feature_scale.fill_(1)
    window = torch.randn(8, 2, 16)
    standard = (window - torch.tensor([[2.0], [12.0]])) / 2.5**0.5
    torch.testing.assert_close(encoder(window), plain(standard))


def test_an_untrained_code_differs_from_sound_to_sound():
    # Square roots of posteriors, of which a few are large at a time: default weights made all codes alike to 0.5 %.
    generator = torch.Generator().manual_seed(0)
    windows = torch.softmax(4 * torch.randn(200, 16, 42, generator=generator), 2).sqrt()
    encoder = AudioEncoder(42)
    encoder.standardize(windows)
    with torch.no_grad():
        codes = torch.stack([encoder(windows[i : i + 8].transpose(1, 2)) for i in range(0, 192, 8)])
    assert codes.std(0).mean() > 0.2 * codes.abs().mean()


def test_a_gain_moves_codes_away_from_their_mean():
    encoder, windows = AudioEncoder(9), torch.randn(5, 8, 9, 16)
    codes = encoder(windows)
    encoder.code_mean.copy_(codes.detach().mean(0))
    assert torch.equal(encoder(windows), codes)
    encoder.gain = 1.5
    torch.testing.assert_close(encoder(windows), codes.mean(0) + 1.5 * (codes - codes.mean(0)))
    encoder.gain = 0
    torch.testing.assert_close(encoder(windows), codes.mean(0).expand(5, -1))


def nearest_mean(code, codes, n):
    """The slow way: sorted by distance, weights of Epanechnikov's kernel that ends at the first one left out."""
    order = sorted(codes, key=lambda c: (c - code).norm())
    reach = (order[n] - code).norm()
    weights = [1 - ((c - code).norm() / reach) ** 2 for c in order[:n]]
    return sum(w * c for w, c in zip(weights, order[:n], strict=True)) / sum(weights)


def test_codes_are_means_of_the_nearest_ones_in_training():
    encoder, windows = AudioEncoder(9, n_codes=40), torch.randn(3, 5, 8, 9, 16)
    codes = encoder(windows)
    assert torch.equal(encoder.adjust(codes, 1), codes)
    encoder.training_codes.copy_(codes.detach().mean((0, 1)) + 0.3 * torch.randn(40, 32))
    encoder.nearest = 6
    expected = torch.stack([nearest_mean(c, encoder.training_codes, 6) for c in codes.view(-1, 32)]).view_as(codes)
    torch.testing.assert_close(encoder(windows), expected)
    torch.testing.assert_close(encoder(windows[0, 0]), expected[0, 0])
    encoder.gain = 1.5
    encoder.code_mean.copy_(encoder.training_codes.mean(0))
    torch.testing.assert_close(encoder(windows), torch.lerp(encoder.code_mean, expected, 1.5))


def test_the_mean_of_the_nearest_codes_is_continuous():
    encoder = AudioEncoder(9, 2, n_codes=200)
    encoder.training_codes.copy_(torch.randn(200, 2))
    encoder.nearest = 5
    along = torch.linspace(-2, 2, 40_001)[:, None] * torch.tensor([1.0, 0.5])
    moved = encoder.adjust(along, 1).diff(dim=0).norm(dim=1)
    assert 0.02 > moved.max() > 0  # steps of 1e-4; codes are .1 apart


@pytest.mark.parametrize("n_different", [1, 2])
def test_equal_training_codes(n_different):
    encoder = AudioEncoder(9, 4, n_codes=6)
    encoder.training_codes.copy_(torch.randn(n_different, 4).repeat(6 // n_different, 1))
    encoder.nearest = 5
    code = encoder.training_codes[:1].clone()
    for query in (code, code + 1):
        assert torch.isfinite(encoder.adjust(query, 1)).all()
    if n_different == 1:
        torch.testing.assert_close(encoder.adjust(code + 1, 1), code)
