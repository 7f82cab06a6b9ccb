"""Shape of a multiresolution grid: its levels, and where their entries lie in the table.

    N_l = b^l N_0,  b = (N_{L-1} / N_0)^(1 / (L-1))      [Instant-NGP, Mueller et al. 2022, eq. 2-3]

Resolutions and table sizes are those of the torch-ngp family, so that its trained tables can be read.
"""

import functools
import math
import struct
from dataclasses import dataclass
from typing import ClassVar

from taichi_kernels.checks import expect, expect_integer


@dataclass(frozen=True)
class GridConfig:
    """Shape of a multiresolution grid.

    Raises ValueError if a field is out of range.
    """

    n_dims: int
    """2 or 3."""
    n_levels: int
    base_resolution: int
    """Cells along an axis at the coarsest level."""
    finest_resolution: int
    """Cells along an axis at the finest level; equal to base_resolution if there is one level."""
    log2_table_size: int = 19
    """A level has at most 2^log2_table_size entries (not used by the kind "dense")."""
    n_features: int = 2
    """Features per entry: 1, 2, 4 or 8."""
    kind: str = "hash"
    """What happens where a level has more corners than entries: "hash", "tiled", or "dense" (never)."""
    interpolation: str = "linear"
    """"linear", or "smoothstep" for a continuous gradient to the positions."""
    align_corners: bool = False
    """Whether the box ends at the outermost corners of the grid, rather than half a cell inside them."""

    DIMS: ClassVar[tuple[int, ...]] = (2, 3)
    """Numbers of dimensions that this kind of config allows; the kernels take 1 to 4."""

    def __post_init__(self):
        def check(field: str, fits: bool, expected: str) -> None:
            expect(fits, f"GridConfig.{field}", expected, getattr(self, field), "change the field")

        for field in ("n_dims", "n_levels", "base_resolution", "finest_resolution", "log2_table_size", "n_features"):
            expect_integer(f"GridConfig.{field}", getattr(self, field), 0, None, "change the field")
        check("n_dims", self.n_dims in self.DIMS, " or ".join(map(str, self.DIMS)))
        check("n_levels", self.n_levels >= 1, "at least 1")
        check("base_resolution", self.base_resolution >= 1, "at least 1")
        check(
            "finest_resolution",
            self.finest_resolution >= self.base_resolution
            and (self.n_levels > 1 or self.finest_resolution == self.base_resolution),
            f"at least base_resolution = {self.base_resolution}, and equal to it for one level",
        )
        check("log2_table_size", 3 <= self.log2_table_size <= 28, "3 to 28")
        check("n_features", self.n_features in (1, 2, 4, 8), "1, 2, 4 or 8")
        check("kind", self.kind in ("hash", "tiled", "dense"), '"hash", "tiled" or "dense"')
        check("interpolation", self.interpolation in ("linear", "smoothstep"), '"linear" or "smoothstep"')
        check("n_levels", self.n_entries * self.n_features < 2**31, "a table of fewer than 2^31 numbers")

    @property
    def per_level_scale(self) -> float:
        """Growth b of the resolution from level to level."""
        if self.n_levels == 1:
            return 1.0
        return 2.0 ** (math.log2(self.finest_resolution / self.base_resolution) / (self.n_levels - 1))

    @functools.cached_property
    def level_offsets(self) -> tuple[int, ...]:
        """First entry of each level, and behind the last level the number of entries: L + 1 ints."""
        offsets = [0]
        for level in range(self.n_levels):
            if self.kind == "dense":  # one for each corner, by the resolution of the kernels
                n_slots = self.n_corners(self.level_resolutions[level]) ** self.n_dims
            else:
                resolution = math.ceil(self.base_resolution * self.per_level_scale**level)
                n_slots = min(self.n_corners(resolution) ** self.n_dims, 2**self.log2_table_size)
            offsets.append(offsets[-1] + (n_slots + 7) // 8 * 8)
        return tuple(offsets)

    @property
    def n_entries(self) -> int:
        """Entries of the table, all levels together."""
        return self.level_offsets[-1]

    @property
    def n_outputs(self) -> int:
        """Features of a point, all levels together: L F."""
        return self.n_levels * self.n_features

    def n_corners(self, resolution: int) -> int:
        """Corners along an axis of a level of so many cells: the row length of its index."""
        return resolution if self.align_corners else resolution + 1

    @functools.cached_property
    def level_scales(self) -> tuple[float, ...]:
        """Cells along an axis between the first and last cell centre, per level, rounded as float32.

        The torch-ngp kernels compute exp2(l S) N_0 - 1 in float32, and the row length of a level
        follows from it by a ceiling: rounded another way a level can come out one cell longer, which
        scrambles a trained table.
        """
        growth = _float32(math.log2(self.per_level_scale))
        return tuple(
            _float32(_float32(_float32(2.0 ** _float32(level * growth)) * self.base_resolution) - 1.0)
            for level in range(self.n_levels)
        )

    @property
    def level_resolutions(self) -> tuple[int, ...]:
        """Cells along an axis, per level."""
        return tuple(math.ceil(s) + 1 for s in self.level_scales)


def _float32(x: float) -> float:
    return struct.unpack("f", struct.pack("f", x))[0]
