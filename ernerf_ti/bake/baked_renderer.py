"""Render a baked portrait on the CPU: the stored part of the head, its dynamic samples, and the torso."""

from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property, lru_cache
from threading import Barrier

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.bake.baked_head import BakedHead
from ernerf_ti.bake.prepared_pose import PreparedPose
from ernerf_ti.portrait.model.folded_networks import N_VALUES, N_VALUES_WITH_ATTENTION
from ernerf_ti.portrait.model.folded_torso import FoldedTorso
from ernerf_ti.portrait.model.position_encoders import Encode, EncodeInCells
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.alpha import over
from taichi_kernels.baked_grid import BakedSamples, composite_baked, march_baked_grid

_SAMPLES_PER_PART = 4096  # of the networks: their values stay in the cache
T_THRESHOLD = 1e-2
"""Transmittance below which a ray ends."""


@lru_cache(1)
def _threads(n: int) -> ThreadPoolExecutor:
    """n threads of which each computes alone."""
    threads = ThreadPoolExecutor(n, "networks", torch.set_num_threads, (1,))
    wait([threads.submit(barrier.wait) for barrier in [Barrier(n)] for _ in range(n)])
    # Threads that begin later have as many as were set last, in whatever thread.
    torch.set_num_threads(n)
    return threads


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

    @torch.no_grad()
    def prepare(self, inputs: FrameInputs) -> PreparedPose:
        """What does not change while the portrait speaks from a pose, head and torso.

        Args:
            inputs: whose pose and appearance of the torso count.
        """
        layer, alpha = self._render_torso(inputs, None)
        return PreparedPose.of(self._march(inputs.head_pose), torch.cat((layer, alpha[:, None]), 1))

    @torch.no_grad()
    def render_prepared(
        self, prepared: PreparedPose, inputs: FrameInputs, background: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Render an image from a pose that was prepared, which takes about a third of the time.

        Args:
            prepared: by :meth:`prepare`, from the same pose with the same appearance of the torso.
            inputs: the frame's inputs.
            background: [H, W, 3] in [0, 1]; None for premultiplied color.

        Returns:
            color [H, W, 3] and opacity [H, W] as of :meth:`render`, up to 8 bits where nothing moves.
        """
        width, height = self._size
        rgb, opacity = self._moving(prepared, inputs)
        layers = prepared.still * (1 / 255)
        moving = over(torch.cat((rgb, opacity[:, None]), 1), opacity, layers[prepared.pixels])
        layers.index_copy_(0, prepared.pixels.long(), moving)
        color, alpha = layers[:, :3], layers[:, 3]
        if background is not None:
            color = over(color, alpha, background.reshape(-1, 3)).clamp_(0, 1)
        return color.reshape(height, width, 3), alpha.reshape(height, width)

    @torch.no_grad()
    def show_prepared(self, prepared: PreparedPose, inputs: FrameInputs, background: Tensor) -> Tensor:
        """[H, W, 3] uint8 of the color of :meth:`render_prepared`, up to rounding, in less time."""
        width, height = self._size
        rgb, opacity = self._moving(prepared, inputs)
        picture = tk.show_layers(prepared.still, background.reshape(-1, 3).contiguous(), prepared.pixels, rgb, opacity)
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

    def _moving(self, prepared: PreparedPose, inputs: FrameInputs) -> tuple[Tensor, Tensor]:
        """Color times opacity and opacity of the head in the pixels with dynamic samples."""
        bound = self._portrait.head_grid.config.bound
        samples = prepared.samples(inputs.head_pose.contiguous(), self._intrinsics, self._size[0], bound)
        values = self._evaluate(inputs, samples, with_attention=False)
        rgb, opacity, _ = self._composite(values, samples)
        return rgb, opacity

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
        samples = self._march(inputs.head_pose)
        values = self._evaluate(inputs, samples, with_attention)
        rgb, opacity, depth = self._composite(values, samples)
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

    def _evaluate(self, inputs: FrameInputs, samples: BakedSamples, with_attention: bool) -> Tensor:
        """What the networks make of the dynamic samples: [4, M], or [6, M] with attention."""
        field = self._portrait.head.bind(inputs, with_uncertainty=False, call=self._portrait.call)
        # Channel-major, as the networks store them.
        harmonics = tk.spherical_harmonics(samples.directions, field.field.config.direction_degree).t().contiguous()
        encode_in_cells = self._encode_in_cells
        of_part = None if encode_in_cells is None else encode_in_cells(samples.positions)
        n, n_outputs = len(samples.ts), field.field.position_encoder.n_outputs
        values = samples.ts.new_empty(N_VALUES_WITH_ATTENTION if with_attention else N_VALUES, n)
        encode, begins = self._encode, range(0, n, _SAMPLES_PER_PART)
        n_threads = min(torch.get_num_threads(), len(begins))

        def evaluate(first: int) -> None:
            networks = field.folded(with_attention)  # which keep memory of their own
            memory = values.new_empty(0 if of_part else n_outputs * _SAMPLES_PER_PART)
            for begin in begins[first::n_threads]:
                part = slice(begin, begin + _SAMPLES_PER_PART)
                x = of_part(part) if of_part else encode(samples.positions[part], memory)
                networks(x, harmonics[:, part].t(), values[:, part])

        if n_threads == 1:
            evaluate(0)
        elif n_threads > 1:  # whole parts for each thread: a product of one part is too small to be divided
            list(_threads(torch.get_num_threads()).map(evaluate, range(n_threads)))
        return values

    def _composite(self, values: Tensor, samples: BakedSamples) -> tuple[Tensor, Tensor, Tensor]:
        T_threshold = self._portrait.config.march.T_threshold
        return composite_baked(values[0], values[1:4].t().contiguous(), samples, T_threshold)
