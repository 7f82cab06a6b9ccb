"""`gridencoder` of the torch-ngp family: multiresolution grids whose tables are its checkpoints' tables."""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from taichi_kernels.checks import ArgumentCheck, expect
from taichi_kernels.compat.torch_ngp import grid_regularisers
from taichi_kernels.grid_config import GridConfig
from taichi_kernels.grid_encoding import TABLE_DTYPES
from taichi_kernels.grid_encoding import grid_encode as encode_world_positions

KINDS = ("hash", "tiled")  # by the family's number
INTERPOLATIONS = ("linear", "smoothstep")


@dataclass(frozen=True)
class EncoderGrid(GridConfig):
    """A grid given by its growth and by the entries of its levels, instead of by its finest resolution."""

    DIMS: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)

    growth: float = 2.0
    """Of the resolution from level to level."""
    offsets: tuple[int, ...] = ()
    """First entry of each level, and the number of entries."""

    @property
    def per_level_scale(self) -> float:
        return self.growth

    @property
    def level_offsets(self) -> tuple[int, ...]:
        return self.offsets


def grid_encode(
    inputs: Tensor,
    embeddings: Tensor,
    offsets: Tensor,
    per_level_scale: float,
    base_resolution: int,
    calc_grad_inputs: bool = False,
    gridtype: int = 0,
    align_corners: bool = False,
    interpolation: int = 0,
) -> Tensor:
    """Features of points in a multiresolution grid, see :func:`taichi_kernels.grid_encode`.

    Args:
        inputs: [B, D] in [0, 1], D = 1 to 4; a point outside has zero features and gradients.
        embeddings: [offsets[L], C] float32, float64 or float16, C = 1, 2, 4 or 8. Under autocast they are
            read as float16 if C is even.
        offsets: [L + 1] int32, first entry of each level and the number of entries. On CUDA the call waits
            for them.
        per_level_scale: growth of the resolution from level to level, at least 1.
        base_resolution: cells along an axis at the first level.
        calc_grad_inputs: whether inputs get a gradient; without it they have none.
        gridtype: 0 for hashed, 1 for tiled levels.
        align_corners: whether the outermost corners lie on the faces of the box.
        interpolation: 0 for linear, 1 for smoothstep.

    Returns:
        [B, L C] in the dtype of the embeddings as they are read.

    Differentiable once in embeddings, and in inputs as said. Raises ValueError if an argument is not as above.
    """
    grid = _grid(
        *(tuple(offsets.tolist()), inputs.shape[-1], embeddings.shape[-1], float(per_level_scale), base_resolution),
        *(gridtype, align_corners, interpolation),
    )
    # The kernel maps [-bound, bound] to [0, 1]; a shift alone keeps the coordinates as they are. It would
    # round points a hair below 0 into the box, so that those outside are sent far away.
    inside = ((inputs >= 0) & (inputs <= 1)).all(-1, keepdim=True)
    positions = torch.where(inside, inputs - 0.5, 2.0)
    return _encode(positions if calc_grad_inputs else positions.detach(), embeddings, grid, bound=0.5)


