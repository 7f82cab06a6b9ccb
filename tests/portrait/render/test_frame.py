import pytest
import torch

from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays, scene_from_capture
from ernerf_ti.portrait.config import MarchConfig, TorsoGridConfig
from ernerf_ti.portrait.records import TorsoLayer
from ernerf_ti.portrait.render.frame import ImagePixels, render_portrait
from ernerf_ti.portrait.render.head import render_head
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid
from tests.portrait.render.scene import ball_grid, solid_field

SIZE = WIDTH, HEIGHT = 24, 20
INTRINSICS = (30.0, 30.0, 12.0, 10.0)
CONFIG = MarchConfig(max_steps=32)


def pixels_on(device):
    return ImagePixels(INTRINSICS, SIZE, device)


def frontal_pose(device):
    pose = torch.eye(4, device=device)
    pose[2, 3] = 0.8
    return scene_from_capture(pose)


def torso_of(coords):
    """Half transparent red in the lower half."""
    return TorsoLayer(
        0.5 * (coords[:, 0] > 0).float(), torch.eye(3, device=coords.device)[:1].expand(len(coords), -1), coords * 0
    )


def torso_grid(device):
    grid = TorsoGrid(TorsoGridConfig(resolution=32)).to(device)
    grid.update(lambda coords: torso_of(coords).alpha)
    return grid


def test_head_over_torso_over_background(device):
    head_grid, pose = ball_grid(device), frontal_pose(device)
    background = torch.rand(HEIGHT, WIDTH, 3, device=device)
    output = render_portrait(
        *(solid_field, head_grid, pose, pixels_on(device), CONFIG, background, torso_of, torso_grid(device))
    )
    pixels = all_pixels(HEIGHT, WIDTH, device)
    alone = render_head(solid_field, head_grid, *pixel_rays(pose, INTRINSICS, pixels), CONFIG)
    assert (alone.opacity == 0).any() and (alone.opacity > 0.9).any()
    torso_alpha = torso_of(pixel_coords(pixels, HEIGHT, WIDTH)).alpha
    red = torch.tensor([1.0, 0, 0], device=device)
    behind = torso_alpha[:, None] * red + (1 - torso_alpha[:, None]) * background.view(-1, 3)
    expected = alone.rgb + (1 - alone.opacity[:, None]) * behind
    torch.testing.assert_close(output.rgb.view(-1, 3), expected.clamp(0, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.opacity.flatten(), 1 - (1 - alone.opacity) * (1 - torso_alpha), rtol=0, atol=1e-5)
    for name in ("depth", "audio_attention", "eye_attention", "uncertainty", "n_samples"):
        assert getattr(output, name).shape == (HEIGHT, WIDTH)
        torch.testing.assert_close(getattr(output, name).flatten(), getattr(alone, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_passes", [False, True])
@pytest.mark.parametrize("with_torso", [False, True])
def test_premultiplied_image_composites_over_a_background(with_torso, in_passes, device):
    scene = (solid_field, ball_grid(device), frontal_pose(device), pixels_on(device), CONFIG)
    torso = (torso_of, torso_grid(device)) if with_torso else (None, None)
    background = torch.rand(HEIGHT, WIDTH, 3, device=device)
    layer = render_portrait(*scene, None, *torso, in_passes=in_passes)
    whole = render_portrait(*scene, background, *torso, in_passes=in_passes)
    over = layer.rgb + (1 - layer.opacity[..., None]) * background
    torch.testing.assert_close(over.clamp(0, 1), whole.rgb, rtol=0, atol=1e-5)


def test_image_is_upright_and_not_mirrored(device):
    """Dense in one octant: up, right of the image center."""

    def field(positions, directions):
        output = solid_field(positions, directions)
        output.sigmas = 100 * ((positions[:, 0] > 0.05) & (positions[:, 2] > 0.05)).float()
        return output

    output = render_portrait(field, ball_grid(device), frontal_pose(device), pixels_on(device), CONFIG)
    opacity = output.opacity
    assert opacity[: HEIGHT // 2, WIDTH // 2 :].mean() > 0.05
    assert opacity[HEIGHT // 2 :].max() == 0 and opacity[:, : WIDTH // 2].max() == 0


def test_wrong_arguments_are_named(device):
    scene = (solid_field, ball_grid(device), frontal_pose(device), pixels_on(device), CONFIG)
    with pytest.raises(ValueError, match=r"background: expected shape \[20, 24, 3\] \(from size\), got \[24, 20, 3\]"):
        render_portrait(*scene, torch.zeros(WIDTH, HEIGHT, 3, device=device))
    with pytest.raises(ValueError, match="torso: expected torso and torso_grid together"):
        render_portrait(*scene, None, torso_of)
