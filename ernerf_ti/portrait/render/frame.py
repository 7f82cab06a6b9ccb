"""A whole image: the head over the torso over a background."""

import torch
from torch import Tensor

from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays
from ernerf_ti.portrait.config import MarchConfig
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.portrait.render.layers import TorsoScene, render_layers
from ernerf_ti.portrait.render.sample_evaluation import Field
from ernerf_ti.portrait.render.torso import Torso
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid


@torch.no_grad()
def render_portrait(
    head: Field,
    head_grid: OccupancyGrid,
    pose: Tensor,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    config: MarchConfig,
    background: Tensor | None = None,
    torso: Torso | None = None,
    torso_grid: TorsoGrid | None = None,
    in_passes: bool = False,
) -> RenderOutput:
    """Render an image without gradients.

    Args:
        head: the head's field of this frame, positions and directions [M, 3] -> FieldOutput.
        head_grid: its occupied cells.
        pose: [4, 4] pose_world_from_camera in the scene.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
        config: sampling.
        background: [H, W, 3] in [0, 1]; None for premultiplied color, to be composited over another image.
        torso, torso_grid: the torso's field of this frame and its occupied cells; None for the head alone.
        in_passes: sample as the public code does, see :func:`render_head_in_passes`.

    Returns:
        RenderOutput with [H, W] in place of [N]. Color and opacity are those of head and torso together, all else is
        of the head alone.

    Raises ValueError if the background has another size, or one of torso and torso_grid is missing.
    """
    width, height = size
    if background is not None and tuple(background.shape) != (height, width, 3):
        raise ValueError(
            f"background: expected shape [{height}, {width}, 3] (from size), got {list(background.shape)}; resize it"
        )
    if (torso is None) != (torso_grid is None):
        raise ValueError("torso: expected torso and torso_grid together, got one of them; pass both or none")
    pixels = all_pixels(height, width, pose.device)
    scene = None
    if torso is not None and torso_grid is not None:
        scene = TorsoScene(torso, torso_grid, pixel_coords(pixels, height, width))
    output = render_layers(
        head,
        head_grid,
        *pixel_rays(pose, intrinsics, pixels),
        config,
        None if background is None else background.reshape(-1, 3),
        scene,
        in_passes,
    )
    return output.map(lambda value: value.view(height, width, *value.shape[1:]))
