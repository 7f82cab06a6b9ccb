"""Render a baked portrait on the CPU: the stored part of the head, its dynamic samples, and the torso."""

from collections.abc import Callable

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.bake.baked_head import BakedHead
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs, RenderOutput, TorsoLayer
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.portrait.render.torso import render_torso
from taichi_kernels.baked_grid import composite_baked, march_baked_grid

_SAMPLES_PER_PART = 2048  # of the networks: their values stay in the cache
T_THRESHOLD = 1e-2
"""Transmittance below which a ray ends."""


@torch.no_grad()
def render_baked(
    portrait: Portrait,
    baked: BakedHead,
    inputs: FrameInputs,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    background: Tensor | None = None,
    with_torso: bool = True,
    with_attention: bool = True,
    after_layer: Callable[[str], None] = lambda layer: None,
) -> RenderOutput:
    """Render an image.

    Args:
        portrait: whose networks and torso are evaluated.
        baked: the stored part of its head.
        inputs: the frame's inputs, with the appearance of the torso.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
        background: [H, W, 3] in [0, 1]; None for premultiplied color.
        with_torso: composite the head over the torso rather than over the background.
        with_attention: sum up the attention of the samples too.
        after_layer: called with "torso" and "head" when the layer is rendered, for timing.

    Returns:
        RenderOutput of the image. Stored samples have no attention: its sums are of the dynamic ones.
    """
    width, height = size
    if background is not None and tuple(background.shape) != (height, width, 3):
        raise ValueError(
            f"background: expected shape [{height}, {width}, 3] (from size), got {list(background.shape)}; resize it"
        )
    behind = None if background is None else background.reshape(-1, 3)
    torso_alpha = None
    if with_torso:
        appearance = inputs.appearance_index if inputs.torso_appearance is None else inputs.torso_appearance

        def torso(pixel_coords: Tensor) -> TorsoLayer:
            return portrait.torso(pixel_coords, inputs.head_pose, appearance, portrait.call)

        coords = portrait.renderer(intrinsics, size).pixels.coords
        behind, torso_alpha = render_torso(torso, portrait.torso_grid, coords, behind)
        after_layer("torso")
    output = _render_head(portrait, baked, inputs, intrinsics, size, behind, with_attention)
    if torso_alpha is not None:
        output.head_opacity = output.opacity
        output.opacity = output.opacity + (1 - output.opacity) * torso_alpha
    after_layer("head")
    return output.map(lambda value: value.view(height, width, *value.shape[1:]))


def _render_head(
    portrait: Portrait,
    baked: BakedHead,
    inputs: FrameInputs,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    background_rgb: Tensor | None,
    with_attention: bool,
) -> RenderOutput:
    """[N] rays over [N, 3]."""
    grid, march = portrait.head_grid, portrait.config.march
    pose = inputs.head_pose.contiguous()
    samples = march_baked_grid(
        *(pose, intrinsics, size, baked.cells, baked.densities_for_rendering, baked.colors),
        *baked.color_transform(pose[:3, 3]),
        grid.config.bound,
        pose.new_tensor(grid.aabb),
        baked.box,
        max_steps=march.max_steps,
        dt_gamma=march.dt_gamma,
        min_near=march.min_near,
        T_threshold=T_THRESHOLD,
    )
    field = portrait.head.bind(inputs, with_uncertainty=False, call=portrait.call)
    networks, degree = field.folded(with_attention), field.field.config.direction_degree
    encode = field.field.position_encoder.for_images()
    memory = pose.new_empty(field.field.position_encoder.n_outputs * _SAMPLES_PER_PART)
    n = len(samples.ts)
    values = pose.new_empty(networks.n_values, n)
    for begin in range(0, n, _SAMPLES_PER_PART):
        part = slice(begin, begin + _SAMPLES_PER_PART)
        harmonics = tk.spherical_harmonics(samples.directions[part], degree)
        networks(encode(samples.positions[part], memory), harmonics, values[:, part])
    sigmas, rgbs = values[0], values[1:4].t().contiguous()
    rgb, opacity, depth = composite_baked(sigmas, rgbs, samples, march.T_threshold)
    rgb = over(rgb, opacity, background_rgb)
    if background_rgb is not None:
        rgb = rgb.clamp(0, 1)
    n_samples = samples.packed_info[:, 1]
    audio = eye = None
    if with_attention:
        rays = torch.repeat_interleave(torch.arange(len(n_samples)), n_samples, output_size=n)
        audio, eye = (opacity.new_zeros(len(opacity)).index_add_(0, rays, row) for row in values[4:])
    return RenderOutput(rgb, opacity, depth, audio, eye, None, n_samples)
