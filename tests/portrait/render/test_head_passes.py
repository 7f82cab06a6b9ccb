"""Frames on the CPU: the picture is that of the path that training takes."""

import dataclasses

import pytest
import torch

from ernerf_ti.portrait.config import (
    FrequencyConfig,
    HashGridConfig,
    HeadFieldConfig,
    MarchConfig,
    OccupancyGridConfig,
    PlainTriplaneConfig,
    TriplaneHashConfig,
)
from ernerf_ti.portrait.model.head_field import HeadField
from ernerf_ti.portrait.records import FrameInputs
from ernerf_ti.portrait.render import head as head_module
from ernerf_ti.portrait.render.head import render_head, render_head_in_chunks
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.portrait.render.head_passes import renders_in_parts
from tests.kernels.scene import random_rays

ENCODERS = [
    TriplaneHashConfig(n_levels=3, base_resolution=4, finest_resolution=16, log2_table_size=6, n_features=2),
    HashGridConfig(n_levels=3, base_resolution=4, finest_resolution=12, log2_table_size=7),
    PlainTriplaneConfig(resolution=6, n_features=8),
    FrequencyConfig(n_octaves=3, width=8, n_layers=2, n_features=5),
]
CONFIG = MarchConfig(max_steps=32, samples_per_pass=3, samples_per_chunk=100)


@torch.no_grad()
def make_head(encoder=ENCODERS[0], **changes):
    """A ball that hides what is behind it."""
    torch.manual_seed(2)
    field = HeadField(HeadFieldConfig(position_encoder=encoder, **changes), 5, 3)
    for name, parameter in field.position_encoder.named_parameters():
        if "network" not in name:
            torch.nn.init.normal_(parameter)
    field.density_net.layers[-1].weight[0].abs_().mul_(40)
    grid = OccupancyGrid(OccupancyGridConfig(resolution=16))
    grid.update(lambda positions: 20.0 * (positions.norm(dim=1) < 0.45).float())
    return field, grid


def bound(field, appearance=1, **options):
    window = torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(1))
    inputs = FrameInputs(window, torch.tensor([0.4]), appearance, torch.eye(4))
    return field.bind(inputs, with_uncertainty=False, **options)


def assert_same_picture(output, expected):
    assert expected.opacity.max() > 0.8 and (expected.n_samples == 0).any()
    for name in ("rgb", "opacity", "depth", "audio_attention", "eye_attention"):
        close = torch.isclose(getattr(output, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
        # Where a ray's transmittance is the threshold up to rounding, plain sums may have a sample more.
        assert close.all() or ("attention" in name and close.float().mean() > 0.99), name


@pytest.mark.parametrize("attention", ["channel", "feature", "none"])
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_the_picture_of_training(encoder, attention):
    field, grid = make_head(encoder, attention=attention)
    rays = random_rays(700, "cpu")[:2]
    with torch.no_grad():
        expected = render_head(bound(field), grid, *rays, CONFIG)
    output = render_head_in_chunks(bound(field), grid, *rays, CONFIG)
    assert renders_in_parts(bound(field), rays[0])
    assert_same_picture(output, expected)
    # Nothing behind a surface is evaluated, and no less than what the picture needs.
    assert output.n_samples.sum() <= expected.n_samples.sum()
    background = torch.rand(700, 3)
    over = render_head_in_chunks(bound(field), grid, *rays, CONFIG, background)
    torch.testing.assert_close(over.rgb, (output.rgb + (1 - output.opacity[:, None]) * background).clamp(0, 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"samples_per_pass": 1, "samples_per_chunk": 7},
        {"samples_per_pass": 100, "samples_per_chunk": None},
        {"max_steps": 256, "dt_gamma": 1 / 64},
        {"T_threshold": 1e-9},
    ],
    ids=str,
)
def test_other_passes_and_steps(changes):
    field, grid = make_head()
    rays, config = random_rays(300, "cpu")[:2], dataclasses.replace(CONFIG, **changes)
    with torch.no_grad():
        expected = render_head(bound(field), grid, *rays, config)
    assert_same_picture(render_head_in_chunks(bound(field), grid, *rays, config), expected)


def test_the_weights_and_cells_of_now():
    field, grid = make_head()
    rays = random_rays(300, "cpu")[:2]
    before = render_head_in_chunks(bound(field), grid, *rays, CONFIG)
    optimizer = torch.optim.AdamW(field.parameters(), lr=0.05, fused=True)
    render_head(bound(field), grid, *rays, CONFIG).rgb.square().sum().backward()
    optimizer.step()
    grid.update(lambda positions: 30.0 * (positions[:, 0] > 0.1).float())
    with torch.no_grad():
        expected = render_head(bound(field), grid, *rays, CONFIG)
    assert (expected.rgb - before.rgb).abs().max() > 0.05
    assert_same_picture(render_head_in_chunks(bound(field), grid, *rays, CONFIG), expected)


def test_attention_only_where_it_is_asked_for():
    field, grid = make_head()
    rays = random_rays(100, "cpu")[:2]
    whole = render_head_in_chunks(bound(field), grid, *rays, CONFIG)
    output = render_head_in_chunks(bound(field, with_attention=False), grid, *rays, CONFIG)
    assert output.audio_attention is None and output.eye_attention is None
    torch.testing.assert_close(output.rgb, whole.rgb)


@pytest.mark.parametrize("case", ["uncertainty", "autocast", "another field"])
def test_all_else_takes_the_path_of_training(case, monkeypatch):
    field, grid = make_head()
    rays, taken = random_rays(50, "cpu")[:2], []
    monkeypatch.setattr(head_module, "render_head_in_parts", lambda *arguments: taken.append(arguments))
    head = bound(field)
    if case == "uncertainty":
        head = dataclasses.replace(head, with_uncertainty=True)
    elif case == "another field":
        head = head.__call__
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        output = render_head_in_chunks(head, grid, *rays, CONFIG)
    assert not taken and (output.uncertainty is not None) == (case == "uncertainty")


def test_no_rays_and_an_empty_grid():
    field, grid = make_head()
    rays_o, rays_d = random_rays(20, "cpu")[:2]
    assert render_head_in_chunks(bound(field), grid, rays_o[:0], rays_d[:0], CONFIG).rgb.shape == (0, 3)
    grid.set_bitfield(torch.zeros_like(grid.bitfield))
    output = render_head_in_chunks(bound(field), grid, rays_o, rays_d, CONFIG)
    assert (output.opacity == 0).all() and (output.n_samples == 0).all()


def test_half_precision():
    field, grid = make_head()
    rays = random_rays(300, "cpu")[:2]
    exact = render_head_in_chunks(bound(field), grid, *rays, CONFIG)
    field.precision = torch.bfloat16
    with torch.no_grad():
        expected = render_head(bound(field), grid, *rays, CONFIG)
    output = render_head_in_chunks(bound(field), grid, *rays, CONFIG)
    error, own_error = ((image.rgb - exact.rgb).square().mean() for image in (output, expected))
    assert 0 < error < 2 * own_error
