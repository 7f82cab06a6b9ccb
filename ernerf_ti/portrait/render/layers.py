"""Head over torso over background, on N rays."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ernerf_ti.portrait.config import MarchConfig
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.portrait.render.head import render_head_in_chunks, render_head_in_passes
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.portrait.render.sample_evaluation import Field
from ernerf_ti.portrait.render.torso import Torso, render_torso
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid


class TorsoScene(NamedTuple):
    """The torso of a frame at the pixels of N rays."""

    field: Torso
    grid: TorsoGrid
    pixel_coords: Tensor
    """[N, 2] in [-1, 1], vertical first."""


@torch.no_grad()
def render_layers(
    head: Field,
    head_grid: OccupancyGrid,
    rays_o: Tensor,
    rays_d: Tensor,
    config: MarchConfig,
    background_rgb: Tensor | None = None,
    torso: TorsoScene | None = None,
    in_passes: bool = False,
    after_layer: Callable[[str], None] = lambda layer: None,
    capacity: int | None = None,
) -> RenderOutput:
    """Render N rays without gradients.

    Args:
        head: the head's field of the frame, positions and directions [M, 3] -> FieldOutput.
        head_grid: its occupied cells.
        rays_o, rays_d: [N, 3] origins and unit directions, scene.
        config: sampling.
        background_rgb: [N, 3] in [0, 1]; None for premultiplied color, to be composited over something else.
        torso: None for the head alone.
        in_passes: sample as the public code does, see :func:`render_head_in_passes`.
        after_layer: called with "torso" (if there is one) and "head" when the layer is rendered, for timing.
        capacity: number of samples to make room for, see :func:`render_head`; not for `in_passes`.

    Returns:
        RenderOutput of N rays. Color and opacity are those of head and torso together, all else is of the head alone.
    """
    torso_alpha = None
    if torso is not None:
        background_rgb, torso_alpha = render_torso(*torso, background_rgb)
        after_layer("torso")
    scene = (head, head_grid, rays_o, rays_d, config, background_rgb)
    output = render_head_in_passes(*scene) if in_passes else render_head_in_chunks(*scene, capacity)
    if torso_alpha is not None:
        opacity = output.opacity + (1 - output.opacity) * torso_alpha
        output = replace(output, opacity=opacity, head_opacity=output.opacity)
    after_layer("head")
    return output
