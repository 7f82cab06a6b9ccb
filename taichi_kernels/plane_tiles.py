"""Features of three planes, sampled anew on finer tiles of the cells in which they are looked up.

Grids of many levels are looked up once per level and plane. Here all levels of a plane have the same corners, closer
together than those of the finest level, so that one look-up serves all of them. Between the corners features are
interpolated: they differ a little around corners that a level has and the tile does not.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, expect
from taichi_kernels.operators import Operator
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi
from taichi_kernels.triplane_encoding import PLANES


class TileCorners(NamedTuple):
    """The four corners around a point in the tiles of each plane, and how much of each counts."""

    numbers: Tensor
    """[N, 3, 4] int32 among the K S^2 corners of the tiles."""
    weights: Tensor
    """[N, 3, 4] in the dtype of the positions."""

    def part(self, points: slice) -> "TileCorners":
        """Those of some of the points."""
        return TileCorners(self.numbers[points], self.weights[points])


class PlaneTiles(NamedTuple):
    """Features of the planes xy, yz and xz at the corners of tiles, each of which covers a cell of a plane."""

    numbers: Tensor
    """[3, R, R] int32 tile of each cell, by its plane's axes in their order; any one for cells without a tile."""
    values: Tensor
    """[K, S, S, C] features at the corners of K tiles, S on each side, those on its edges included."""

    @staticmethod
    @torch.no_grad()
    def of(
        encode: Callable[[Tensor], Tensor],
        cells: Tensor,
        n_corners: int,
        bound: float,
        most: int,
        dtype: torch.dtype = torch.float32,
    ) -> "PlaneTiles | None":
        """Sample an encoding.

        Args:
            encode: positions [M, 3] -> features [M, 3 C], plane-major, such as :func:`taichi_kernels.triplane_encode`.
            cells: [R, R, R] bool by x, y, z, where positions will lie. Cells beside them have tiles too, so that the
                rounding of a position does no harm.
            n_corners: S, at least 2.
            bound: half side of the cells' cube, world units.
            most: numbers that the tiles may hold.
            dtype: of the positions that the encoding takes.

        Returns:
            None if they would hold more.
        """
        resolution = len(cells)
        near = F.max_pool3d(cells.float()[None], 3, 1, 1)[0] > 0
        numbers = torch.zeros(3, resolution, resolution, dtype=torch.int32, device=cells.device)
        used = [near.any(3 - a - b) for a, b in PLANES]
        n_tiles = sum(int(each.sum()) for each in used)
        if n_tiles * n_corners**2 * (encode(torch.zeros(1, 3, dtype=dtype, device=cells.device)).shape[1] // 3) > most:
            return None
        places = torch.linspace(0, 1, n_corners, dtype=dtype, device=cells.device)
        tiles: list[Tensor] = []
        for plane, (axes, occupied) in enumerate(zip(PLANES, used, strict=True)):
            of_plane = occupied.nonzero()
            numbers[plane][occupied] = torch.arange(len(of_plane), dtype=torch.int32, device=cells.device) + sum(
                len(each) for each in tiles
            )
            along = (of_plane[:, :, None] + places) * (2 * bound / resolution) - bound  # [k, 2, S]
            points = along.new_zeros(len(of_plane), n_corners, n_corners, 3)
            points[..., axes[0]], points[..., axes[1]] = along[:, 0, :, None], along[:, 1, None]
            features = encode(points.view(-1, 3).clamp_(-bound, bound))
            n_features = features.shape[1] // 3
            features = features[:, plane * n_features : (plane + 1) * n_features]
            tiles.append(features.reshape(len(of_plane), n_corners, n_corners, n_features))
        values = torch.cat(tiles)
        return PlaneTiles(numbers, values if len(values) else values.new_zeros(1, *values.shape[1:]))

    def place(self, positions: Tensor, bound: float) -> TileCorners:
        """Where :func:`encode_tiles` looks; arguments and errors as there."""
        check = ArgumentCheck()
        check.tensor("positions", positions, ("N", 3), FLOATS, differentiable=False)
        check.tensor("tiles.numbers", self.numbers, (3, "R", "R"), torch.int32)
        check.tensor("tiles.values", self.values, ("K", "S", "S", "C"), positions.dtype, differentiable=False)
        expect(bound > 0, "bound", "a number above 0", bound, "pass half the side of the cells' cube")
        n_tiles, n_corners = self.values.shape[:2]
        expect(
            *(n_tiles >= 1 and n_corners >= 2, "tiles.values", "a tile of at least 2 corners a side"),
            *(n_corners, "add one"),
        )
        return TileCorners(*_PLACE(positions, self.numbers, n_corners, float(bound)))

    @torch.no_grad()
    def interpolate(self, corners: TileCorners) -> Tensor:
        """[n, 3 C], what :func:`encode_tiles` finds there; corners of some of the points at a time, so that their
        features stay in the cache of a CPU.

        Sums of rows are left to torch, which uses all of a CPU's vector units for them, unlike a kernel of Taichi.
        """
        rows = self.values.view(-1, self.values.shape[3])
        numbers, weights = (each.view(-1) for each in corners)
        first = _multiples_of_4(1 << len(numbers).bit_length(), numbers.device)[: len(numbers) // 4]
        features = F.embedding_bag(numbers, rows, first, mode="sum", per_sample_weights=weights)
        return features.view(len(corners.numbers), 3 * rows.shape[1])


@lru_cache(2)
def _multiples_of_4(end: int, device: torch.device) -> Tensor:
    return torch.arange(0, end, 4, dtype=torch.int32, device=device)


def encode_tiles(positions: Tensor, tiles: PlaneTiles, bound: float) -> Tensor:
    """Interpolated features of points in cells that have tiles.

    Args:
        positions: [N, 3] float32 or float64, world units. Features of points elsewhere are finite, but meaningless.
        tiles: of the planes, in the same dtype.
        bound: half side of the cells' cube, world units.

    Returns:
        [N, 3 C], plane-major.

    Not differentiable. Deterministic. Raises ValueError if an argument is not as above.
    """
    return tiles.interpolate(tiles.place(positions, bound))


def _place(positions: Tensor, numbers: Tensor, n_corners: int, bound: float) -> tuple[Tensor, Tensor]:
    corners, weights = _empty(positions, numbers, n_corners, bound)
    resolution = numbers.shape[1]
    launch(
        _kernel(positions.dtype, is_cuda()),
        *(positions, numbers, len(positions), resolution, n_corners, bound, resolution / (2 * bound), corners, weights),
    )
    return corners, weights


def _empty(positions: Tensor, numbers: Tensor, n_corners: int, bound: float) -> tuple[Tensor, Tensor]:
    shape = len(positions), 3, 4
    return positions.new_empty(shape, dtype=torch.int32), positions.new_empty(shape)


@kernel_factory
def _kernel(dtype: torch.dtype, on_cuda: bool) -> Any:
    ti = taichi()
    real, Reals, Ints = scalar(dtype), array(dtype), array(torch.int32)

    @parallel_kernel(on_cuda)
    def place(
        positions: Reals,  # [N, 3]
        numbers: Ints,  # [3, R, R]
        n: ti.i32,
        resolution: ti.i32,
        n_corners: ti.i32,
        bound: real,
        cells_per_unit: real,
        corners: Ints,  # [N, 3, 4]
        weights: Reals,  # [N, 3, 4]
    ):
        for j in range(n):
            position = ti.Vector([positions[3 * j], positions[3 * j + 1], positions[3 * j + 2]])
            places = ti.max(real(0.0), ti.min(ti.cast(resolution, real), (position + bound) * cells_per_unit))
            cell = ti.min(ti.cast(places, ti.i32), resolution - 1)
            inner = (places - ti.cast(cell, real)) * ti.cast(n_corners - 1, real)
            corner = ti.min(ti.cast(inner, ti.i32), n_corners - 2)
            b = ti.min(real(1.0), inner - ti.cast(corner, real))
            for plane in ti.static(range(3)):
                u, v = ti.static(PLANES[plane][0]), ti.static(PLANES[plane][1])
                tile = numbers[(plane * resolution + cell[u]) * resolution + cell[v]]
                at = (tile * n_corners + corner[u]) * n_corners + corner[v]
                both = b[u] * b[v]
                to = 4 * (3 * j + plane)
                for i in ti.static(range(4)):
                    corners[to + i] = at + i // 2 * n_corners + i % 2
                weights[to] = real(1.0) - b[u] - b[v] + both
                weights[to + 1] = b[v] - both
                weights[to + 2] = b[u] - both
                weights[to + 3] = both

    return place


_PLACE = Operator(
    "place_in_tiles(Tensor positions, Tensor numbers, int n_corners, float bound) -> (Tensor, Tensor)", _place, _empty
)
