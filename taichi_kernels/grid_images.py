"""Two-dimensional grids as images, which torch interpolates with vector instructions on a CPU. Without gradients.

Every entry of a table, hashed or not, is copied to where a level looks it up, so that a level becomes an image of its
corners. That takes more memory than the table; the values are the same, up to rounding.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, expect
from taichi_kernels.grid_config import GridConfig
from taichi_kernels.grid_encoding import HASH_PRIMES, level_strides


class GridImages:
    """The levels of 2-D grids of the same shape, each seen by a plane of the positions.

    Args:
        tables: [P, n_entries, F] float32 or float64, copied.
        config: shape of each grid, n_dims = 2 and linear interpolation.
        planes: [P] pairs of axes of the positions.
        bound: the grids cover [-bound, bound], world units.

    Raises ValueError for another number of dimensions, another interpolation, tables of another shape, or tables that
    require a gradient, and so does a call for such positions.
    """

    def __init__(self, tables: Tensor, config: GridConfig, planes: tuple[tuple[int, int], ...], bound: float):
        shape = (len(planes), config.n_entries, config.n_features)
        ArgumentCheck().tensor("tables", tables, shape, FLOATS, differentiable=False)
        with torch.no_grad():
            self._make_images(tables, config, planes, bound)

    def _make_images(
        self, tables: Tensor, config: GridConfig, planes: tuple[tuple[int, int], ...], bound: float
    ) -> None:
        if not _are_images(config):
            raise ValueError(
                "config: expected n_dims = 2 and linear interpolation, "
                f"got {config.n_dims} and {config.interpolation}; use grid_encode"
            )
        # torch reads coordinates fastest where those along each axis lie in a row. Pairs of rows that follow each other
        # serve all planes, if the image of a plane whose axes come in the other order is turned.
        self._axes, is_turned = _axes_in_a_row(planes)
        n_planes, n_levels, n_features = len(planes), config.n_levels, config.n_features
        largest = max(_n_corners(config, scale) for scale in config.level_scales)
        # All images are as large as the largest one, so that one call samples all levels of a plane.
        self._images = tables.new_zeros(n_planes, n_levels, n_features, largest, largest)
        factors, offsets = [], []
        for level, scale in enumerate(config.level_scales):
            begin, end = config.level_offsets[level : level + 2]
            n = _n_corners(config, scale)
            slots = begin + _slots(n, end - begin, config.kind, tables.device)
            for plane, turned in enumerate(is_turned):
                entries = tables[plane][slots.t() if turned else slots]  # [n, n, F]
                self._images[plane, level, :, :n, :n] = entries.permute(2, 0, 1)
            # torch's coordinate g is at corner (g + 1) / 2 (largest - 1); a position x is at
            # (x / bound + 1) / 2 scale + first.
            first = 0.0 if config.align_corners else 0.5
            factors.append(scale / bound / (largest - 1))
            offsets.append((scale + 2 * first) / (largest - 1) - 1)
        self._factors = tables.new_tensor(factors)[:, None, None]
        self._offsets = tables.new_tensor(offsets)[:, None, None]

    def __call__(self, positions: Tensor, out: Tensor | None = None) -> Tensor:
        """Interpolated features, as of :func:`taichi_kernels.triplane_encode` for points in the box.

        Args:
            positions: [M, n] world units, best channel-major in memory.
            out: [P L F, M] contiguous, memory for the features; None to allocate it.

        Returns:
            [M, P L F], plane-major, then level-major; the memory is channel-major. They are finite outside of the box,
            but meaningless.
        """
        if positions.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "positions: expected a tensor that requires no gradient, because none is computed for it, "
                "got requires_grad=True; pass it with .detach()"
            )
        n, (n_planes, n_levels, n_features) = len(positions), self._images.shape[:3]
        features = positions.new_empty(n_planes * n_levels * n_features, n) if out is None else out
        if n == 0:
            return features.t()
        coordinates = positions.new_empty(len(self._axes), n)
        for of_axis, axis in zip(coordinates, self._axes, strict=True):
            of_axis.copy_(positions[:, axis])
        places = (coordinates * self._factors).add_(self._offsets)  # [L, axes, M]
        size, strides = (n_levels, 1, n, 2), (len(coordinates) * n, n, 1, n)
        of_planes = features.view(n_planes, n_levels, n_features, n)
        for plane, images in enumerate(self._images):
            pairs = places.as_strided(size, strides, plane * n)
            found = F.grid_sample(images, pairs, padding_mode="border", align_corners=True)
            of_planes[plane] = found[:, :, 0]
        return features.t()


class ImagesOfTables:
    """The images of tables that may change.

    Args:
        config, planes, bound: as of :class:`GridImages`.
        most: numbers that images may hold.
    """

    def __init__(self, config: GridConfig, planes: tuple[tuple[int, int], ...], bound: float = 1.0, most: int = 2**24):
        self._arguments = (config, planes, bound)
        largest = max(_n_corners(config, scale) for scale in config.level_scales)
        n_images = len(planes) * config.n_levels * config.n_features
        self._fits = _are_images(config) and n_images * largest**2 <= most
        self._made: tuple[Tensor, GridImages] | None = None

    @torch.no_grad()
    def of(self, tables: Tensor) -> GridImages | None:
        """The images of tables as they are now, made anew if they have changed.

        Args:
            tables: [P, n_entries, F].

        Returns:
            None where kernels are faster, or the only way: off the CPU, if the grids have no images, or large ones.
        """
        if not self._fits or tables.device.type != "cpu":
            return None
        # Compared by value: not everything that writes to a tensor raises its version, torch's fused optimizers do not.
        made = self._made
        if made is None or made[0].dtype != tables.dtype or not torch.equal(made[0], tables):
            made = self._made = tables.detach().clone(), GridImages(tables.detach(), *self._arguments)
        return made[1]


def _are_images(config: GridConfig) -> bool:
    return config.n_dims == 2 and config.interpolation == "linear"


def _axes_in_a_row(planes: tuple[tuple[int, int], ...]) -> tuple[list[int], list[bool]]:
    """Axes such that each plane sees two that follow each other, and whether it sees them in the other order.

    The planes xy, yz, xz give x, y, z, x, of which the last pair is in the other order.
    """
    axes, is_turned = [*planes[0]], [False]
    for a, b in planes[1:]:
        expect(
            axes[-1] in (a, b), "planes", "planes that share an axis with the one before", planes, "change the order"
        )
        is_turned.append(axes[-1] == b)
        axes.append(a if axes[-1] == b else b)
    return axes, is_turned


def _n_corners(config: GridConfig, scale: float) -> int:
    return math.ceil(scale) + (1 if config.align_corners else 2)


def _slots(n: int, n_slots: int, kind: str, device: torch.device) -> Tensor:
    """[n, n] entries of the corners of a level: rows along the second axis of the plane, columns along the first."""
    strides, is_hashed = level_strides(2, n, n_slots, kind)
    corners = torch.arange(n, device=device)
    factors = HASH_PRIMES[:2] if is_hashed else strides
    columns, rows = (corners * factor % 2**32 for factor in factors)
    index = rows[:, None] ^ columns if is_hashed else (rows[:, None] + columns) % 2**32
    return index % n_slots
