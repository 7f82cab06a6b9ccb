import pytest
import torch

from taichi_kernels import RaySamples, composite, march_rays, reference, render_rays
from tests.kernels.scene import random_rays, shell_bitfield


def field(samples):
    """A smooth scene in closed form: density, colour and depth, one plain channel."""
    x = samples.positions
    sigmas = (10 + 30 * torch.exp(-8 * (x.norm(dim=1) - 0.5) ** 2)) * (1 + torch.sin(9 * x[:, 0]))
    weighted = torch.cat((torch.sin(3 * x) ** 2, (samples.ts + samples.deltas)[:, None]), 1)
    return sigmas, weighted, x[:, :1].abs().contiguous()


@pytest.mark.parametrize(
    ("max_steps", "T_threshold", "options"),
    [(16, 1e-4, {}), (128, 1e-2, {}), (128, 0.5, {}), (128, 1e-2, {"bound": 4.0, "dt_gamma": 1 / 64})],
)
def test_matches_twin(max_steps, T_threshold, options, device):
    bound = options.get("bound", 1.0)
    rays = random_rays(61, device, torch.float64, bound)
    bitfield = shell_bitfield(device, bound=bound)
    passes = []

    def counted(samples):
        passes.append(len(samples.ts))
        return field(samples)

    result = render_rays(counted, *rays, bitfield, max_steps=max_steps, T_threshold=T_threshold, **options)
    expected = reference.render_rays(
        lambda samples: field(RaySamples(*samples)),
        *(rays + (bitfield,)),
        max_steps=max_steps,
        T_threshold=T_threshold,
        **options,
    )
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert len(passes) > 2 and expected[2].max() > 0.1


def test_equals_the_training_path_when_nothing_stops_early(device):
    rays = random_rays(500, device, torch.float64)
    bitfield = shell_bitfield(device)
    # Rays take all their samples: the budget is large and the threshold is never met.
    result = render_rays(field, *rays, bitfield, max_steps=1024, T_threshold=0.0)
    samples = march_rays(*rays, bitfield, max_steps=1024)
    sigmas, weighted, summed = field(samples)
    expected = composite(sigmas, samples.deltas, weighted, summed, samples.packed_info, T_threshold=0.0)
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_field_is_evaluated_less_with_a_threshold(device):
    rays = random_rays(400, device)
    bitfield = shell_bitfield(device)
    counts = {}
    for threshold in (0.0, 0.5):
        evaluated = []

        def counted(samples, evaluated=evaluated):
            evaluated.append(len(samples.ts))
            return field(samples)

        render_rays(counted, *rays, bitfield, max_steps=512, T_threshold=threshold)
        counts[threshold] = sum(evaluated)
    assert counts[0.5] < 0.8 * counts[0.0]


@pytest.mark.parametrize("n", [0, 1, 513])
def test_no_rays_and_empty_grids(n, device):
    rays = random_rays(n, device)
    empty = torch.zeros_like(shell_bitfield(device))
    result = render_rays(field, *rays, empty, max_steps=16)
    assert result.weighted.shape == (n, 4) and result.summed.shape == (n, 1) and result.opacity.shape == (n,)
    assert all((x == 0).all() for x in result)
    assert render_rays(field, *rays, shell_bitfield(device), max_steps=16).opacity.shape == (n,)


def test_field_without_plain_channels(device):
    rays = random_rays(50, device)
    result = render_rays(lambda s: (*field(s)[:2], None), *rays, shell_bitfield(device), max_steps=16)
    assert result.summed.shape == (50, 0)
    assert result.opacity.max() > 0


def test_the_twin_gives_the_field_the_same_samples(device):
    rays, bitfield = random_rays(20, device, torch.float64), shell_bitfield(device)
    kinds = []

    def named(samples):
        kinds.append(samples._fields)
        return field(samples)

    for render in (render_rays, reference.render_rays):
        render(named, *rays, bitfield, max_steps=16)
    assert set(kinds) == {RaySamples._fields}


def test_has_no_gradient(device):
    rays_o, *others = *random_rays(20, device), shell_bitfield(device)
    rays_o.requires_grad_()
    with pytest.raises(ValueError, match="rays_o: expected a tensor that requires no gradient"):
        render_rays(field, rays_o, *others, max_steps=16)
    with torch.no_grad():
        assert not render_rays(field, rays_o, *others, max_steps=16).weighted.requires_grad
