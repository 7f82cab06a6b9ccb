"""Bake the head of a portrait: find the cells that are seen, and store those that nothing changes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.bake.baked_head import BakedHead
from ernerf_ti.bake.conditions import Conditions, MeasuredHead, rest, various_closures, various_speech
from ernerf_ti.bake.variation import VariationOptions, dynamic_cells, measure_variation
from ernerf_ti.bake.visibility import seen_cells
from ernerf_ti.portrait.frame_index import FrameIndex
from ernerf_ti.portrait.portrait import Portrait
from taichi_kernels.baked_grid import FIRST_ROW, TRANSPARENT, UNKNOWN

_FRAMES = 24  # whose visible cells are baked
_CODES, _CLOSURES = 32, 4  # that variation is measured with
_CAMERAS = 16  # that colors are fitted to
_CORNERS_PER_CUBE = 256  # along each side
_ALPHA = 1 / 512  # of a step, below which a cell is invisible
_LOG_DENSITIES = (-20.0, 16.0)
_FARTHEST_MATTER = 16  # cells, that rays leave at once
_OUTLIERS = 1e-3  # of the coefficients of colors, which are clipped on either side


@dataclass(frozen=True)
class BakeOptions:
    """How a head is baked."""

    dynamic: VariationOptions = field(default_factory=VariationOptions)
    """Which cells the networks are evaluated in."""
    view_axes: int = 0
    """Directions in which the camera moves that colors follow: 0 for the colors of the mean camera, to 3."""


@dataclass(frozen=True)
class TrainingConditions:
    """What the run was trained on, of n frames."""

    audio_codes: Tensor
    """[n, A]."""
    eye_closures: Tensor
    """[n] in [0, 1]."""
    poses: Tensor
    """[n, 4, 4] pose_world_from_camera, scene."""


@torch.no_grad()
def bake_head(
    portrait: Portrait,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    trained_on: TrainingConditions,
    appearance_index: FrameIndex | None,
    options: BakeOptions,
    report: Callable[[str], None] = lambda line: None,
) -> BakedHead:
    """Bake the head of a portrait.

    Args:
        portrait: the portrait, on the CPU.
        intrinsics: fx, fy, cx, cy in pixels of the capture.
        size: width, height.
        trained_on: frames of the capture.
        appearance_index: index of the head's appearance embedding; None for the mean one.
        options: what is stored.
        report: called with lines that say what was found.

    Raises ValueError for a portrait with a bound above 1, or one whose head no camera sees.
    """
    grid, bound = portrait.head_grid, portrait.config.head_grid.bound
    if bound > 1:
        raise ValueError(f"head_grid.bound: expected at most 1 to bake a portrait, got {bound}; render the run itself")
    head = MeasuredHead(portrait.head, appearance_index)
    resolution, device = grid.config.resolution, grid.bitfield.device
    codes, closures, poses = trained_on.audio_codes, trained_on.eye_closures, trained_on.poses
    frames = torch.linspace(0, len(poses) - 1, min(_FRAMES, len(poses))).round().long()
    of_frames = Conditions(codes[frames], closures[frames, None])
    seen = seen_cells(portrait, intrinsics, size, poses[frames], of_frames, portrait.head.appearance(appearance_index))
    if not bool(seen.any()):
        raise ValueError("head: expected some matter in the scene, got none; train the portrait first")
    axis = torch.arange(resolution, dtype=torch.int32, device=device)
    order = tk.morton_encode(torch.cartesian_prod(axis, axis, axis)).long()
    bits = grid.bitfield.int()[order >> 3] >> (order & 7) & 1
    codes_of_cells = (bits.view(resolution, resolution, resolution) * UNKNOWN).int()

    at_rest = rest(codes, closures)
    camera = poses[:, :3, 3].mean(0)
    step = max(2 * 3**0.5 / resolution, 0.0)
    cells = seen.nonzero()
    varied = various_speech(codes, closures, _CODES), various_closures(codes, closures, _CLOSURES)
    measured = [measure_variation(head, cells, resolution, at_rest, each, camera, step) for each in varied]
    is_dynamic = dynamic_cells(measured, cells, resolution, options.dynamic)
    order = torch.argsort(is_dynamic.int(), stable=True)
    cells, is_dynamic = cells[order], is_dynamic[order]
    n_static = int((~is_dynamic).sum())

    lattice = _Lattice(cells, resolution, bound)
    log_densities = lattice.new_values(1)[:, 0]
    _log_densities(head, lattice, slice(0, n_static), at_rest, camera, log_densities)
    everything = Conditions(*(torch.cat(parts) for parts in zip(at_rest, *varied, strict=True)))
    dynamic_densities = log_densities.clone()
    _log_densities(head, lattice, slice(n_static, len(cells)), everything, camera, dynamic_densities)
    rows = lattice.of_cells(log_densities, slice(0, n_static))
    rows = torch.cat((rows, lattice.of_cells(dynamic_densities, slice(n_static, len(cells)))))

    invisible = rows.flatten(1).amax(1).exp() * step < _ALPHA
    invisible &= ~is_dynamic
    kept = (~invisible).nonzero()[:, 0]
    view = _View.of(poses[:, :3, 3], options.view_axes)
    kept_static = kept[kept < n_static]
    colors, lows, steps = _colors(head, lattice, kept_static, at_rest, view, poses)
    codes_of_rows = torch.full((len(cells),), TRANSPARENT, dtype=torch.int32, device=device)
    codes_of_rows[kept] = FIRST_ROW + 2 * torch.arange(len(kept), dtype=torch.int32) + is_dynamic[kept].int()
    codes_of_cells[tuple(cells.t())] = codes_of_rows
    report(
        f"cells: {int(bits.sum())} occupied, {len(cells)} seen, {len(kept_static)} of them stored, "
        f"{int(is_dynamic.sum())} dynamic, {int(invisible.sum())} transparent"
    )
    return BakedHead(
        _with_distances(codes_of_cells),
        rows[kept].half(),
        colors,
        *(lows, steps, view.mean, view.axes, view.reach),
    )


def _with_distances(codes: Tensor) -> Tensor:
    """[R, R, R] codes in which empty cells have minus the number of cells up to which all around them are empty."""
    distances = torch.zeros_like(codes)
    near = (codes > 0).float()[None, None]
    for _ in range(_FARTHEST_MATTER):
        near = F.max_pool3d(near, 3, 1, 1)
        distances -= (near[0, 0] == 0).int()
    return torch.where(codes > 0, codes, distances).contiguous()


class _Lattice:
    """Corners of cells, each of them once.

    Args:
        cells: [n, 3] cells by x, y, z.
        resolution: cells along each side of the cube.
        bound: half side of the cube, scene units.
    """

    def __init__(self, cells: Tensor, resolution: int, bound: float):
        per_cell = max(1, _CORNERS_PER_CUBE // resolution)
        self.n_corners = per_cell + 1
        side = resolution * per_cell + 1
        steps = torch.arange(self.n_corners, device=cells.device)
        corners = cells[:, None] * per_cell + torch.cartesian_prod(steps, steps, steps)
        numbers = (corners[..., 0] * side + corners[..., 1]) * side + corners[..., 2]
        unique, self._rows = numbers.unique(return_inverse=True)
        places = torch.stack((unique // side**2, unique // side % side, unique % side), 1)
        self.points = places.float() * (2 * bound / (side - 1)) - bound

    def new_values(self, n: int) -> Tensor:
        """[L, n] zeros for all corners."""
        return self.points.new_zeros(len(self.points), n)

    def corners_of(self, cells: slice | Tensor) -> Tensor:
        """[L'] sorted numbers of the corners of cells."""
        return self._rows[cells].unique()

    def of_cells(self, values: Tensor, cells: slice | Tensor) -> Tensor:
        """[L, ...] values of all corners -> [n, S, S, S, ...] of cells."""
        rows = self._rows[cells]
        return values[rows].view(len(rows), *3 * (self.n_corners,), *values.shape[1:])


def _log_densities(
    head: MeasuredHead, lattice: _Lattice, cells: slice, conditions: Conditions, camera: Tensor, out: Tensor
) -> None:
    """Set the smallest logarithm of the density under any condition, at the corners of cells."""
    corners = lattice.corners_of(cells)
    for rows, measured in head.chunks(lattice.points[corners]):
        smallest = None
        for code, closure in zip(*conditions, strict=True):
            sigmas = measured.evaluate(code, closure, camera)[0]
            smallest = sigmas if smallest is None else torch.minimum(smallest, sigmas)
        assert smallest is not None
        out[corners[rows]] = smallest.log().clamp(*_LOG_DENSITIES)


@dataclass(frozen=True)
class _View:
    """Positions of cameras in few numbers."""

    mean: Tensor
    axes: Tensor
    """[a, 3]."""
    reach: Tensor
    """[a]."""

    @staticmethod
    def of(positions: Tensor, n_axes: int) -> "_View":
        mean = positions.mean(0)
        centered = positions - mean
        _, _, principal = torch.linalg.svd(centered, full_matrices=False)
        axes = principal[:n_axes]
        deviations = (centered @ axes.t()).square().mean(0).sqrt()
        axes = axes[deviations > 1e-6] / deviations[deviations > 1e-6, None]
        return _View(mean, axes.contiguous(), (centered @ axes.t()).abs().amax(0))

    def basis(self, positions: Tensor) -> Tensor:
        """[n, 3] -> [n, 1 + a]."""
        places = (positions - self.mean) @ self.axes.t()
        return torch.cat((places.new_ones(len(places), 1), places), 1)


def _colors(
    head: MeasuredHead, lattice: _Lattice, cells: Tensor, condition: Conditions, view: _View, poses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients of the colors at the corners of cells [n, S, S, S, B, 3] uint8, least squares over cameras, and what
    their 0 and their steps stand for."""
    frames = torch.linspace(0, len(poses) - 1, min(_CAMERAS, len(poses))).round().long()
    cameras = poses[frames, :3, 3]
    basis = view.basis(cameras)
    if len(view.axes) == 0:
        cameras, basis = view.mean[None], basis[:1]
    solve = torch.linalg.pinv(basis)  # [B, V]
    corners = lattice.corners_of(cells)
    coefficients = lattice.points.new_zeros(len(corners), solve.shape[0], 3)
    for rows, measured in head.chunks(lattice.points[corners]):
        for weights, camera in zip(solve.t(), cameras, strict=True):
            rgbs = measured.evaluate(condition.audio_codes[0], condition.eye_closures[0], camera)[1]
            coefficients[rows] += weights[:, None] * rgbs[:, None]
    ordered = coefficients.flatten(1).sort(0).values
    if not len(ordered):
        ordered = ordered.new_zeros(1, ordered.shape[1])
    cut = round(_OUTLIERS * (len(ordered) - 1))
    lows, highs = ordered[cut].view(-1, 3).clone(), ordered[-1 - cut].view(-1, 3).clone()
    lows[0], highs[0] = 0.0, 1.0
    steps = ((highs - lows) / 255).clamp(min=1e-9)
    quantized = ((coefficients - lows) / steps).round().clamp(0, 255).to(torch.uint8)
    of_all = torch.zeros(len(lattice.points), *quantized.shape[1:], dtype=torch.uint8, device=quantized.device)
    of_all[corners] = quantized
    return lattice.of_cells(of_all, cells), lows, steps
