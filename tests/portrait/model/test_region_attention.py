import pytest
import torch

from ernerf_ti.portrait.model.region_attention import ATTENTIONS, region_attention


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_interface(attention):
    module = region_attention(attention, 10, 32, 16, 8)
    features = torch.randn(50, 10, requires_grad=True)
    audio, eye = torch.randn(32, requires_grad=True), torch.rand(1, requires_grad=True)
    codes = module(features, audio, eye)
    assert codes.audio.shape == (50, 32) and codes.eye.shape == (50, 1)
    assert codes.audio_attention.shape == codes.eye_attention.shape == (50,)
    for value, expected in zip(module.norms(features), codes[2:], strict=True):
        torch.testing.assert_close(value, expected)
    sum((value * torch.randn_like(value)).sum() for value in codes).backward()
    reached = (audio, eye, *module.parameters()) + ((features,) if attention != "none" else ())
    assert all(x.grad.abs().max() > 0 for x in reached)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_attention_norms(attention):
    """The outputs are linear in audio and eye closure, and the norms are those of the weights."""
    module = region_attention(attention, 10, 32, 16, 8)
    features = torch.randn(20, 10)
    codes = module(features, torch.ones(32), torch.ones(1))
    torch.testing.assert_close(codes.audio_attention, codes.audio.norm(dim=1))
    torch.testing.assert_close(codes.eye_attention, codes.eye[:, 0])
    twice = module(features, torch.full((32,), 2.0), torch.full((1,), 3.0))
    torch.testing.assert_close(twice.audio, 2 * codes.audio)
    torch.testing.assert_close(twice.eye, 3 * codes.eye)


def test_what_the_kinds_can_do():
    features, audio, eye = torch.randn(30, 10), torch.rand(32) + 0.5, torch.rand(1)
    spread = {}
    for attention in ATTENTIONS:
        weights = region_attention(attention, 10, 32, 16, 8)(features, audio, eye).audio / audio
        spread[attention] = (weights.std(0).max().item() > 1e-4, weights.std(1).max().item() > 1e-4)
    # Varies over points, over channels.
    assert spread == {"channel": (True, True), "feature": (True, False), "none": (False, False)}


def test_unknown_kind():
    with pytest.raises(ValueError, match="expected one of channel, feature, none, got 'all'"):
        region_attention("all", 10, 32, 16, 8)
