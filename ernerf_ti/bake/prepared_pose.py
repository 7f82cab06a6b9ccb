"""What a baked portrait shows from one pose whatever is said, kept in little memory."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.portrait.render.alpha import over
from taichi_kernels.baked_grid import BakedSamples, composite_baked

N_LEVELS = 3
"""Levels of detail: they evaluate all, a half and a quarter of the pixels that move, and interpolate the others."""
_LEAST_STEP = 1e-12  # of rows of zeros


@dataclass(frozen=True, eq=False)
class EightBits:
    """A matrix whose rows are rounded to 256 values between their extremes: lowest + steps * values."""

    values: Tensor
    """[K, M] uint8; 1 in a row of one positive number."""
    lowest: Tensor
    """[K, 1]."""
    steps: Tensor
    """[K, 1], above 0."""

    @staticmethod
    def of(matrix: Tensor) -> "EightBits":
        """Round [K, M] of floats."""
        if not matrix.shape[1]:
            zeros = matrix.new_zeros(len(matrix), 1)
            return EightBits(matrix.to(torch.uint8), zeros, zeros + 1)
        lowest, highest = torch.aminmax(matrix, dim=1, keepdim=True)
        is_one_number = (lowest == highest) & (highest > 0)
        lowest = lowest.masked_fill(is_one_number, 0.0)
        steps = torch.where(is_one_number, highest, (highest - lowest) / 255).clamp(min=_LEAST_STEP)
        values = ((matrix - lowest) / steps).round_()
        return EightBits(values.to(torch.uint8), lowest, steps)

    def columns(self, part: slice, memory: Tensor) -> Tensor:
        """[K, m] values of some of the columns, as floats.

        Args:
            memory: of at least K m numbers, which the result takes.
        """
        values = self.values[:, part]
        return memory[: values.numel()].view(values.shape).copy_(values)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.values.nbytes + self.lowest.nbytes + self.steps.nbytes


@dataclass(frozen=True, eq=False)
class PreparedPose:
    """The stored part of the head and the torso from one pose, where the dynamic samples lie, and what they enter the
    networks with.

    Of N pixels, D show M dynamic samples. They are ordered so that each level of detail evaluates the first ones: at
    the last level, every second pixel of every second row; at the one before it, those between them diagonally too.

    At 256x256 a real speaker takes 2.5 MB. What is rounded to 8 bits changes the picture by less than its own rounding
    does, and what is kept in half precision changes a color by less than .001.
    """

    still: Tensor
    """[N, 4] uint8 premultiplied color and opacity: the whole portrait where there are no dynamic samples, and what is
    behind the head elsewhere."""
    pixels: Tensor
    """[D] int32, numbers of the pixels with dynamic samples."""
    n_pixels: tuple[int, ...]
    """How many of them are evaluated at each level of detail, from D down."""
    neighbors: Tensor
    """[D - n_pixels[-1], 4] int32, for the pixels that the last level leaves out: places in `pixels` of neighbors that
    are evaluated, or interpolated before; D for none."""
    n_samples: tuple[int, ...]
    """How many of the samples belong to those pixels at each level, from M down."""
    packed_info: Tensor
    """[D, 2] int32, first dynamic sample of a pixel and number of them."""
    before: Tensor
    """[D, 4] float16 run before the first dynamic sample: color times opacity, transmittance."""
    deltas: Tensor
    """[M] float16 lengths of the samples' steps."""
    after: Tensor
    """[M, 4] float16 run after a dynamic sample, as `before`."""
    units: EightBits
    """[P, M], see :meth:`ernerf_ti.portrait.model.folded_networks.FoldedNetworks.point_units`."""

    @staticmethod
    def of(
        samples: BakedSamples, behind: Tensor | None, width: int, units_of: Callable[[Tensor, Tensor], Tensor]
    ) -> "PreparedPose":
        """Args:
        samples: of all N pixels.
        behind: [N, 4] premultiplied color and opacity of what is behind the head; None for nothing.
        width: of the picture, pixels.
        units_of: positions and directions [M, 3] of samples -> their units [P, M].
        """
        firsts, counts = samples.packed_info.unbind(1)
        pixels, n_pixels, neighbors = _by_levels(counts > 0, width)
        color, opacity = samples.before[:, :3], 1 - samples.before[:, 3]
        still = torch.cat((color, opacity[:, None]), 1)
        if behind is not None:
            still = over(still, opacity, behind)
        still[pixels] = 0.0 if behind is None else behind[pixels]
        firsts, counts = firsts[pixels], counts[pixels]
        begins = counts.cumsum(0, dtype=torch.int32) - counts
        places = torch.repeat_interleave(firsts - begins, counts)
        order = places + torch.arange(len(places))
        return PreparedPose(
            still=(still.clamp(0, 1) * 255 + 0.5).to(torch.uint8),
            pixels=pixels.to(torch.int32),
            n_pixels=n_pixels,
            neighbors=neighbors,
            n_samples=tuple(int(counts[:n].sum()) for n in n_pixels),
            packed_info=torch.stack((begins, counts), 1),
            before=samples.before[pixels, :4].half(),
            deltas=samples.deltas[order].half(),
            after=samples.after[order, :4].half(),
            units=EightBits.of(units_of(samples.positions[order], samples.directions[order])),
        )

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        values = (getattr(self, each.name) for each in fields(self))
        return sum(value.nbytes for value in values if not isinstance(value, tuple))

    def composite(self, values: Tensor, level: int, T_threshold: float) -> tuple[Tensor, Tensor]:
        """Color times opacity [n, 3] and opacity [n] of the head in the pixels that a level evaluates.

        Args:
            values: [4, m] density and color of its samples.
            level: of detail.
            T_threshold: a ray ends once its transmittance is below this.
        """
        n, m = self.n_pixels[level], self.n_samples[level]
        rgb, opacity, _ = composite_baked(
            *(values, self.deltas[:m], self.packed_info[:n], self.before[:n], self.after[:m]), T_threshold=T_threshold
        )
        return rgb, opacity

    def interpolate(self, colors: Tensor, level: int) -> None:
        """Fill in what a level does not evaluate: means of the neighbors.

        Args:
            colors: [D + 1, K] of the pixels, of which the first n_pixels[level] are there.
        """
        colors[-1] = 0.0
        n_least = self.n_pixels[-1]
        for most, n in list(pairwise(self.n_pixels[: level + 1]))[::-1]:
            neighbors = self.neighbors[n - n_least : most - n_least]
            n_around = (neighbors < len(self.pixels)).sum(1, keepdim=True)
            # Torch's mean with a padding index takes ten times as long.
            colors[n:most] = F.embedding_bag(neighbors, colors, mode="sum") / n_around


