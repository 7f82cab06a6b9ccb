import pytest
import torch

from ernerf_ti.portrait.camera import all_pixels, pixel_coords
from ernerf_ti.portrait.config import TorsoGridConfig
from ernerf_ti.portrait.records import TorsoLayer
from ernerf_ti.portrait.render.static_shapes import static_shapes_on_cpu
from ernerf_ti.portrait.render.torso import render_torso
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid


def lower_left(coords):
    """Opaque in the lower left quarter."""
    inside = (coords[:, 0] > 0.2) & (coords[:, 1] < -0.2)
    return TorsoLayer(inside.float() * 0.9, coords.abs() @ coords.new_ones(2, 3) / 2, torch.zeros_like(coords))


def trained_grid(device):
    grid = TorsoGrid(TorsoGridConfig(resolution=32)).to(device)
    grid.update(lambda coords: lower_left(coords).alpha, torch.Generator(device).manual_seed(0))
    return grid


def test_grid_covers_the_torso(device):
    grid, coords = trained_grid(device), pixel_coords(all_pixels(40, 60, device), 40, 60)
    occupied = grid.occupied(coords)
    assert occupied[lower_left(coords).alpha > 0].all()
    assert 0.16 < occupied.float().mean() < 0.3  # 0.16 is covered, the rest lies within three cells
    # The file format of the public code: first index the horizontal coordinate, second the vertical one.
    assert grid.alpha_grid[2, -3] > 0.8 and grid.alpha_grid[-3, 2] == 0


def test_grid_decays(device):
    grid = trained_grid(device)
    before = grid.alpha_grid.clone()
    grid.update(lambda coords: torch.zeros(len(coords), device=device))
    torch.testing.assert_close(grid.alpha_grid, before * 0.95)
    torch.testing.assert_close(grid.mean_alpha, grid.alpha_grid.mean())


@pytest.fixture
def own_shapes(monkeypatch):
    """Shapes that depend on values, as on the CPU."""
    monkeypatch.setattr("ernerf_ti.portrait.render.static_shapes._device_types", set())


@pytest.mark.usefixtures("own_shapes")
def test_only_occupied_pixels_are_evaluated(device):
    grid, coords = trained_grid(device), pixel_coords(all_pixels(40, 60, device), 40, 60)
    seen = []

    def torso(coords):
        seen.append(coords)
        return lower_left(coords)

    background = torch.rand(2400, 3, device=device)
    rgb, alpha = render_torso(torso, grid, coords, background)
    assert torch.equal(seen[0], coords[grid.occupied(coords)])
    whole = lower_left(coords)
    torch.testing.assert_close(alpha, whole.alpha)
    expected = whole.rgb * whole.alpha[:, None] + background * (1 - whole.alpha[:, None])
    torch.testing.assert_close(rgb, expected)
    torch.testing.assert_close(render_torso(torso, grid, coords)[0], whole.rgb * whole.alpha[:, None])


def test_the_field_outside_the_torso_has_no_effect(device):
    grid, coords = trained_grid(device), pixel_coords(all_pixels(40, 60, device), 40, 60)

    def overflowing(coords):
        layer, empty = lower_left(coords), ~grid.occupied(coords)
        layer.alpha[empty], layer.rgb[empty] = torch.nan, torch.inf
        return layer

    background = torch.rand(2400, 3, device=device)
    for behind in (background, None):
        with static_shapes_on_cpu():
            rendered = render_torso(overflowing, grid, coords, behind)
        torch.testing.assert_close(rendered, render_torso(lower_left, grid, coords, behind))


@pytest.mark.usefixtures("own_shapes")
@pytest.mark.parametrize("with_background", [True, False])
def test_gradients(with_background, device):
    grid, coords = trained_grid(device), pixel_coords(all_pixels(8, 8, device), 8, 8)
    alpha, rgb = (torch.rand(64, *shape, device=device, dtype=torch.float64) for shape in ((), (3,)))
    background = torch.rand(64, 3, device=device, dtype=torch.float64) if with_background else None
    index = grid.occupied(coords)

    def function(alpha, rgb):
        return render_torso(lambda c: TorsoLayer(alpha[index], rgb[index], c), grid, coords, background)

    assert torch.autograd.gradcheck(function, (alpha.requires_grad_(), rgb.requires_grad_()))


def test_no_torso(device):
    background = torch.rand(64, 3, device=device)
    rgb, alpha = render_torso(
        lower_left, TorsoGrid(TorsoGridConfig()).to(device), pixel_coords(all_pixels(8, 8, device), 8, 8), background
    )
    assert torch.equal(rgb, background) and (alpha == 0).all()
