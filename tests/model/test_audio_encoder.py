import pytest
import torch
import torch.nn.functional as F

from ernerf_ti.model.audio_encoder import AudioEncoder, TemporalAttention


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


@pytest.mark.parametrize("shape", [(7, 29, 16), (8, 30, 16), (8, 29)])
def test_wrong_windows_are_named(shape):
    with pytest.raises(ValueError, match=r"audio_window: expected shape \[8, 29, steps\], got"):
        AudioEncoder(29)(torch.zeros(shape))