class GridEncoder(nn.Module):
    """A multiresolution grid; parameter `embeddings` and buffer `offsets` as in the family's checkpoints.

    Args:
        input_dim: D, 1 to 4.
        num_levels: L.
        level_dim: C, features per level: 1, 2, 4 or 8.
        per_level_scale: growth of the resolution from level to level, at least 1.
        base_resolution: cells along an axis at the first level.
        log2_hashmap_size: a level has at most 2^log2_hashmap_size entries.
        desired_resolution: cells along an axis at the last level; replaces per_level_scale.
        gridtype: "hash" or "tiled".
        align_corners: whether the outermost corners lie on the faces of the box.
        interpolation: "linear" or "smoothstep" (torch-ngp and RAD-NeRF).

    Raises ValueError if an argument is not as above.
    """

    offsets: Tensor

    def __init__(
        self,
        input_dim: int = 3,
        num_levels: int = 16,
        level_dim: int = 2,
        per_level_scale: float = 2,
        base_resolution: int = 16,
        log2_hashmap_size: int = 19,
        desired_resolution: float | None = None,
        gridtype: str = "hash",
        align_corners: bool = False,
        interpolation: str = "linear",
    ):
        super().__init__()
        expect(gridtype in KINDS, "gridtype", '"hash" or "tiled"', gridtype, "choose one")
        expect(
            interpolation in INTERPOLATIONS, "interpolation", '"linear" or "smoothstep"', interpolation, "choose one"
        )
        if desired_resolution is not None and num_levels > 1:
            per_level_scale = 2 ** (math.log2(desired_resolution / base_resolution) / (num_levels - 1))
        self.input_dim = input_dim
        self.num_levels = num_levels
        self.level_dim = level_dim
        self.per_level_scale = float(per_level_scale)
        self.log2_hashmap_size = log2_hashmap_size
        self.base_resolution = base_resolution
        self.output_dim = num_levels * level_dim
        self.gridtype, self.gridtype_id = gridtype, KINDS.index(gridtype)
        self.interpolation, self.interp_id = interpolation, INTERPOLATIONS.index(interpolation)
        self.align_corners = align_corners
        self.max_params = 2**log2_hashmap_size
        offsets = [0]
        for level in range(num_levels):
            resolution = math.ceil(base_resolution * self.per_level_scale**level)
            n_entries = min(self.max_params, (resolution if align_corners else resolution + 1) ** input_dim)
            offsets.append(offsets[-1] + math.ceil(n_entries / 8) * 8)
        self.n_params = offsets[-1] * level_dim
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int32))
        self.embeddings = nn.Parameter(torch.empty(offsets[-1], level_dim))
        self._known_grid: tuple[Tensor, int | None, EncoderGrid] | None = None
        self._grid()  # so that a wrong argument is an error here
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.embeddings, -1e-4, 1e-4)

    def extra_repr(self) -> str:
        finest = round(self.base_resolution * self.per_level_scale ** (self.num_levels - 1))
        return (
            f"input_dim={self.input_dim} num_levels={self.num_levels} level_dim={self.level_dim} "
            f"resolution={self.base_resolution} -> {finest} per_level_scale={self.per_level_scale:.4f} "
            f"params={tuple(self.embeddings.shape)} gridtype={self.gridtype} align_corners={self.align_corners} "
            f"interpolation={self.interpolation}"
        )

    def forward(self, inputs: Tensor, bound: float = 1) -> Tensor:
        """[..., D] positions in [-bound, bound] -> [..., L C] features; zeros outside."""
        positions = inputs.reshape(-1, self.input_dim)
        return _encode(positions, self.embeddings, self._grid(), bound).reshape(*inputs.shape[:-1], self.output_dim)

    @torch.no_grad()
    def grad_total_variation(
        self, weight: float = 1e-7, inputs: Tensor | None = None, bound: float = 1, B: int = 1000000
    ) -> None:
        """Add a gradient to `embeddings.grad` that evens out neighbouring entries, between backward and step.

        Args:
            weight: of the gradient.
            inputs: [..., D] points in [-bound, bound] whose cells are evened out; B random ones if None.

        Raises ValueError if the embeddings have no gradient.
        """
        points = torch.rand(B, self.input_dim, device=self.embeddings.device)
        if inputs is not None:
            points = (inputs.reshape(-1, self.input_dim) + bound) / (2 * bound)
        grid_regularisers.add_total_variation(self._gradient(), self.embeddings, self._grid(), points, weight)

    @torch.no_grad()
    def grad_weight_decay(self, weight: float = 0.1) -> None:
        """Add the gradient of weight sum_levels mean(entries^2) to `embeddings.grad`, between backward and step.

        The mean is over the entries of a level. Raises ValueError if the embeddings have no gradient.
        """
        grid_regularisers.add_weight_decay(self._gradient(), self.embeddings, self._grid(), weight)

    def _gradient(self) -> Tensor:
        gradient = self.embeddings.grad
        if gradient is None:
            raise ValueError(
                "embeddings.grad: expected a gradient, got None; call this after loss.backward() and before "
                "optimizer.step()"
            )
        return gradient

    def _grid(self) -> EncoderGrid:
        # A checkpoint may bring other offsets, in place or as another tensor; reading them waits for the GPU.
        offsets, known = self.offsets, self._known_grid
        version = None if offsets.is_inference() else offsets._version
        if known is not None and known[0] is offsets and known[1] == version:
            return known[2]
        grid = _grid(
            *(tuple(offsets.tolist()), self.input_dim, self.level_dim, self.per_level_scale),
            *(self.base_resolution, self.gridtype_id, self.align_corners, self.interp_id),
        )
        self._known_grid = offsets, version, grid
        return grid


@functools.lru_cache(maxsize=64)
def _grid(
    offsets: tuple[int, ...],
    n_dims: int,
    n_features: int,
    growth: float,
    base_resolution: int,
    gridtype: int,
    align_corners: bool,
    interpolation: int,
) -> EncoderGrid:
    n_levels = len(offsets) - 1
    expect(growth >= 1, "per_level_scale", "at least 1", growth, "order the levels from coarse to fine")
    expect(gridtype in (0, 1), "gridtype", "0 (hash) or 1 (tiled)", gridtype, "pass the number of the kind")
    expect(interpolation in (0, 1), "interpolation", "0 (linear) or 1 (smoothstep)", interpolation, "pass one of them")
    return EncoderGrid(
        n_dims=n_dims,
        n_levels=n_levels,
        base_resolution=base_resolution,
        finest_resolution=round(base_resolution * growth ** (n_levels - 1)),
        n_features=n_features,
        kind=KINDS[gridtype],
        interpolation=INTERPOLATIONS[interpolation],
        align_corners=bool(align_corners),
        growth=growth,
        offsets=offsets,
    )


def _encode(positions: Tensor, embeddings: Tensor, grid: EncoderGrid, bound: float) -> Tensor:
    """Features in the family's memory layout, rows one after the other."""
    if torch.is_autocast_enabled(embeddings.device.type) and grid.n_features % 2 == 0:
        embeddings = embeddings.half()
    # Positions are float32 whatever the precision of the rest: at a resolution of 2048 half has no cells.
    dtype = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
    positions, embeddings = positions.to(dtype).contiguous(), embeddings.contiguous()
    check = ArgumentCheck()
    check.tensor("inputs", positions, ("B", grid.n_dims), dtype)
    check.tensor("embeddings", embeddings, (grid.n_entries, grid.n_features), TABLE_DTYPES)
    return encode_world_positions(positions, embeddings, grid, bound).contiguous()
