"""Which cells of the scene hold anything, kept up with a field that is being trained.

A running maximum of the field's density per cell, which decays so that a cell can become empty, and its
threshold as bits for ray marching [Instant-NGP, Mueller et al. 2022, appendix C].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.portrait.config import OccupancyGridConfig

_UNSEEN = -1.0
_BLOCK_SIDE = 4  # cells
_POSES_AT_ONCE = 16
_CELLS_AT_ONCE = 2**14  # keeps what the field computes in the cache of a CPU
_CELLS_AT_ONCE_CUDA = 2**21


class OccupancyGrid(nn.Module):
    """Densities of cells, and bits of those that are occupied; at first all that the scene's box meets.

    Args:
        config: shape and schedule.
    """

    def __init__(self, config: OccupancyGridConfig):
        super().__init__()
        self.config = config
        n_cascades = 1 + max(0, math.ceil(math.log2(config.bound)))
        density_grid = torch.zeros(n_cascades, config.resolution**3)
        for cascade in range(n_cascades):
            centers = self._centers(cascade, "cpu")
            outside = centers[:, 1].abs() > config.bound / 2 + 2 * self._half_cell(cascade)
            density_grid[cascade][outside] = _UNSEEN
        self.register_buffer("density_grid", density_grid)
        """[C, R^3] in Morton order, density per scene unit; -1 for cells that no ray enters."""
        self.register_buffer("mean_density", torch.zeros(()))
        self.register_buffer("bitfield", torch.empty(density_grid.numel() // 8, dtype=torch.uint8))
        """[C R^3 / 8], see :func:`taichi_kernels.pack_bits`."""
        self.register_buffer("occupied_box", torch.zeros(6))
        """x_min, y_min, z_min, x_max, y_max, z_max around all occupied cells; min > max if there are none."""
        self.set_bitfield(tk.pack_bits(density_grid, _UNSEEN))

    @property
    def aabb(self) -> tuple[float, ...]:
        """The scene's box: x_min, y_min, z_min, x_max, y_max, z_max, half as deep (y) as it is wide."""
        b = self.config.bound
        return (-b, -b / 2, -b, b, b / 2, b)

    @torch.no_grad()
    def set_bitfield(self, bitfield: Tensor) -> None:
        """Replace the occupied cells.

        Args:
            bitfield: [C R^3 / 8] uint8.

        Raises ValueError if it is of another size.
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
        """Empty for good the cells that no training camera sees, so that nothing grows there unseen.

        A cell is seen if its center lies before the camera and within the picture, or beside it by no
        more than a cell.

        Args:
            poses: [n, 4, 4] pose_world_from_camera in the scene, of all training frames.
            intrinsics: fx, fy, cx, cy in pixels; the picture is 2 cx by 2 cy.
        """
        fx, fy, cx, cy = (float(value) for value in intrinsics)
        slopes, device = (cx / fx, cy / fy), self.density_grid.device
        # Whole blocks of cells, which follow each other in Morton order, are left out where a camera can't see any
        # cell of theirs: most cells are either seen by the first cameras or by none.
        side = min(_BLOCK_SIDE, self.config.resolution)
        for cascade, density in enumerate(self.density_grid):
            half = self._half_cell(cascade)
            centers = self._centers(cascade, device).view(-1, side**3, 3)
            middles, reach = centers.mean(1), math.sqrt(3) * (side - 1) * half
            unseen = (density != _UNSEEN).view(-1, side**3)
            for part in poses.to(device, torch.float32).split(_POSES_AT_ONCE):
                blocks = (_in_view(middles, part, slopes, 2 * half, reach) & unseen.any(1)).nonzero()[:, 0]
                cells = unseen[blocks]
                cells[cells.clone()] = ~_in_view(centers[blocks][cells], part, slopes, 2 * half)
                unseen[blocks] = cells
            density[unseen.flatten()] = _UNSEEN
        self._threshold()

    @torch.no_grad()
    def update(self, density_fn: Callable[[Tensor], Tensor], generator: torch.Generator | None = None) -> None:
        """Look at the field once more.

        Each cell is looked at in one random place; its density becomes the largest of this, of what was
        seen in its six neighbors, and of its own one, decayed.

        Args:
            density_fn: [M, 3] positions -> [M] density per scene unit.
            generator: of the random places.
        """
        config, device = self.config, self.density_grid.device
        at_once = _CELLS_AT_ONCE_CUDA if device.type == "cuda" else _CELLS_AT_ONCE
        looked_at = torch.full_like(self.density_grid, _UNSEEN)
        for cascade, density in enumerate(self.density_grid):
            cells = (density != _UNSEEN).nonzero()[:, 0]
            if config.fraction < 1:
                cells = cells[torch.rand(len(cells), device=device, generator=generator) < config.fraction]
            centers = self._centers(cascade, device)
            for part in cells.split(at_once):
                noise = torch.rand(len(part), 3, device=device, generator=generator) * 2 - 1
                looked_at[cascade][part] = density_fn(centers[part] + noise * self._half_cell(cascade))
        decayed = torch.where(looked_at >= 0, self.density_grid * config.decay, self.density_grid)
        largest = torch.maximum(decayed, tk.dilate_density(looked_at))
        self.density_grid.copy_(torch.where(self.density_grid == _UNSEEN, self.density_grid, largest))
        self._threshold()

    def _threshold(self) -> None:
        self.mean_density.copy_(self.density_grid.clamp(min=0).mean())
        # Strictly above: cells of density 0, all of them at first, stay occupied until the field is known.
        threshold = min(float(self.mean_density), self.config.density_threshold)
        known = bool(self.mean_density > 0)
        self.set_bitfield(tk.pack_bits(self.density_grid, threshold if known else _UNSEEN / 2))

    def _occupied_box(self) -> Tensor:
        bits = torch.arange(8, dtype=torch.uint8, device=self.bitfield.device)
        resolution, boxes = self.config.resolution, []
        for cascade, part in enumerate(self.bitfield.view(len(self.density_grid), -1)):
            codes = ((part[:, None] >> bits) & 1).flatten().nonzero()[:, 0].int()
            if len(codes):
                cells = tk.morton_decode(codes)
                half_side = min(2.0**cascade, self.config.bound)
                side = 2 * half_side / resolution
                boxes.append(torch.cat((cells.amin(0) * side, (cells.amax(0) + 1) * side)) - half_side)
        if not boxes:
            return self.occupied_box.new_tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
        low, high = torch.stack(boxes).view(-1, 2, 3).unbind(1)
        return torch.cat((low.amin(0), high.amax(0)))

    def _centers(self, cascade: int, device: torch.device | str) -> Tensor:
        return tk.cell_centers(self.config.resolution, cascade, self.config.bound, device)

    def _half_cell(self, cascade: int) -> float:
        return min(2.0**cascade, self.config.bound) / self.config.resolution


def _in_view(points: Tensor, poses: Tensor, slopes: tuple[float, float], margin: float, reach: float = 0.0) -> Tensor:
    """[n, 3] points, [k, 4, 4] poses -> [n] bool: whether a camera has the point in its picture, or no more than
    `margin` beside it; or any point of a ball of radius `reach` around it."""
    rotations, origins = poses[:, :3, :3], poses[:, :3, 3]
    shifts = (origins[:, None] @ rotations).reshape(-1)
    x, y, z = (points @ rotations.permute(1, 0, 2).reshape(3, -1) - shifts).view(len(points), -1, 3).unbind(2)
    z = z + reach
    in_view = (z > 0) & (x.abs() < slopes[0] * z + margin + reach) & (y.abs() < slopes[1] * z + margin + reach)
    return in_view.any(1)
