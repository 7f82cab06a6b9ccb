import pytest
import torch

from ernerf_ti.portrait.model.region_attention import ATTENTIONS, region_attention

HIDDEN = 7


def weighted(module, features, audio, eye) -> torch.Tensor:
    """[M, 33] audio code and eye closure times their weights: a layer of unit columns shows the inputs of a layer."""
    columns = module.fold(torch.eye(33), audio, eye)
    return torch.cat(module(features).weights, 1) @ columns.t()


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_interface(attention):
    module = region_attention(attention, 10, 32, 16, 8)
    features = torch.randn(50, 10, requires_grad=True)
    audio, eye = torch.randn(32, requires_grad=True), torch.rand(1, requires_grad=True)
    found = module(features)
    weights = torch.cat(found.weights, 1)
    assert weights.shape == (50, module.n_weights)
    assert found.audio_attention.shape == found.eye_attention.shape == (50,)
    columns = torch.randn(HIDDEN, 33, requires_grad=True)
    folded = module.fold(columns, audio, eye)
    assert folded.shape == (HIDDEN, module.n_weights)
    outputs = (weights @ folded.t(), found.audio_attention, found.eye_attention)
    sum((value * torch.randn_like(value)).sum() for value in outputs).backward()
    reached = (audio, eye, columns, *module.parameters()) + ((features,) if attention != "none" else ())
    assert all(x.grad.abs().max() > 0 for x in reached)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_weights_in_given_memory(attention):
    module, features = region_attention(attention, 10, 32, 16, 8), torch.randn(20, 10)
    expected = module(features)
    out = torch.full((module.n_weights, 20), torch.nan)
    with torch.no_grad():
        found = module(features, out)
    assert all(w.untyped_storage().data_ptr() == out.untyped_storage().data_ptr() for w in found.weights)
    torch.testing.assert_close(out.t(), torch.cat(expected.weights, 1))
    for value, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_attention_norms(attention):
    """The inputs of the next layer are linear in audio and eye closure, and the norms are those of the weights."""
    module = region_attention(attention, 10, 32, 16, 8)
    features = torch.randn(20, 10)
    found, once = module(features), weighted(module, features, torch.ones(32), torch.ones(1))
    torch.testing.assert_close(found.audio_attention, once[:, :32].norm(dim=1))
    torch.testing.assert_close(found.eye_attention, once[:, 32])
    twice = weighted(module, features, torch.full((32,), 2.0), torch.full((1,), 3.0))
    torch.testing.assert_close(twice[:, :32], 2 * once[:, :32])
    torch.testing.assert_close(twice[:, 32], 3 * once[:, 32])


def test_what_the_kinds_can_do():
    features, audio, eye = torch.randn(30, 10), torch.rand(32) + 0.5, torch.rand(1)
    spread = {}
    for attention in ATTENTIONS:
        inputs = weighted(region_attention(attention, 10, 32, 16, 8), features, audio, eye)
        weights = inputs[:, :32] / audio
        spread[attention] = (weights.std(0).max().item() > 1e-4, weights.std(1).max().item() > 1e-4)
    # Varies over points, over channels.
    assert spread == {"channel": (True, True), "feature": (True, False), "none": (False, False)}


def test_attention_of_half_precision_features():
    module, features = region_attention("channel", 10, 32, 16, 8), torch.randn(40, 10)
    found, expected = module(features.bfloat16()), module(features)
    assert found.audio_attention.dtype == torch.float32  # summed up in float32
    torch.testing.assert_close(found.audio_attention, expected.audio_attention, rtol=0.02, atol=0.01)


def test_unknown_kind():
    with pytest.raises(ValueError, match="expected one of channel, feature, none, got 'all'"):
        region_attention("all", 10, 32, 16, 8)