def _by_levels(shown: Tensor, width: int) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Numbers of the pixels that are shown, in their order, and `n_pixels` and `neighbors` of :class:`PreparedPose`.

    Args:
        shown: [N] bool.
        width: of the picture, pixels.
    """
    shown = shown.view(-1, width)
    y, x = (torch.arange(n) % 2 == 1 for n in shown.shape)
    # A pixel's level is the last one that evaluates it.
    level = torch.where(x == y[:, None], torch.where(x, 1, 2), 0)
    diagonal, axial = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (0, -1), (0, 1), (1, 0))
    around = F.pad(shown, (1, 1, 1, 1))
    for each, steps in ((1, diagonal), (0, axial)):
        has_any = torch.stack([_moved(around, step) for step in steps]).any(0)
        level[(level == each) & ~has_any] = 2
    level = level.view(-1)
    pixels = shown.reshape(-1).nonzero()[:, 0]
    pixels = pixels[level[pixels].sort(descending=True, stable=True).indices]
    n_pixels = tuple(int((level[pixels] >= each).sum()) for each in range(N_LEVELS))
    places = torch.full(shown.shape, len(pixels), dtype=torch.int32)
    places.view(-1)[pixels] = torch.arange(len(pixels), dtype=torch.int32)
    places = F.pad(places, (1, 1, 1, 1), value=len(pixels))
    neighbors = [
        torch.stack([_moved(places, step).reshape(-1)[left_out] for step in steps], 1)
        for steps, left_out in (
            (diagonal, pixels[n_pixels[2] : n_pixels[1]]),
            (axial, pixels[n_pixels[1] :]),
        )
    ]
    return pixels, n_pixels, torch.cat(neighbors)


def _moved(padded: Tensor, step: tuple[int, int]) -> Tensor:
    """[H, W] of [H + 2, W + 2]: for each pixel the one that lies so many rows and columns further."""
    (y, x), (height, width) = step, padded.shape
    return padded[1 + y : height - 1 + y, 1 + x : width - 1 + x]
