"""Tri-plane hash encoding: a 3-D point seen by three 2-D grids, on the planes xy, yz and xz.

A hash collision then needs two points that agree on a plane, which for N samples on rays through R^2
pixels cuts collisions from O(R^2 N) to O(R^2 + 2 R N).      [ER-NeRF, Li et al. 2023, section 3.2]
"""

import torch
from torch import Tensor, nn

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, expect
from taichi_kernels.grid_config import GridConfig
from taichi_kernels.grid_encoding import TABLE_DTYPES, encode_planes, encoding_operator

PLANES = ((0, 1), (1, 2), (0, 2))  # xy, yz, xz
_TRIPLANE_ENCODE = encoding_operator("triplane_encode", "tables")


class TriplaneEncoding(nn.Module):
    """Three 2-D grids with their tables; see :func:`triplane_encode`.

    Args:
        config: shape of each of the three grids, n_dims = 2.
        bound: the grids cover [-bound, bound] along each axis, in world units.
    """

    def __init__(self, config: GridConfig, bound: float = 1.0):
        super().__init__()
        self.config = config
        self.bound = bound
        self.tables = nn.Parameter(torch.empty(3, config.n_entries, config.n_features).uniform_(-1e-4, 1e-4))

    def forward(self, positions: Tensor) -> Tensor:
        """[N, 3] positions -> [N, 3 L F] features."""
        return triplane_encode(positions, self.tables, self.config, self.bound)

    def extra_repr(self) -> str:
        return f"{self.config}, bound={self.bound}"


def triplane_encode(positions: Tensor, tables: Tensor, config: GridConfig, bound: float = 1.0) -> Tensor:
    """Interpolated features of 3-D points in three 2-D grids, in one launch.

    A plane gives zeros for a point outside [-bound, bound] along either of its axes.

    Args:
        positions: [N, 3] float32 or float64, world units.
        tables: [3, n_entries, F], planes xy, yz, xz, of the same dtype, or float16 with float32 positions.
        config: shape of each grid, n_dims = 2.
        bound: half side of the box that the grids cover, in world units.

    Returns:
        [N, 3 L F] in the dtype of the tables: plane-major, then level-major; the memory is channel-major.

    Differentiability, determinism and errors as :func:`taichi_kernels.grid_encode`.
    """
    expect(config.n_dims == 2, "config.n_dims", "2 for the grid of a plane", config.n_dims, "change the config")
    positions, tables = cast_under_autocast(positions), cast_under_autocast(tables, half_allowed=True)
    check = ArgumentCheck()
    check.tensor("positions", positions, ("N", 3), FLOATS)
    check.tensor("tables", tables, (3, config.n_entries, config.n_features), TABLE_DTYPES)
    return encode_planes(_TRIPLANE_ENCODE, positions, tables, config, PLANES, bound)
