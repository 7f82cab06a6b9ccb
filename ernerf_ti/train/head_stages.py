"""The two stages that train the head: rays of the whole frame, then patches with a perceptual loss.

[ER-NeRF, Li et al. 2023, section 3.5, and its code]
"""

from collections import defaultdict
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.camera import all_pixels
from ernerf_ti.portrait.records import RayBatch, RenderOutput
from ernerf_ti.portrait.render.head import render_head
from ernerf_ti.portrait.render.sample_capacity import SampleCapacity
from ernerf_ti.portrait.render.static_shapes import static_shapes
from ernerf_ti.train import losses
from ernerf_ti.train.config import FinetuneStageConfig
from ernerf_ti.train.perceptual import PerceptualLoss, perceptual_loss
from ernerf_ti.train.pixel_sampling import patch_pixels, random_pixels, rectangle_pixels
from ernerf_ti.train.stage import Stage, StepLoss, StepStatistics

_EYE_JITTER = 0.1  # width of the uniform noise on the eye closure
_SMOOTHNESS_DISTANCE = 1e-3  # scene units


class _HeadFieldStage(Stage):
    """What both stages of the head share."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._capacities: defaultdict[str, SampleCapacity] = defaultdict(SampleCapacity)
        """For the samples of a step, by what its rays are, where shapes are fixed."""

    def adjust(self) -> list[str]:
        notes = (capacity.adjust() for capacity in self._capacities.values())
        return [note for note in notes if note is not None]

    def parameters(self) -> dict[str, nn.Parameter]:
        found = {name: p for name, p in self.portrait.named_parameters() if name.startswith("head.")}
        if self.config.refine_cameras:
            found |= {f"cameras.{name}": p for name, p in self.cameras.named_parameters()}
        return found

    def render_held_out(self, frame: int) -> tuple[Tensor, Tensor]:
        """The head over the captured torso; the target is the whole frame."""
        size = (self.held_out.width, self.held_out.height)
        shape = (size[1], size[0], 3)
        batch = self.held_out.rays(frame, all_pixels(size[1], size[0]), "head")
        output = self.portrait.render(
            self.held_out.inputs(frame, trained=False),
            tuple(self.held_out.capture.intrinsics),
            size,
            batch.background_rgb.view(shape),
            with_torso=False,
        )
        return output.rgb, batch.target_rgb.view(shape)

    def _update_grid(self, frame: int, noise: torch.Generator, all_cells: bool) -> None:
        field = self.portrait.head.bind(self.frames.inputs(frame), with_uncertainty=False)
        self.portrait.head_grid.update(field.densities, noise, all_cells)

    def _render(
        self, frame: int, batch: RayBatch, generator: torch.Generator, kind: str, with_uncertainty: bool = False
    ) -> RenderOutput:
        """Render the rays of a batch; corrects them in place if cameras are refined.

        Args:
            kind: what rays they are; rays of a kind have similar numbers of samples.
        """
        if self.config.refine_cameras:
            batch.rays_o, batch.rays_d = self.cameras(batch.rays_o, batch.rays_d, frame)
        inputs = self.frames.inputs(frame)
        jitter = (torch.rand(1, generator=generator) - 0.5) * _EYE_JITTER
        assert inputs.eye_closure is not None  # every frame of a capture has one
        inputs.eye_closure = inputs.eye_closure + jitter.to(self.frames.device)
        noise = torch.rand(len(batch.rays_o), generator=generator).to(self.frames.device)
        field = self.portrait.head.bind(inputs, with_uncertainty=with_uncertainty)
        march = self.config.portrait.march
        rays = (field, self.portrait.head_grid, batch.rays_o, batch.rays_d, march, batch.background_rgb, noise)
        if not static_shapes(batch.rays_o.device):
            return render_head(*rays)
        capacity = self._capacities[kind]
        output = render_head(*rays, capacity.size(len(batch.rays_o) * march.max_steps))
        assert output.n_found is not None
        capacity.observe(output.n_found)
        return output

    def _regularization(self, output: RenderOutput, batch: RayBatch, ramp: float) -> dict[str, Tensor]:
        """Terms of opacity and attention; the weights of the attention terms are multiplied by `ramp`."""
        weights, max_steps = self.config.losses, self.config.portrait.march.max_steps
        return {
            "opacity_entropy": weights.opacity_entropy * losses.opacity_entropy(output.opacity),
            "audio_attention": ramp * weights.audio_attention * losses.audio_attention(output, batch),
            "eye_attention": ramp * weights.eye_attention * losses.eye_attention(output, batch, max_steps),
        }


class HeadStage(_HeadFieldStage):
    """Trains the head on random rays of whole frames, with learned uncertainty of the error."""

    name = "head"

    def loss(self, frame: int, step: int, generator: torch.Generator) -> StepLoss:
        weights, progress = self.config.losses, self._progress(step)
        pixels = self._draw_pixels(frame, generator)
        batch = self.frames.rays(frame, pixels, "head")
        self.frames.randomize_background(batch, frame, pixels, self._random_colors(len(pixels), generator))
        output = self._render(frame, batch, generator, "pixels", with_uncertainty=weights.uncertainty > 0)
        error = losses.squared_error(output, batch)
        statistics = StepStatistics(error.mean(), len(pixels), output.n_samples.sum())
        if output.uncertainty is not None:
            error = losses.uncertainty_weighted(error, output, batch, progress)
        terms = {"color": error.mean()} | self._regularization(output, batch, progress)
        if weights.smoothness > 0 and step % self.config.grid_update_every == 0:
            terms["smoothness"] = progress * weights.smoothness * self._variation(output, batch, generator)
        return StepLoss(terms, statistics)

    def _draw_pixels(self, frame: int, generator: torch.Generator) -> Tensor:
        settings = self.settings
        fractions = settings.lips_fraction, settings.eyes_fraction, settings.head_fraction
        n_lips, n_eyes, n_head = (int(fraction * settings.n_rays) for fraction in fractions)
        regions = (
            (settings.n_rays - n_lips - n_eyes - n_head, self._whole_frame()),
            (n_lips, self.frames.lips(frame)),
            (n_eyes, self.frames.eyes(frame)),
            (n_head, self.frames.head(frame)),
        )
        return torch.cat([random_pixels(n, rectangle, generator) for n, rectangle in regions])

    def _variation(self, output: RenderOutput, batch: RayBatch, generator: torch.Generator) -> Tensor:
        """[] mean squared difference of attention and uncertainty between surface points and points nearby."""
        depth = (output.depth / output.opacity.clamp(min=1e-3)).detach()
        points = (batch.rays_o + depth[:, None] * batch.rays_d).detach()[output.opacity.detach() > 0.5]
        if not len(points):
            return output.opacity.new_zeros(())
        head, bound = self.portrait.head, self.config.portrait.head.bound
        noise = torch.rand(points.shape, generator=generator).to(self.frames.device) * 2 - 1
        with torch.no_grad():
            at_surface = head.regularized(points.clamp(-bound, bound))
        nearby = head.regularized((points + noise * _SMOOTHNESS_DISTANCE).clamp(-bound, bound))
        return reduce(torch.add, ((a - b).square().mean() for a, b in zip(nearby, at_surface, strict=True)))


class FinetuneStage(_HeadFieldStage):
    """Trains the head on the lips and on random patches in turn, with a perceptual loss."""

    name = "finetune"
    settings: FinetuneStageConfig

    def prepare(self) -> None:
        _ = self._perceptual

    @cached_property
    def _perceptual(self) -> PerceptualLoss | None:
        return perceptual_loss(self.settings.perceptual, self.frames.device)

    def loss(self, frame: int, step: int, generator: torch.Generator) -> StepLoss:
        pixels, shape, perceptual_weight = self._draw_patches(frame, step, generator)
        batch = self.frames.rays(frame, pixels, "head")
        output = self._render(frame, batch, generator, "lips" if step % 2 == 0 else "patches")
        mse = losses.squared_error(output, batch).mean()
        terms = {"color": mse}
        if self._perceptual is not None:
            images = (rgb.view(-1, *shape, 3).permute(0, 3, 1, 2) for rgb in (output.rgb, batch.target_rgb))
            terms["perceptual"] = perceptual_weight * self._perceptual(*images).mean()
        terms |= self._regularization(output, batch, 1.0)
        return StepLoss(terms, StepStatistics(mse, len(pixels), output.n_samples.sum()))

    def _draw_patches(self, frame: int, step: int, generator: torch.Generator) -> tuple[Tensor, tuple[int, int], float]:
        """[N, 2] pixels of patches, height and width of a patch, and the weight of the perceptual loss."""
        weights, size = self.config.losses, self.settings.patch_size
        if step % 2 == 0:
            lips = self.frames.lips(frame)
            shape = (lips.row1 - lips.row0, lips.column1 - lips.column0)
            return rectangle_pixels(lips), shape, weights.lips_perceptual
        n = max(1, self.settings.n_rays // size**2)
        pixels = patch_pixels(n, size, self.frames.height, self.frames.width, generator)
        return pixels, (size, size), weights.patch_perceptual
