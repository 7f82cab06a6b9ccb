"""Occupancy grid of the head: the cells in which rays are sampled, updated while the field is trained.

It keeps a decaying maximum of the field's density per cell, and one bit per cell that tells ray marching whether the
maximum lies above a threshold [Instant-NGP, Mueller et al. 2022, appendix C].
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.portrait.config import OccupancyGridConfig
from ernerf_ti.portrait.render.static_shapes import static_shapes

_UNSEEN = -1.0
_MAX_RESOLUTION = 1024  # of Morton codes in 30 bits
_BLOCK_SIDE = 4  # cells
_POSES_PER_CHUNK = 16
_CELLS_PER_CHUNK = 2**14  # the field's activations fit into the cache of a CPU
_CELLS_PER_CHUNK_CUDA = 2**21


class OccupancyGrid(nn.Module):
    """Densities of the cells and one occupancy bit per cell; initially every cell that meets the scene box is occupied.

    The constructor launches no kernel, so that the module can still be moved to the device that Taichi will use.

    Args:
        config: resolution and update schedule.
    """

    density_grid: Tensor
    mean_density: Tensor
    bitfield: Tensor
    occupied_box: Tensor
    _outward: Tensor
    _lower_cells: Tensor

    def __init__(self, config: OccupancyGridConfig):
        super().__init__()
        self.config = config
        resolution, bound = config.resolution, config.bound
        if not 2 <= resolution <= _MAX_RESOLUTION or resolution & (resolution - 1):
            raise ValueError(
                f"head_grid.resolution: expected a power of two from 2 to {_MAX_RESOLUTION}, got {resolution}; "
                "pass 64 or 128"
            )
        n_cascades = 1 + max(0, math.ceil(math.log2(bound)))
        y, rows = _morton_y(resolution), torch.arange(resolution, device="cpu")
        densities, depths = [], []
        for cascade in range(n_cascades):
            densities.append(torch.where(self._is_outside(y, cascade), _UNSEEN, 0.0))
            last = int(rows[~self._is_outside(rows, cascade)].max())
            depths.append((last + 1) * 2 * self._half_cell(cascade) - min(2.0**cascade, bound))
        density_grid, depth = torch.stack(densities), max(depths)
        self.register_buffer("density_grid", density_grid)
        """[C, R^3] in Morton order, density per scene unit; -1 for cells that no ray enters."""
        self.register_buffer("mean_density", torch.zeros(()))
        bits = (density_grid.view(-1, 8) != _UNSEEN) * 2 ** torch.arange(8)
        self.register_buffer("bitfield", bits.sum(1).to(torch.uint8))
        """[C R^3 / 8], see :func:`taichi_kernels.pack_bits`."""
        self.register_buffer("occupied_box", torch.tensor([-bound, -depth, -bound, bound, depth, bound]))
        """x_min, y_min, z_min, x_max, y_max, z_max around all occupied cells; min > max if there are none."""
        self.register_buffer("_outward", torch.tensor([-1.0] * 3 + [1.0] * 3), persistent=False)
        self.register_buffer("_lower_cells", torch.tensor([0x55, 0x33, 0x0F], dtype=torch.uint8), persistent=False)
        self._seen: list[tuple[Tensor, Tensor]] | None = None
        self._blocks: tuple[object, Tensor] | None = None

    @property
    def aabb(self) -> tuple[float, ...]:
        """Scene box: x_min, y_min, z_min, x_max, y_max, z_max; half as deep (y) as it is wide."""
        b = self.config.bound
        return (-b, -b / 2, -b, b, b / 2, b)

    @property
    def occupied_box_with_margin(self) -> Tensor:
        """[6] the occupied box, larger by a thousandth of the scene, so that rounding drops no sample in it."""
        return torch.add(self.occupied_box, self._outward, alpha=1e-3 * self.config.bound)

    @property
    def empty_blocks(self) -> Tensor:
        """[C R^3] uint8, see :func:`taichi_kernels.empty_blocks`; kept as long as the occupancy bits are the same."""
        bits = self.bitfield
        state = None if bits.is_inference() else (bits.data_ptr(), bits._version)
        if state is None or self._blocks is None or self._blocks[0] != state:
            self._blocks = state, tk.empty_blocks(bits, self.config.bound)
        return self._blocks[1]

    @torch.no_grad()
    def set_bitfield(self, bitfield: Tensor) -> None:
        """Replace the occupancy bits.

        Args:
            bitfield: [C R^3 / 8] uint8.

        Raises ValueError for another shape or dtype.
        """
        if bitfield.shape != self.bitfield.shape or bitfield.dtype != torch.uint8:
            raise ValueError(
                f"bitfield: expected {list(self.bitfield.shape)} uint8 (from the resolution "
                f"{self.config.resolution}), got {list(bitfield.shape)} {bitfield.dtype}; pack a grid of this shape"
            )
        self.bitfield.copy_(bitfield)
        self.occupied_box.copy_(self._occupied_box())

    @torch.no_grad()
    def mark_unseen_cells(self, poses: Tensor, intrinsics: tuple[float, float, float, float]) -> None:
        """Exclude cells that no training camera sees: nothing constrains the field there.

        A cell is seen if its center lies in front of the camera and projects into the image, or less than a cell
        beside it.

        Args:
            poses: [n, 4, 4] pose_world_from_camera in the scene, of all training frames.
            intrinsics: fx, fy, cx, cy in pixels; the image is 2 cx by 2 cy.
        """
        fx, fy, cx, cy = (float(value) for value in intrinsics)
        slopes, device = (cx / fx, cy / fy), self.density_grid.device
        # Cubes of cells, which are contiguous in Morton order, are tested first and skipped where a camera can't see
        # any of their cells: most cells are either seen by the first cameras or by none.
        side = min(_BLOCK_SIDE, self.config.resolution)
        for cascade, density in enumerate(self.density_grid):
            half = self._half_cell(cascade)
            centers = self._centers(cascade, device).view(-1, side**3, 3)
            middles, reach = centers.mean(1), math.sqrt(3) * (side - 1) * half
            unseen = (density != _UNSEEN).view(-1, side**3)
            for chunk in poses.to(device, torch.float32).split(_POSES_PER_CHUNK):
                blocks = (_in_view(middles, chunk, slopes, 2 * half, reach) & unseen.any(1)).nonzero()[:, 0]
                cells = unseen[blocks]
                cells[cells.clone()] = ~_in_view(centers[blocks][cells], chunk, slopes, 2 * half)
                unseen[blocks] = cells
            density[unseen.flatten()] = _UNSEEN
        self._seen = None
        self._threshold()

    @torch.no_grad()
    def update(
        self,
        density_fn: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
        all_cells: bool = True,
    ) -> None:
        """Evaluate the field at one random point per cell and update the decaying maximum.

        The density of a cell becomes the largest of the new values, the new values of its six neighbors, and its
        previous density times the decay. The density of a cell that was not evaluated does not decay.

        Args:
            density_fn: [M, 3] positions -> [M] density per scene unit.
            generator: draws the random points, and the cells.
            all_cells: evaluate all cells rather than the configured fraction of them. The fraction is one half cells
                drawn evenly, so that new matter is found, and one half occupied cells, some of them more than once, so
                that those that are empty by now are soon given up [Instant-NGP, appendix C; nerfacc, Li et al. 2023].

        M does not depend on the densities, and nothing waits for the device, except in the first call.
        """
        config, device = self.config, self.density_grid.device
        chunk_size = _CELLS_PER_CHUNK_CUDA if static_shapes(device) else _CELLS_PER_CHUNK
        evaluated = torch.full_like(self.density_grid, _UNSEEN)
        for cascade, (cells, centers) in enumerate(self._seen_cells()):
            if not all_cells and config.fraction < 1 and len(cells):
                rows = self._draw(self.density_grid[cascade][cells], generator)
                cells, centers = cells[rows], centers[rows]
            for chunk, chunk_centers in zip(cells.split(chunk_size), centers.split(chunk_size), strict=True):
                noise = torch.rand(len(chunk), 3, device=device, generator=generator) * 2 - 1
                densities = density_fn(chunk_centers + noise * self._half_cell(cascade))
                evaluated[cascade].scatter_reduce_(0, chunk, densities, "amax")
        decayed = torch.where(evaluated >= 0, self.density_grid * config.decay, self.density_grid)
        # One NaN of a half precision network would stay, spread, and make the mean density NaN: fmax leaves it out.
        largest = torch.fmax(decayed, tk.dilate_density(evaluated))
        self.density_grid.copy_(torch.where(self.density_grid == _UNSEEN, self.density_grid, largest))
        self._threshold()

    def _draw(self, densities: Tensor, generator: torch.Generator | None) -> Tensor:
        """[n] densities of cells -> [fraction n] int64 rows of those to evaluate."""
        n = math.ceil(self.config.fraction / 2 * len(densities))
        # The k-th occupied cell is where the running count of occupied cells exceeds k.
        counts = (densities > self._density_threshold()).cumsum(0)
        occupied = torch.searchsorted(counts, _evenly(n, counts[-1], counts.device, generator), right=True)
        return torch.cat((_evenly(n, len(counts), counts.device, generator), occupied))

    def _seen_cells(self) -> list[tuple[Tensor, Tensor]]:
        """For each cascade [n] int64 Morton codes and [n, 3] centers of the cells that are not excluded. Waits for the
        device when they have changed."""
        if self._seen is None:
            self._seen = []
            for cascade, density in enumerate(self.density_grid):
                cells = (density != _UNSEEN).nonzero()[:, 0]
                self._seen.append((cells, self._centers(cascade, density.device)[cells]))
        return self._seen

    def _apply(self, *args: Any, **kwargs: Any) -> "OccupancyGrid":
        self._seen = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._seen = None
        super()._load_from_state_dict(*args, **kwargs)

    def _threshold(self) -> None:
        self.mean_density.copy_(self.density_grid.clamp(min=0).mean())
        self.set_bitfield(tk.pack_bits(self.density_grid, self._density_threshold()))

    def _density_threshold(self) -> Tensor:
        """[] density above which a cell is occupied."""
        threshold = self.mean_density.clamp(max=self.config.density_threshold)
        # The initial densities are 0 and bits are set strictly above the threshold: before the first update every cell
        # that is not excluded stays occupied.
        return torch.where(self.mean_density > 0, threshold, _UNSEEN / 2)

    def _occupied_box(self) -> Tensor:
        # A byte holds 2 x 2 x 2 cells, and `_lower_cells` are its bits with the lower of the two x, y and z.
        resolution, device = self.config.resolution, self.bitfield.device
        cells = 2 * tk.morton_decode(torch.arange(resolution**3 // 8, dtype=torch.int32, device=device))
        boxes = []
        for cascade, row in enumerate(self.bitfield.view(len(self.density_grid), -1, 1)):
            lower, upper = (row & self._lower_cells) != 0, (row & ~self._lower_cells) != 0
            begin = torch.where(lower, cells, torch.where(upper, cells + 1, resolution)).amin(0)
            end = torch.where(upper, cells + 2, torch.where(lower, cells + 1, 0)).amax(0)
            # Of an empty cascade, begin and end are the far faces of the cube.
            half_side, side = min(2.0**cascade, self.config.bound), 2 * self._half_cell(cascade)
            boxes.append(torch.stack((begin * side - half_side, end * side - half_side)))
        low, high = torch.stack(boxes).unbind(1)
        return torch.cat((low.amin(0), high.amax(0)))

    def _is_outside(self, y: Tensor, cascade: int) -> Tensor:
        """[n] y indices of cells -> [n] bool, whether the cells lie outside of the scene box."""
        half_cell = self._half_cell(cascade)
        extent = min(2.0**cascade, self.config.bound) - half_cell
        centers = (y.float() * (2 / (self.config.resolution - 1)) - 1) * extent
        return centers.abs() > self.config.bound / 2 + 2 * half_cell

    def _centers(self, cascade: int, device: torch.device | str) -> Tensor:
        return tk.cell_centers(self.config.resolution, cascade, self.config.bound, device)

    def _half_cell(self, cascade: int) -> float:
        return min(2.0**cascade, self.config.bound) / self.config.resolution


def _in_view(points: Tensor, poses: Tensor, slopes: tuple[float, float], margin: float, reach: float = 0.0) -> Tensor:
    """[n, 3] points, [k, 4, 4] poses -> [n] bool: whether the point, or any point within `reach` of it, projects into
    the image of a camera or lies at most `margin` beside its frustum."""
    rotations, origins = poses[:, :3, :3], poses[:, :3, 3]
    shifts = (origins[:, None] @ rotations).reshape(-1)
    x, y, z = (points @ rotations.permute(1, 0, 2).reshape(3, -1) - shifts).view(len(points), -1, 3).unbind(2)
    z = z + reach
    in_view = (z > 0) & (x.abs() < slopes[0] * z + margin + reach) & (y.abs() < slopes[1] * z + margin + reach)
    return in_view.any(1)


def _evenly(n: int, total: int | Tensor, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """[n] int64, one random number in each of n equal parts of [0, total); 0 or less for no total."""
    numbers = (torch.arange(n, device=device) + torch.rand(n, device=device, generator=generator)) * (total / n)
    return numbers.long().clamp(max=total - 1)


def _morton_y(resolution: int) -> Tensor:
    """[R^3] int64 y index of the cells in Morton order: bits 1, 4, 7, ... of the code."""
    codes = torch.arange(resolution**3)
    y = torch.zeros_like(codes)
    for bit in range((resolution - 1).bit_length()):
        y |= (codes >> (3 * bit + 1) & 1) << bit
    return y
