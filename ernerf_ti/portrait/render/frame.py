"""A whole image: the head over the torso over a background."""

from functools import cached_property

import torch
from torch import Tensor

from ernerf_ti.portrait.camera import all_pixels, camera_directions, pixel_coords, pixel_rays, rays_of
from ernerf_ti.portrait.config import MarchConfig
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.portrait.render.layers import TorsoScene, render_layers
from ernerf_ti.portrait.render.sample_evaluation import Field
from ernerf_ti.portrait.render.torso import Torso
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid


class ImagePixels:
    """The pixels of the images of a camera, on a device. What does not depend on the pose is computed once.

    Args:
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
        device: where images are rendered.
    """

    def __init__(self, intrinsics: tuple[float, float, float, float], size: tuple[int, int], device: torch.device):
        self.intrinsics, self.size, self.device = intrinsics, size, device
        self._pixels = all_pixels(size[1], size[0], device)

    @cached_property
    def coords(self) -> Tensor:
        """[H W, 2] normalized, see :func:`ernerf_ti.portrait.camera.pixel_coords`."""
        return pixel_coords(self._pixels, self.size[1], self.size[0])

    @cached_property
    def _directions(self) -> Tensor:
        return camera_directions(self.intrinsics, self._pixels, torch.float32)

    def rays(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Origins and unit directions [H W, 3], scene, for a pose_world_from_camera [4, 4]."""
        if self.device.type == "cpu" and pose.dtype == torch.float32:
            return rays_of(pose, self._directions)
        return pixel_rays(pose, self.intrinsics, self._pixels)


@torch.no_grad()
def render_portrait(
    head: Field,
    head_grid: OccupancyGrid,
    pose: Tensor,
    pixels: ImagePixels,
    config: MarchConfig,
    background: Tensor | None = None,
    torso: Torso | None = None,
    torso_grid: TorsoGrid | None = None,
    in_passes: bool = False,
    capacity: int | None = None,
) -> RenderOutput:
    """Render an image without gradients.

    Args:
        head: the head's field of this frame, positions and directions [M, 3] -> FieldOutput.
        head_grid: its occupied cells.
        pose: [4, 4] pose_world_from_camera in the scene.
        pixels: those of the image.
        config: sampling.
        background: [H, W, 3] in [0, 1]; None for premultiplied color, to be composited over another image.
        torso, torso_grid: the torso's field of this frame and its occupied cells; None for the head alone.
        in_passes: sample as the public code does, see :func:`render_head_in_passes`.
        capacity: number of samples to make room for, see :func:`render_head`.

    Returns:
        RenderOutput with [H, W] in place of [N]. Color and opacity are those of head and torso together, all else is
        of the head alone.

    Raises ValueError if the background has another size, or one of torso and torso_grid is missing.
    """
    width, height = pixels.size
    if background is not None and tuple(background.shape) != (height, width, 3):
        raise ValueError(
            f"background: expected shape [{height}, {width}, 3] (from size), got {list(background.shape)}; resize it"
        )
    if (torso is None) != (torso_grid is None):
        raise ValueError("torso: expected torso and torso_grid together, got one of them; pass both or none")
    scene = None
    if torso is not None and torso_grid is not None:
        scene = TorsoScene(torso, torso_grid, pixels.coords)
    output = render_layers(
        head,
        head_grid,
        *pixels.rays(pose),
        config,
        None if background is None else background.reshape(-1, 3),
        scene,
        in_passes,
        capacity=capacity,
    )
    return output.map(lambda value: value.view(height, width, *value.shape[1:]))
