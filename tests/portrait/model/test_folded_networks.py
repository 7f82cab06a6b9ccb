import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.portrait.config import HeadFieldConfig, TriplaneHashConfig
from ernerf_ti.portrait.model.head_field import HeadField
from ernerf_ti.portrait.model.region_attention import ATTENTIONS
from ernerf_ti.portrait.records import FrameInputs

ENCODER = TriplaneHashConfig(n_levels=3, base_resolution=4, finest_resolution=16, log2_table_size=6)
SHAPES = [
    {},
    {"density_layers": 1, "color_layers": 1},
    {"density_layers": 2, "color_layers": 3, "direction_degree": 1, "geometry_features": 5},
    {"density_layers": 4, "appearance_size": 0, "audio_code_size": 7},
    {"eye_closure_scale": 4.0},
]


@torch.no_grad()
def bound_field(device, appearance=1, **changes):
    """A frame's field, with features of a size that reaches all nonlinearities, and points."""
    torch.manual_seed(3)
    field = HeadField(HeadFieldConfig(position_encoder=ENCODER, **changes), 5, 3).to(device)
    torch.nn.init.normal_(field.position_encoder.encoding.tables)
    window = torch.randn(8, 5, 16).to(device)
    eye = torch.tensor([0.7], device=device)
    bound = field.bind(FrameInputs(window, eye, appearance, torch.eye(4, device=device)), with_uncertainty=False)
    positions = (torch.rand(301, 3) * 2 - 1).to(device)
    return field, bound, positions, torch.nn.functional.normalize(torch.randn(301, 3), dim=1).to(device)


@torch.no_grad()
def evaluated(field, bound, positions, directions, **options):
    harmonics = tk.spherical_harmonics(directions, field.config.direction_degree)
    return bound.folded(**options)(field.position_encoder(positions), harmonics)


def rows(output):
    return torch.stack((output.sigmas, *output.rgbs.unbind(1), output.audio_attention, output.eye_attention))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_folded_networks_have_the_values_of_the_field(attention, shape, device):
    field, bound, *points = bound_field(device, attention=attention, **shape)
    expected = rows(bound(*points))
    assert expected.isfinite().all() and expected[:4].std(1).min() > 0
    torch.testing.assert_close(
        evaluated(field, bound, *points, with_attention=True), expected.detach(), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(evaluated(field, bound, *points), expected[:4].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_folded_networks_in_half_precision(attention, precision, device):
    field, bound, *points = bound_field(device, attention=attention)
    exact, folded_exact = rows(bound(*points)).detach(), evaluated(field, bound, *points, with_attention=True)
    field.precision = precision
    half, folded = rows(bound(*points)).detach(), evaluated(field, bound, *points, with_attention=True)
    assert folded.dtype == torch.float32
    # Rounded in other places than the networks, but no more than they.
    errors, own_errors = (folded - folded_exact).square().mean(1), (half - exact).square().mean(1)
    assert (errors <= 2 * own_errors + 1e-9).all()


def test_folded_networks_for_another_frame_and_in_parts(device):
    field, bound, *points = bound_field(device)
    other = bound_field(device, appearance=2)[1]
    assert not torch.allclose(evaluated(field, other, *points), evaluated(field, bound, *points))
    folded = bound.folded()
    features = field.position_encoder(points[0]).detach()
    harmonics = tk.spherical_harmonics(points[1], field.config.direction_degree)
    whole = folded(features, harmonics).clone()
    out = torch.full((4, 301), torch.nan, device=device)
    for part in (slice(0, 100), slice(100, 101), slice(101, 301), slice(301, 301)):
        folded(features[part], harmonics[part], out[:, part])
    torch.testing.assert_close(out, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_units_of_points_serve_all_frames(attention, shape, precision, device):
    field, bound, *points = bound_field(device, attention=attention, **shape)
    other = bound_field(device, appearance=2, attention=attention, **shape)[1]
    other.eye_closure.fill_(0.1)
    field.precision = other.field.precision = precision
    features = field.position_encoder(points[0]).detach()
    harmonics = tk.spherical_harmonics(points[1], field.config.direction_degree)
    units = bound.folded().point_units(features, harmonics)
    expected = other.folded()(features, harmonics)
    out = torch.full((4, 301), torch.nan, device=device)
    for part in (slice(0, 150), slice(150, 301), slice(301, 301)):
        other.folded().of_point_units(units[:, part].clone(), out[:, part])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(expected, bound.folded()(features, harmonics))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scaled_units(attention, shape, device):
    _, bound, *points = bound_field(device, attention=attention, **shape)
    features = bound.field.position_encoder(points[0]).detach()
    harmonics = tk.spherical_harmonics(points[1], bound.field.config.direction_degree)
    units = bound.folded().point_units(features, harmonics)
    expected = bound.folded().of_point_units(units.clone(), torch.empty(4, len(features), device=device))
    lowest, steps = torch.randn(len(units), 1, device=device), torch.rand(len(units), 1, device=device) + 0.5
    first_harmonic = len(units) - harmonics.shape[1]
    lowest[first_harmonic], steps[first_harmonic] = 0.0, harmonics[0, 0]
    folded = bound.folded()
    folded.take_scaled_units(lowest, steps)
    scaled = folded.of_point_units((units - lowest) / steps, torch.empty_like(expected))
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-5)
    unchanged = bound.folded().of_point_units(units.clone(), torch.empty_like(expected))
    assert torch.equal(unchanged, expected)  # the networks' own weights are as they were
