"""Head over torso over background on N rays: properties that hold for any scene."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ernerf_ti.portrait.camera import pixel_rays
from ernerf_ti.portrait.config import MarchConfig, TorsoGridConfig
from ernerf_ti.portrait.records import FieldOutput, RenderOutput, TorsoLayer
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.portrait.render.layers import TorsoScene, render_layers
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid
from tests.portrait.render.scene import ball_grid, random_rays, solid_field

CONFIG = MarchConfig(max_steps=32)
N = 120


def torso_field(coords):
    return TorsoLayer(torch.sigmoid(3 * coords[:, 0]), torch.sigmoid(coords @ coords.new_ones(2, 3)), coords * 0)


def torso_scene(coords) -> TorsoScene:
    grid = TorsoGrid(TorsoGridConfig(resolution=16)).to(coords.device)
    grid.update(lambda points: torso_field(points).alpha)
    return TorsoScene(torso_field, grid, coords)


def assert_same(output: RenderOutput, expected: RenderOutput, **tolerance) -> None:
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(output, name), value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@given(seed=st.integers(0, 2**31), n_layers=st.integers(2, 5))
@settings(deadline=None, max_examples=30)
def test_compositing_is_associative(seed, n_layers):
    """Merging any two neighboring layers into one changes nothing; so does splitting one in two."""
    generator = torch.Generator().manual_seed(seed)
    alphas = torch.rand(n_layers, 7, generator=generator, dtype=torch.float64)
    colors = torch.rand(n_layers, 7, 3, generator=generator, dtype=torch.float64) * alphas[..., None]
    background = torch.rand(7, 3, generator=generator, dtype=torch.float64)

    def composite(layers):
        result = background
        for rgb, alpha in reversed(layers):
            result = over(rgb, alpha, result)
        return result

    layers = list(zip(colors, alphas, strict=True))
    expected = composite(layers)
    for i in range(n_layers - 1):
        (front, front_alpha), (back, back_alpha) = layers[i : i + 2]
        merged = over(front, front_alpha, back), front_alpha + (1 - front_alpha) * back_alpha
        torch.testing.assert_close(composite([*layers[:i], merged, *layers[i + 2 :]]), expected)
    assert torch.equal(over(colors[0], alphas[0], None), colors[0])


def test_a_sample_can_be_split_in_two(device):
    """Half the step length twice, with the same density and color, is the same as the whole step."""
    grid, rays = ball_grid(device), random_rays(N, device)

    def field(positions, directions):
        ones = torch.ones(len(positions), device=device)
        return FieldOutput(4 * ones, 0.3 * torch.ones(len(positions), 3, device=device), ones, ones, None)

    coarse = render_layers(field, grid, *rays, MarchConfig(max_steps=64, T_threshold=0.0))
    fine = render_layers(field, grid, *rays, MarchConfig(max_steps=512, T_threshold=0.0))
    assert (fine.n_samples.sum() > 1.8 * coarse.n_samples.sum()) and coarse.opacity.max() > 0.9
    torch.testing.assert_close(coarse.rgb, 0.3 * coarse.opacity[:, None].expand(-1, 3))
    # Path lengths differ by at most a step.
    assert (coarse.opacity - fine.opacity).abs().max() < 4 * 2 * 3**0.5 * 2 / 32


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=5)
def test_permuted_rays_permute_the_output(seed, device):
    torch.manual_seed(seed)
    grid, (rays_o, rays_d) = ball_grid(device), random_rays(N, device)
    coords, background = torch.rand(N, 2, device=device) * 2 - 1, torch.rand(N, 3, device=device)
    torso = torso_scene(coords)
    whole = render_layers(solid_field, grid, rays_o, rays_d, CONFIG, background, torso)
    order = torch.randperm(N, device=device)
    permuted = render_layers(
        *(solid_field, grid, rays_o[order].contiguous(), rays_d[order].contiguous(), CONFIG, background[order]),
        torso._replace(pixel_coords=coords[order]),
    )
    assert_same(permuted, whole.map(lambda value: value[order]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_moving_camera_and_scene_together_changes_nothing(quarters, device):
    """A rotation about the y axis by quarters of a turn, which maps the cells of the grid onto each other."""
    matrix = Rotation.from_rotvec([0, quarters * torch.pi / 2, 0]).as_matrix().round()
    rotation = torch.tensor(matrix, dtype=torch.float32, device=device)
    grid, (rays_o, rays_d) = ball_grid(device), random_rays(N, device)
    background = torch.rand(N, 3, device=device)

    def rotated_field(positions, directions):
        return solid_field(positions @ rotation, directions @ rotation)

    still = render_layers(solid_field, grid, rays_o, rays_d, CONFIG, background)
    moved = render_layers(
        rotated_field,
        grid,
        (rays_o @ rotation.t()).contiguous(),
        (rays_d @ rotation.t()).contiguous(),
        CONFIG,
        background,
    )
    assert still.opacity.max() > 0.9 and still.n_samples.min() == 0
    assert (moved.n_samples == still.n_samples).float().mean() > 0.95  # rounding may drop a sample at a cell's border
    same = moved.n_samples == still.n_samples
    for name in ("rgb", "opacity", "depth", "audio_attention"):
        torch.testing.assert_close(getattr(moved, name)[same], getattr(still, name)[same], rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_rays_move_with_their_camera(seed):
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3] = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    motion[:3, 3] = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pixels, intrinsics = torch.tensor([[0, 0], [3, 9], [7, 2]]), (11.0, 12.0, 5.0, 4.0)
    pose = torch.eye(4, dtype=torch.float64)
    rays_o, rays_d = pixel_rays(pose, intrinsics, pixels)
    moved_o, moved_d = pixel_rays(motion @ pose, intrinsics, pixels)
    torch.testing.assert_close(moved_o, rays_o @ motion[:3, :3].t() + motion[:3, 3])
    torch.testing.assert_close(moved_d, rays_d @ motion[:3, :3].t())


def test_opacities_and_timing(device):
    grid, rays = ball_grid(device), random_rays(N, device)
    coords, layers = torch.rand(N, 2, device=device) * 2 - 1, []
    alone = render_layers(solid_field, grid, *rays, CONFIG, after_layer=layers.append)
    assert alone.head_opacity is None and layers == ["head"]
    both = render_layers(solid_field, grid, *rays, CONFIG, None, torso_scene(coords), after_layer=layers.append)
    assert layers == ["head", "torso", "head"]
    torch.testing.assert_close(both.head_opacity, alone.opacity)
    alpha = torso_field(coords).alpha
    torch.testing.assert_close(both.opacity, 1 - (1 - alone.opacity) * (1 - alpha), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.depth, alone.depth)
