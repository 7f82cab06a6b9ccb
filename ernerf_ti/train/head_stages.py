"""The two stages that train the head: rays of the whole frame, then patches with a perceptual loss.

[ER-NeRF, Li et al. 2023, section 3.5, and its code]
"""

import math
from collections import defaultdict
from collections.abc import Hashable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.frame_index import FrameIndex, row
from ernerf_ti.portrait.model.calls import call_plainly
from ernerf_ti.portrait.records import RayBatch, RenderOutput
from ernerf_ti.portrait.render.head import render_head
from ernerf_ti.portrait.render.sample_capacity import SampleCapacity
from ernerf_ti.portrait.render.static_shapes import static_shapes
from ernerf_ti.train import losses
from ernerf_ti.train.audio_augmentation import vary
from ernerf_ti.train.config import FinetuneStageConfig
from ernerf_ti.train.perceptual import MIN_PATCH, PerceptualLoss, dssim, perceptual_loss
from ernerf_ti.train.pixel_sampling import patch_pixels, random_pixels, random_pixels_in, squares_pixels
from ernerf_ti.train.stage import Stage, StepLoss, StepStatistics
from ernerf_ti.train.training_frames import Squares, TrainingFrame

_EYE_JITTER = 0.1  # width of the uniform noise on the eye closure
_SMOOTHNESS_DISTANCE = 1e-3  # scene units
# Kinds of steps.
_PIXELS, _SMOOTHED, _LIPS, _EYES, _PATCHES = "pixels", "pixels, with smoothness", "lips", "eyes", "patches"


class HeadFieldStage(Stage):
    """What both stages of the head share."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._capacities: defaultdict[str, SampleCapacity] = defaultdict(SampleCapacity)
        """For the samples of a step, by what its rays are, where shapes are fixed."""

    def adjust(self) -> list[str]:
        notes = (capacity.adjust() for capacity in self._capacities.values())
        return [note for note in notes if note is not None]

    def expect_samples(self, n: int) -> None:
        """Make room for n samples in a step, instead of for what was found in earlier ones."""
        for kind in self._capacities:
            self._capacities[kind] = SampleCapacity(n)

    def parameters(self) -> dict[str, nn.Parameter]:
        found = {name: p for name, p in self.portrait.named_parameters() if name.startswith("head.")}
        if self.config.refine_cameras:
            found |= {f"cameras.{name}": p for name, p in self.cameras.named_parameters()}
        return found

    def render_held_out(self, frame: int) -> tuple[Tensor, Tensor]:
        """The head over the captured torso; the target is the whole frame."""
        images = self.held_out.images(frame)
        output = self.portrait.render(
            self.held_out.inputs(frame, trained=False),
            tuple(self.held_out.capture.intrinsics),
            (self.held_out.width, self.held_out.height),
            images.torso_over_background,
            with_torso=False,
            with_attention=False,
        )
        return output.rgb, images.image

    def _update_grid(self, frame: int, noise: torch.Generator, all_cells: bool) -> None:
        field = self.portrait.head.bind(self.frames.inputs(frame), with_uncertainty=False, call=self.call)
        self.portrait.head_grid.update(field.densities, noise, all_cells)

    def _render(
        self,
        frame: TrainingFrame,
        batch: RayBatch,
        generator: torch.Generator,
        kind: str,
        with_uncertainty: bool = False,
    ) -> RenderOutput:
        """Render the rays of a batch of a frame, those of each process there; corrects them in place if cameras are
        refined.

        Args:
            kind: what rays they are; rays of a kind have similar numbers of samples.
        """
        if self.config.refine_cameras:
            batch.rays_o, batch.rays_d = self.cameras(batch.rays_o, batch.rays_d, frame.index)
        inputs = self.frames.inputs(frame.index, context=frame.context)
        jitter = (self._draw(1, generator=generator) - 0.5) * _EYE_JITTER
        assert inputs.eye_closure is not None  # every frame of a capture has one
        inputs.eye_closure = inputs.eye_closure + jitter
        if self.config.audio_noise or self.config.audio_cut_fraction:
            amounts = self.config.audio_noise, self.config.audio_cut_fraction
            scale = self.portrait.head.audio_encoder.feature_scale
            inputs.audio_window = vary(inputs.audio_window, *amounts, scale, generator)
        noise = self._draw(len(batch.rays_o), generator=generator)
        march = self.config.portrait.march
        # To compute values again in the backward pass is not what a CUDA graph has recorded.
        call = call_plainly if march.recompute else self.call
        field = self.portrait.head.bind(inputs, with_uncertainty, call=call)
        n, own, grid = len(noise), self.ranks.part(len(noise)), self.portrait.head_grid
        rays = (field, grid, batch.rays_o[own], batch.rays_d[own], march, batch.background_rgb[own], noise[own])
        if not static_shapes(noise.device):
            return self._joined(n, render_head(*rays))
        capacity = self._capacities[kind]
        output = render_head(*rays, capacity.size((own.stop - own.start) * march.max_steps))
        assert output.n_found is not None
        capacity.observe(output.n_found)
        return self._joined(n, output)

    def _joined(self, n: int, output: RenderOutput) -> RenderOutput:
        """The output of all n rays, of which this process has rendered its part."""
        joined = iter(self.ranks.join(n, output.of_rays()))
        return output.map(lambda values: next(joined))

    def _terms(
        self, output: RenderOutput, batch: RayBatch, progress: float | Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Weighted terms that depend on each ray alone, and the mean squared error."""
        rays, max_steps = losses.compare(output, batch), self.config.portrait.march.max_steps
        call, weights = self.call, self.config.losses
        return call(losses.head_terms, progress, *rays, weights=weights, max_steps=max_steps)


