"""Render a baked portrait on the CPU: the stored part of the head, its dynamic samples, and the torso."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.bake.baked_head import BakedHead
from ernerf_ti.bake.prepared_pose import EightBits, PreparedPose
from ernerf_ti.portrait.model.folded_networks import N_VALUES, N_VALUES_WITH_ATTENTION
from ernerf_ti.portrait.model.folded_torso import FoldedTorso
from ernerf_ti.portrait.model.head_field import BoundHeadField
from ernerf_ti.portrait.model.position_encoders import Encode, EncodeInCells
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.process.parts import in_parts
from ernerf_ti.process.threads import one_torch_thread
from taichi_kernels.baked_grid import BakedSamples, composite_baked, march_baked_grid

_SAMPLES_PER_PART, _KNOWN_SAMPLES_PER_PART = 4096, 8192  # of the networks: their values stay in the cache
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
        with one_torch_thread() as n_threads:
            if with_torso:
                behind, torso_alpha = self._render_torso(inputs, behind, n_threads)
            output = self._render_head(inputs, behind, with_attention, n_threads)
        if torso_alpha is not None:
            output.head_opacity = output.opacity
            output.opacity = output.opacity + (1 - output.opacity) * torso_alpha
        return output.map(lambda value: value.view(height, width, *value.shape[1:]))

    @torch.no_grad()
    def prepare(self, inputs: FrameInputs) -> PreparedPose:
        """What does not change while the portrait speaks from a pose, head and torso.

        Args:
            inputs: whose pose and appearance of the torso count.
        """
        head = self._portrait.head
        silence = inputs.head_pose.new_zeros(head.config.audio_code_size)  # any will do
        networks = head.bind(inputs, with_uncertainty=False, audio_code=silence).folded()

        def units_of(positions: Tensor, directions: Tensor) -> Tensor:
            memory = positions.new_empty(head.position_encoder.n_outputs * len(positions))
            features = self._encoder_of(positions)(slice(None), memory)
            return networks.point_units(features, self._harmonics(directions)).to(positions.dtype)

        with one_torch_thread() as n_threads:
            layer, alpha = self._render_torso(inputs, None, n_threads)
            behind = torch.cat((layer, alpha[:, None]), 1)
            return PreparedPose.of(self._march(inputs.head_pose), behind, self._size[0], units_of)

    @torch.no_grad()
    def render_prepared(
        self, prepared: PreparedPose, inputs: FrameInputs, background: Tensor | None, level: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Render an image from a pose that was prepared, in a fraction of the time.

        Args:
            prepared: by :meth:`prepare`, from the same pose with the same appearance of the torso.
            inputs: the frame's inputs.
            background: [H, W, 3] in [0, 1]; None for premultiplied color.
            level: of detail: 0 evaluates all pixels that move, 1 every second one, 2 every fourth one, and
                interpolates the others.

        Returns:
            color [H, W, 3] and opacity [H, W] as of :meth:`render`, up to 8 bits where nothing moves.
        """
        width, height = self._size
        with one_torch_thread() as n_threads:
            rgb, opacity = self._moving(prepared, inputs, level, n_threads)
            layers = prepared.still * (1 / 255)
            moving = over(torch.cat((rgb, opacity[:, None]), 1), opacity, layers[prepared.pixels])
            layers.index_copy_(0, prepared.pixels.long(), moving)
            color, alpha = layers[:, :3], layers[:, 3]
            if background is not None:
                color = over(color, alpha, background.reshape(-1, 3)).clamp_(0, 1)
        return color.reshape(height, width, 3), alpha.reshape(height, width)

    @torch.no_grad()
    def show_prepared(self, prepared: PreparedPose, inputs: FrameInputs, background: Tensor, level: int = 0) -> Tensor:
        """[H, W, 3] uint8 of the color of :meth:`render_prepared`, up to rounding, in less time."""
        width, height = self._size
        behind = background.reshape(-1, 3).contiguous()
        with one_torch_thread() as n_threads:
            rgb, opacity = self._moving(prepared, inputs, level, n_threads)
            picture = tk.show_layers(prepared.still, behind, prepared.pixels, rgb, opacity)
        return picture.view(height, width, 3)

    @cached_property
    def _torso(self) -> tuple[Tensor, FoldedTorso]:
        """Numbers of the pixels that the torso may cover, and the torso there."""
        coords = self._portrait.renderer(self._intrinsics, self._size).pixels.coords
        index = self._portrait.torso_grid.occupied(coords).nonzero()[:, 0]
        return index, FoldedTorso(self._portrait.torso, coords[index])

    @cached_property
    def _encode(self) -> Encode:
        return self._portrait.head.position_encoder.for_images()

    @cached_property
    def _encode_in_cells(self) -> EncodeInCells | None:
        bound = self._portrait.head_grid.config.bound
        return self._portrait.head.position_encoder.for_cells(self._baked.dynamic, bound)

    def _moving(self, prepared: PreparedPose, inputs: FrameInputs, level: int, n_threads: int) -> tuple[Tensor, Tensor]:
        """Color times opacity and opacity of the head in the pixels with dynamic samples."""
        values = self._evaluate_known(inputs, prepared.units, prepared.n_samples[level], n_threads)
        rgb, opacity = prepared.composite(values, level, self._portrait.config.march.T_threshold)
        if level == 0:
            return rgb, opacity
        colors = rgb.new_empty(len(prepared.pixels) + 1, 4)
        colors[: len(rgb), :3], colors[: len(rgb), 3] = rgb, opacity
        prepared.interpolate(colors, level)
        return colors[:-1, :3].contiguous(), colors[:-1, 3].contiguous()

    def _render_torso(
        self, inputs: FrameInputs, background_rgb: Tensor | None, n_threads: int
    ) -> tuple[Tensor, Tensor]:
        """Torso over [N, 3], and its alpha [N]."""
        appearance = inputs.torso_appearance
        if appearance is None:
            appearance = self._portrait.torso.appearance(inputs.appearance_index)
        index, torso = self._torso
        values = torso(inputs.head_pose, appearance, n_threads)
        alpha = values.new_zeros(self._size[0] * self._size[1]).index_copy_(0, index, values[0])
        layer = (values[1:] * values[0]).t()
        if background_rgb is None:
            return layer.new_zeros(len(alpha), 3).index_copy_(0, index, layer.contiguous()), alpha
        return background_rgb.index_copy(0, index, over(layer, values[0], background_rgb[index])), alpha

    def _render_head(
        self, inputs: FrameInputs, background_rgb: Tensor | None, with_attention: bool, n_threads: int
    ) -> RenderOutput:
        """[N] rays over [N, 3]."""
        samples = self._march(inputs.head_pose)
        values = self._evaluate(inputs, samples, with_attention, n_threads)
        rgb, opacity, depth = composite_baked(
            *(values[:4], samples.deltas, samples.packed_info, samples.before, samples.after, samples.ts),
            T_threshold=self._portrait.config.march.T_threshold,
        )
        assert depth is not None
        rgb = over(rgb, opacity, background_rgb)
        if background_rgb is not None:
            rgb = rgb.clamp(0, 1)
        n_samples = samples.packed_info[:, 1]
        audio = eye = None
        if with_attention:
            rays = torch.repeat_interleave(torch.arange(len(n_samples)), n_samples, output_size=values.shape[1])
            audio, eye = (opacity.new_zeros(len(opacity)).index_add_(0, rays, row) for row in values[4:])
        return RenderOutput(rgb, opacity, depth, audio, eye, None, n_samples)

    def _march(self, head_pose: Tensor) -> BakedSamples:
        portrait, baked = self._portrait, self._baked
        grid, march = portrait.head_grid, portrait.config.march
        pose = head_pose.contiguous()
        return march_baked_grid(
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

    def _bound(self, inputs: FrameInputs) -> BoundHeadField:
        return self._portrait.head.bind(inputs, with_uncertainty=False, call=self._portrait.call)

    def _evaluate(self, inputs: FrameInputs, samples: BakedSamples, with_attention: bool, n_threads: int) -> Tensor:
        """What the networks make of the dynamic samples: [4, M], or [6, M] with attention."""
        folded = self._bound(inputs).folded(with_attention)
        encode, harmonics = self._encoder_of(samples.positions), self._harmonics(samples.directions)
        n_numbers = self._portrait.head.position_encoder.n_outputs * _SAMPLES_PER_PART
        values = samples.ts.new_empty(N_VALUES_WITH_ATTENTION if with_attention else N_VALUES, len(samples.ts))

        def evaluator() -> Callable[[slice], Tensor]:
            networks, memory = folded.with_own_memory(), values.new_empty(n_numbers)
            return lambda part: networks(encode(part, memory), harmonics[part], values[:, part])

        in_parts(evaluator, len(samples.ts), _SAMPLES_PER_PART, n_threads)
        return values

    def _evaluate_known(self, inputs: FrameInputs, units: EightBits, n: int, n_threads: int) -> Tensor:
        """[4, n] of the first n samples of a known pose."""
        values = inputs.head_pose.new_empty(N_VALUES, n)
        folded = self._bound(inputs).folded()
        folded.take_scaled_units(units.lowest, units.steps)

        def evaluator() -> Callable[[slice], Tensor]:
            networks, memory = folded.with_own_memory(), values.new_empty(len(units.values) * _KNOWN_SAMPLES_PER_PART)
            return lambda part: networks.of_point_units(units.columns(part, memory), values[:, part])

        in_parts(evaluator, n, _KNOWN_SAMPLES_PER_PART, n_threads)
        return values

    def _encoder_of(self, positions: Tensor) -> Callable[[slice, Tensor], Tensor]:
        """Part of the positions, memory that may hold the result -> their features."""
        if self._encode_in_cells is not None:
            of_part = self._encode_in_cells(positions)
            return lambda part, memory: of_part(part)
        return lambda part, memory: self._encode(positions[part], memory)

    def _harmonics(self, directions: Tensor) -> Tensor:
        """[M, degree^2], channel-major in memory, as the networks store them."""
        return tk.spherical_harmonics(directions, self._portrait.head.config.direction_degree).t().contiguous().t()
