"""Render a baked portrait on the CPU: the stored part of the head, its dynamic samples, and the torso."""

from functools import cached_property

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.bake.baked_head import BakedHead
from ernerf_ti.portrait.model.folded_torso import FoldedTorso
from ernerf_ti.portrait.model.position_encoders import Encode
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.alpha import over
from taichi_kernels.baked_grid import composite_baked, march_baked_grid

_SAMPLES_PER_PART = 2048  # of the networks: their values stay in the cache
T_THRESHOLD = 1e-2
"""Transmittance below which a ray ends."""


class BakedRenderer:
    """Renders images of a baked portrait from one camera.

    Args:
        portrait: whose networks and torso are evaluated; its weights must not change any more.
        baked: the stored part of its head.
        intrinsics: fx, fy, cx, cy in pixels.
        size: width, height.
    """

    def __init__(
        self,
        portrait: Portrait,
        baked: BakedHead,
        intrinsics: tuple[float, float, float, float],
        size: tuple[int, int],
    ):
        self._portrait, self._baked = portrait, baked
        self._intrinsics, self._size = intrinsics, size

    @torch.no_grad()
    def render(
        self,
        inputs: FrameInputs,
        background: Tensor | None = None,
        with_torso: bool = True,
        with_attention: bool = True,
    ) -> RenderOutput:
        """Render an image.

        Args:
            inputs: the frame's inputs, with the appearance of the torso.
            background: [H, W, 3] in [0, 1]; None for premultiplied color.
            with_torso: composite the head over the torso rather than over the background.
            with_attention: sum up the attention of the samples too.

        Returns:
            RenderOutput of the image. Stored samples have no attention: its sums are of the dynamic ones.
        """
        width, height = self._size
        if background is not None and tuple(background.shape) != (height, width, 3):
            raise ValueError(
                f"background: expected shape [{height}, {width}, 3] (from size), got {list(background.shape)}; "
                "resize it"
            )
        behind = None if background is None else background.reshape(-1, 3)
        torso_alpha = None
        if with_torso:
            behind, torso_alpha = self._render_torso(inputs, behind)
        output = self._render_head(inputs, behind, with_attention)
        if torso_alpha is not None:
            output.head_opacity = output.opacity
            output.opacity = output.opacity + (1 - output.opacity) * torso_alpha
        return output.map(lambda value: value.view(height, width, *value.shape[1:]))

    @cached_property
    def _torso(self) -> tuple[Tensor, FoldedTorso]:
        """Numbers of the pixels that the torso may cover, and the torso there."""
        coords = self._portrait.renderer(self._intrinsics, self._size).pixels.coords
        index = self._portrait.torso_grid.occupied(coords).nonzero()[:, 0]
        return index, FoldedTorso(self._portrait.torso, coords[index])

    @cached_property
    def _encode(self) -> Encode:
        return self._portrait.head.position_encoder.for_images()

    def _render_torso(self, inputs: FrameInputs, background_rgb: Tensor | None) -> tuple[Tensor, Tensor]:
        """Torso over [N, 3], and its alpha [N]."""
        appearance = inputs.torso_appearance
        if appearance is None:
            appearance = self._portrait.torso.appearance(inputs.appearance_index)
        index, torso = self._torso
        values = torso(inputs.head_pose, appearance)
        alpha = values.new_zeros(self._size[0] * self._size[1]).index_copy_(0, index, values[0])
        layer = (values[1:] * values[0]).t()
        if background_rgb is None:
            return layer.new_zeros(len(alpha), 3).index_copy_(0, index, layer.contiguous()), alpha
        return background_rgb.index_copy(0, index, over(layer, values[0], background_rgb[index])), alpha

    def _render_head(self, inputs: FrameInputs, background_rgb: Tensor | None, with_attention: bool) -> RenderOutput:
        """[N] rays over [N, 3]."""
        portrait, baked = self._portrait, self._baked
        grid, march = portrait.head_grid, portrait.config.march
        pose = inputs.head_pose.contiguous()
        samples = march_baked_grid(
            *(pose, self._intrinsics, self._size, baked.cells, baked.densities_for_rendering, baked.colors),
            *baked.color_transform(pose[:3, 3]),
            grid.config.bound,
            pose.new_tensor(grid.aabb),
            baked.blocks,
            max_steps=march.max_steps,
            dt_gamma=march.dt_gamma,
            min_near=march.min_near,
            T_threshold=T_THRESHOLD,
        )
        field = portrait.head.bind(inputs, with_uncertainty=False, call=portrait.call)
        networks, degree = field.folded(with_attention), field.field.config.direction_degree
        harmonics = tk.spherical_harmonics(samples.directions, degree)
        memory = pose.new_empty(field.field.position_encoder.n_outputs * _SAMPLES_PER_PART)
        n = len(samples.ts)
        values = pose.new_empty(networks.n_values, n)
        for begin in range(0, n, _SAMPLES_PER_PART):
            part = slice(begin, begin + _SAMPLES_PER_PART)
            networks(self._encode(samples.positions[part], memory), harmonics[part], values[:, part])
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