class HeadStage(HeadFieldStage):
    """Trains the head on random rays of whole frames, with learned uncertainty of the error."""

    name = "head"

    def kind(self, step: int) -> str:
        is_smoothed = self.config.losses.smoothness > 0 and step % self.config.grid_update_every == 0
        return _SMOOTHED if is_smoothed else _PIXELS

    def key(self, kind: str) -> Hashable:
        return kind, self._capacities[_PIXELS].limit

    def loss(self, frame: TrainingFrame, kind: str, progress: float | Tensor, generator: torch.Generator) -> StepLoss:
        weights = self.config.losses
        pixels = self._draw_pixels(frame.index, generator)
        batch = self.frames.rays(frame, pixels, self._random_colors(len(pixels), generator))
        output = self._render(frame, batch, generator, _PIXELS, with_uncertainty=weights.uncertainty > 0)
        terms, mse = self._terms(output, batch, progress)
        if kind == _SMOOTHED:
            terms["smoothness"] = progress * weights.smoothness * self._variation(output, batch, generator)
        return StepLoss(terms, StepStatistics(mse, len(pixels), output.n_samples.sum()))

    @cached_property
    def _part_of_ray(self) -> Tensor:
        """[K] which of lips, eyes and head each of the rays is drawn from that are not drawn from the whole frame."""
        settings = self.settings
        fractions = settings.lips_fraction, settings.eyes_fraction, settings.head_fraction
        counts = torch.tensor([int(fraction * settings.n_rays) for fraction in fractions])
        return torch.repeat_interleave(torch.arange(len(counts)), counts).to(self.frames.device)

    def _draw_pixels(self, frame: FrameIndex, generator: torch.Generator) -> Tensor:
        part = self._part_of_ray
        pixels = random_pixels(self.settings.n_rays - len(part), self.frames.n_pixels, generator)
        if not len(part):
            return pixels
        corners, sides = (row(table, frame).index_select(0, part) for table in self.frames.parts)
        return torch.cat((pixels, random_pixels_in(corners, sides, self.frames.width, generator)))

    def _variation(self, output: RenderOutput, batch: RayBatch, generator: torch.Generator) -> Tensor:
        """[] mean squared difference of attention and uncertainty between surface points and points nearby."""
        head, bound = self.portrait.head, self.config.portrait.head.bound
        opacity = output.opacity.detach()
        depth = output.depth.detach() / opacity.clamp(min=1e-3)
        points = batch.rays_o.detach() + depth[:, None] * batch.rays_d.detach()
        noise = self._draw(*points.shape, generator=generator) * 2 - 1
        own = self.ranks.part(len(points))
        with torch.no_grad():
            at_surface = head.regularized(points[own].clamp(-bound, bound))
        nearby = head.regularized((points + noise * _SMOOTHNESS_DISTANCE)[own].clamp(-bound, bound))
        joined = self.ranks.join(len(points), (*at_surface, *nearby))
        return losses.variation(joined[: len(nearby)], joined[len(nearby) :], opacity > 0.5)


