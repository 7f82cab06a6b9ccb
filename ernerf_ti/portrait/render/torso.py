"""Composite the torso over a background, at the pixels that its occupancy grid marks."""

from collections.abc import Callable

import torch
from torch import Tensor

from ernerf_ti.portrait.records import TorsoLayer
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.portrait.render.static_shapes import static_shapes
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid

Torso = Callable[[Tensor], TorsoLayer]
"""[K, 2] pixel coordinates -> TorsoLayer."""


def render_torso(
    torso: Torso, grid: TorsoGrid, pixel_coords: Tensor, background_rgb: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Render the torso at N pixels.

    The field is evaluated at the occupied pixels alone, or at all of them where shapes are fixed, with the same result.

    Args:
        torso: the field of a frame.
        grid: its occupied cells.
        pixel_coords: [N, 2] in [-1, 1], vertical first.
        background_rgb: [N, 3] in [0, 1]; None for premultiplied color.

    Returns:
        rgb [N, 3], alpha [N]; both differentiable in what the field is differentiable in.
    """
    occupied = grid.occupied(pixel_coords)
    if static_shapes(pixel_coords.device):
        layer = torso(pixel_coords)
        # Not times 0: float16 overflows in the features of coordinates far outside of the image.
        alpha = torch.where(occupied, layer.alpha, 0.0)
        rgb = torch.where(occupied[:, None], layer.rgb * layer.alpha[:, None], 0.0)
        return over(rgb, alpha, background_rgb), alpha
    index = occupied.nonzero()[:, 0]
    layer = torso(pixel_coords[index])
    alpha = layer.alpha.new_zeros(len(pixel_coords)).index_copy(0, index, layer.alpha)
    rgb = layer.rgb.new_zeros(len(pixel_coords), 3).index_copy(
        0, index, (layer.rgb * layer.alpha[:, None]).contiguous()
    )
    return over(rgb, alpha, background_rgb), alpha
