"""Which cells are dynamic: those that speech and blinks change, in the regions where they change most."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.bake.conditions import Conditions, MeasuredHead, MeasuredPoints

_POINTS_PER_CELL = 6
_REACH = 5  # cells along each side of the window over which variation is averaged for a region


@dataclass(frozen=True)
class VariationOptions:
    """What makes a cell dynamic."""

    variation: float = 0.1
    """A cell is dynamic if speech or closing the eyes changes the color or alpha of one step at a point in it by more
    than this, of 1: smaller means better and slower."""
    region: float = 0.35
    """Only around the mouth and the eyes: where the variation, averaged over five cells, is above this part of its
    largest value. 0 for everywhere."""


def measure_variation(
    head: MeasuredHead,
    cells: Tensor,
    resolution: int,
    rest: Conditions,
    varied: Conditions,
    camera: Tensor,
    step: float,
) -> Tensor:
    """How much conditions change what a camera sees of cells.

    Args:
        head: the head.
        cells: [n, 3] cells by x, y, z.
        resolution: cells along each side of the cube.
        rest: the condition to compare with.
        varied: C conditions.
        camera: [3] position of the camera, scene.
        step: length of a ray's step, scene units.

    Returns:
        [n] largest difference in color times alpha, or in alpha, of a step at random points of each cell.
    """
    bound = head.field.config.bound
    generator = torch.Generator(cells.device).manual_seed(0)
    inside = torch.rand(len(cells), _POINTS_PER_CELL, 3, device=cells.device, generator=generator)
    points = ((cells[:, None] + inside) * (2 * bound / resolution) - bound).view(-1, 3)
    largest = points.new_zeros(len(points))
    for rows, measured in head.chunks(points):

        def seen(code: Tensor, closure: Tensor, measured: MeasuredPoints = measured) -> Tensor:
            sigmas, rgbs = measured.evaluate(code, closure, camera)
            alpha = 1 - torch.exp(-sigmas * step)
            return torch.cat((alpha[:, None] * rgbs, alpha[:, None]), 1)

        at_rest = seen(rest.audio_codes[0], rest.eye_closures[0])
        for code, closure in zip(*varied, strict=True):
            largest[rows] = torch.maximum(largest[rows], (seen(code, closure) - at_rest).abs().amax(1))
    return largest.view(len(cells), -1).amax(1)


def dynamic_cells(variations: list[Tensor], cells: Tensor, resolution: int, options: VariationOptions) -> Tensor:
    """[n] bool: which cells are dynamic.

    Args:
        variations: [n] of each cause, speech and eye closure, as :func:`measure_variation` returns them.
        cells: [n, 3] int64 cells by x, y, z.
        resolution: cells along each side of the cube.
        options: thresholds.
    """
    x, y, z = cells.unbind(1)
    dynamic = torch.zeros(len(cells), dtype=torch.bool, device=cells.device)
    for variation in variations:
        volume = variation.new_zeros(2, resolution, resolution, resolution)
        volume[0, x, y, z], volume[1, x, y, z] = variation, 1.0
        sums = F.avg_pool3d(volume[:, None], _REACH, 1, _REACH // 2)[:, 0]
        mean = (sums[0] / sums[1].clamp(min=1e-6))[x, y, z]
        # Averages over few cells, at the edge of what is seen, say little.
        mean = mean * (sums[1][x, y, z] * _REACH**3 >= _REACH)
        dynamic |= (variation > options.variation) & (mean >= options.region * mean.max())
    return dynamic