class FinetuneStage(HeadFieldStage):
    """Trains the head on the lips and on random patches in turn, some of them of the eyes, with a perceptual loss."""

    name = "finetune"
    settings: FinetuneStageConfig

    def prepare(self) -> None:
        _ = self._perceptual

    @cached_property
    def _perceptual(self) -> PerceptualLoss | None:
        return perceptual_loss(self.settings.perceptual, self.frames.device)

    def kind(self, step: int) -> str:
        """What a step trains on: the lips in every second one."""
        if step % 2 == 0:
            return _LIPS
        every = self.settings.eyes_every
        return _EYES if every and step // 2 % every == every - 1 else _PATCHES

    def key(self, kind: str) -> Hashable:
        return kind, self._capacities[kind].limit

    def loss(self, frame: TrainingFrame, kind: str, progress: float | Tensor, generator: torch.Generator) -> StepLoss:
        batch, side = self._draw_patches(frame, kind, generator)
        output = self._render(frame, batch, generator, kind)
        terms, mse = self._terms(output, batch, 1.0)
        images = [rgb.view(-1, side, side, 3).permute(0, 3, 1, 2) for rgb in (output.rgb, batch.target_rgb)]
        weights = self.config.losses
        if self._perceptual is not None:
            weight = weights.patch_perceptual if kind == _PATCHES else weights.lips_perceptual
            terms["perceptual"] = weight * self._perceptual(*images).mean()
        if kind != _PATCHES and weights.lips_dssim > 0:
            terms["dssim"] = weights.lips_dssim * dssim(*images).mean()
        return StepLoss(terms, StepStatistics(mse, len(batch.rays_o), output.n_samples.sum()))

    def _draw_patches(self, frame: TrainingFrame, kind: str, generator: torch.Generator) -> tuple[RayBatch, int]:
        """Rays of square patches, patch by patch, and the side of a patch in rays."""
        frames, size = self.frames, self.settings.patch_size
        if kind == _PATCHES:
            n = max(1, self.settings.n_rays // size**2)
            return frames.rays(frame, patch_pixels(n, size, frames.height, frames.width, generator)), size
        squares = self._lips if kind == _LIPS else self._eyes
        corners, side = row(squares.corners, frame.index), squares.side
        if self.settings.parts_density == 1:
            return frames.rays(frame, squares_pixels(corners, side, frames.width)), side
        # No more rays than on random patches: else a random part of each square.
        most = (math.isqrt(self.settings.n_rays // len(corners)) + 1) // 2
        side = min(side, max(1, most))
        room = squares.side - side + 1
        rows, columns = torch.randint(room, (2, len(corners)), generator=generator, device=frames.device).unbind()
        return frames.dense_rays(frame, corners + rows * frames.width + columns, side), 2 * side - 1

    @cached_property
    def _lips(self) -> Squares:
        return self.frames.squares("lips", MIN_PATCH.get(self.settings.perceptual, 1))

    @cached_property
    def _eyes(self) -> Squares:
        return self.frames.squares("eyes", MIN_PATCH.get(self.settings.perceptual, 1))
