"""Loss terms by hand."""

import math

import pytest
import torch

from ernerf_ti.portrait.records import RayBatch, RenderOutput
from ernerf_ti.train import losses
from ernerf_ti.train.config import LossWeights


def rays(**values) -> losses.ComparedRays:
    return losses.compare(
        RenderOutput(
            **{
                "rgb": torch.zeros(2, 3),
                "opacity": torch.zeros(2),
                "depth": torch.ones(2),
                "audio_attention": torch.zeros(2),
                "eye_attention": torch.zeros(2),
                "uncertainty": torch.zeros(2),
                "n_samples": torch.zeros(2, dtype=torch.int32),
                **values,
            }
        ),
        RayBatch(
            torch.ones(2, 3),
            torch.ones(2, 3),
            torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.0, 0.0]]),
            torch.ones(2, 3),
            torch.tensor([True, False]),
        ),
    )


def test_squared_error():
    torch.testing.assert_close(losses.squared_error(rays()), torch.tensor([0.03, 0.0]))


def test_uncertainty_has_no_effect_at_first():
    error = losses.squared_error(rays())
    torch.testing.assert_close(losses.uncertainty_weighted(error, rays(), 0.0), error)


def test_uncertainty_at_the_end():
    u = torch.tensor([1.0, 0.5], requires_grad=True)
    error = torch.tensor([0.03, 0.01])
    ray_weights = torch.softmax(u.detach(), 0) * 2
    weighted = error * (0.2 + 0.8 * ray_weights)
    # In the face: |e| / (2 b^2) + ln(b)^2 / 2 with |e| = 0.3 and b = 2. Outside: 0.001 u.
    expected = weighted + torch.tensor([0.3 / 8 + math.log(2) ** 2 / 2, 0.0005])
    found = losses.uncertainty_weighted(error, rays(uncertainty=u), 1.0)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert u.grad[1] == pytest.approx(1e-3)


def test_opacity_entropy_is_one_bit_at_one_half():
    assert float(losses.opacity_entropy(torch.tensor([0.5]))) == pytest.approx(1)
    assert float(losses.opacity_entropy(torch.tensor([0.0, 1.0]))) < 1e-3


def test_attention_terms_of_audio_and_eyes():
    seen = rays(audio_attention=torch.tensor([2.0, 4.0]), eye_attention=torch.tensor([8.0, 16.0]))
    assert float(losses.outside_face(seen.audio_attention, seen)) == 2.0
    assert float(losses.eye_attention(seen, 16)) == pytest.approx(8 / 16 * 2 / 2)
    terms = losses.regularization(seen, LossWeights(audio_attention=0.1), 16, 0.5)
    assert float(terms["audio_attention"]) == pytest.approx(0.5 * 0.1 * 2)
    assert "attention_outside" not in terms


@pytest.mark.parametrize(("progress", "ramp"), [(0.0, 0), (0.9, 0), (0.95, 0.5), (1.0, 1)])
def test_attention_outside_the_face_counts_late(progress, ramp):
    seen = rays(audio_attention=torch.tensor([2.0, 4.0]), eye_attention=torch.tensor([8.0, 16.0]))
    for number in (progress, torch.tensor(progress)):
        terms = losses.regularization(seen, LossWeights(attention_outside=0.5), 16, number)
        assert float(terms["attention_outside"]) == pytest.approx(ramp * 0.5 * (4 + 16) / 2, abs=1e-5)


def test_variation_counts_the_masked_points():
    a, b = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.0, 4.0, 0.0])
    mask = torch.tensor([True, True, False])
    assert float(losses.variation([a], [b], mask)) == pytest.approx((1 + 4) / 2)
    assert float(losses.variation([a, b], [b, b], mask)) == pytest.approx((1 + 4) / 2)
    assert float(losses.variation([a], [b], torch.zeros(3, dtype=torch.bool))) == 0


@pytest.mark.parametrize("uncertainty", [None, torch.tensor([1.0, 0.5])])
def test_head_terms_of_a_number_and_of_a_tensor(uncertainty):
    seen = rays(opacity=torch.tensor([0.5, 0.2]), audio_attention=torch.tensor([2.0, 4.0]), uncertainty=uncertainty)
    weights = LossWeights(opacity_entropy=2.0, audio_attention=3.0)
    terms, mse = losses.head_terms(0.25, *seen, weights=weights, max_steps=16)
    assert float(mse) == pytest.approx(0.015)
    assert (float(terms["color"]) == pytest.approx(0.015)) == (uncertainty is None)
    assert float(terms["opacity_entropy"]) == pytest.approx(2 * float(losses.opacity_entropy(seen.opacity)))
    assert float(terms["audio_attention"]) == pytest.approx(0.25 * 3 * 2)
    same, _ = losses.head_terms(torch.tensor(0.25), *seen, weights=weights, max_steps=16)
    for name, term in terms.items():
        torch.testing.assert_close(same[name], term)


def test_anchor_deviation():
    anchors = torch.ones(3, 4)
    assert losses.anchor_deviation(anchors) == 0
    anchors[0, 3] = 0.7
    assert float(losses.anchor_deviation(anchors)) == pytest.approx(0.03)


def test_psnr():
    assert losses.psnr(0.01) == pytest.approx(20)
