"""Features of a 3-D position: four encoders behind one interface.

An encoder has `n_outputs` and maps positions [M, 3] in [-bound, bound], scene units, to [M, n_outputs].
Outside of the box the features are finite but meaningless. All are differentiable in the positions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.portrait.config import (
    FrequencyConfig,
    HashGridConfig,
    PlainTriplaneConfig,
    PositionEncoderConfig,
    TriplaneHashConfig,
)
from ernerf_ti.portrait.model.mlp import MLP

Encode = Callable[[Tensor, Tensor], Tensor]
"""Positions [M, 3], memory for the result -> features."""
EncodeInCells = Callable[[Tensor], Callable[[slice], Tensor]]
"""Positions [M, 3] -> a part of the M -> its features [m, n_outputs]."""
_TILES_PER_FINEST = 4  # corners of tiles for each of the finest level: half as many change moving pixels by 5 dB more
_MOST_IN_TILES = 2**25  # numbers: 134 MB


class PositionEncoder(nn.Module):
    """Features of positions: [M, 3] -> [M, n_outputs]."""

    n_outputs: int

    def for_images(self) -> Encode:
        """The encoder with the weights that it has now, as fast as it can be had without gradients.

        Returns:
            Positions [M, 3] in the box, and memory of at least M n_outputs numbers that may hold the result -> the
            features of a call, up to rounding.
        """
        return lambda positions, memory: self(positions.contiguous())

    def for_cells(self, cells: Tensor, bound: float) -> EncodeInCells | None:
        """The encoder with the weights that it has now, for positions in some cells, with a small error.

        Args:
            cells: [R, R, R] bool by x, y, z.
            bound: half side of the cells' cube, scene units.

        Returns:
            Positions [M, 3] in these cells -> features; None if that is not faster.
        """
        return None


class TriplaneHash(PositionEncoder):
    """See :class:`TriplaneHashConfig`."""

    def __init__(self, config: TriplaneHashConfig, bound: float):
        super().__init__()
        grid = tk.GridConfig(
            2,
            config.n_levels,
            config.base_resolution,
            _finest(config, bound),
            config.log2_table_size,
            config.n_features,
        )
        self.encoding = tk.TriplaneEncoding(grid, bound)
        self.n_outputs = 3 * grid.n_outputs
        self._images = tk.ImagesOfTables(grid, tk.PLANES, bound)
        self._tiles: tuple[Tensor, Tensor, tk.PlaneTiles | None] | None = None
        """The last ones, with their cells and tables."""

    def forward(self, positions: Tensor) -> Tensor:
        """[M, 3] -> [M, 3 L F], planes xy, yz, xz."""
        return self.encoding(positions)

    def for_images(self) -> Encode:
        images = self._images.of(self.encoding.tables)
        if images is None:
            return super().for_images()
        return lambda positions, memory: images(
            positions, memory[: self.n_outputs * len(positions)].view(self.n_outputs, len(positions))
        )

    @torch.no_grad()
    def for_cells(self, cells: Tensor, bound: float) -> EncodeInCells | None:
        made, tables = self._tiles, self.encoding.tables
        if made is None or made[0] is not cells or not torch.equal(made[1], tables):
            finest = max(self.encoding.config.level_scales) * bound / self.encoding.bound
            n_corners = math.ceil(_TILES_PER_FINEST * finest / len(cells)) + 1
            tiles = tk.PlaneTiles.of(self, cells, n_corners, bound, _MOST_IN_TILES)
            made = self._tiles = cells, tables.detach().clone(), tiles
        tiles = made[2]
        if tiles is None:
            return None

        def encode(positions: Tensor) -> Callable[[slice], Tensor]:
            corners = tiles.place(positions, bound)
            return lambda part: tiles.interpolate(corners.part(part))

        return encode


class HashGrid(PositionEncoder):
    """See :class:`HashGridConfig`."""

    def __init__(self, config: HashGridConfig, bound: float):
        super().__init__()
        grid = tk.GridConfig(
            3,
            config.n_levels,
            config.base_resolution,
            _finest(config, bound),
            config.log2_table_size,
            config.n_features,
        )
        self.encoding = tk.GridEncoding(grid, bound)
        self.n_outputs = grid.n_outputs

    def forward(self, positions: Tensor) -> Tensor:
        """[M, 3] -> [M, L F]."""
        return self.encoding(positions)


class PlainTriplane(PositionEncoder):
    """See :class:`PlainTriplaneConfig`."""

    _FEATURES_PER_ENTRY = 8  # per grid look-up

    def __init__(self, config: PlainTriplaneConfig, bound: float):
        super().__init__()
        if config.n_features < 8 or config.n_features % self._FEATURES_PER_ENTRY:
            raise ValueError(
                f"PlainTriplaneConfig.n_features: expected a multiple of {self._FEATURES_PER_ENTRY}, "
                f"got {config.n_features}; change the field"
            )
        # Levels of equal resolution, with eight of the features each.
        n_levels = config.n_features // self._FEATURES_PER_ENTRY
        grid = tk.GridConfig(
            2, n_levels, config.resolution, config.resolution, n_features=self._FEATURES_PER_ENTRY, kind="dense"
        )
        self.encoding = tk.TriplaneEncoding(grid, bound)
        # Features of a hash grid start near zero because there are many levels; this is one.
        nn.init.normal_(self.encoding.tables, std=0.1)
        self.n_outputs = config.n_features

    def forward(self, positions: Tensor) -> Tensor:
        """[M, 3] -> [M, n_features], the sum of the three planes."""
        return self.encoding(positions).t().view(3, self.n_outputs, -1).sum(0).t()


class Frequency(PositionEncoder):
    """See :class:`FrequencyConfig`."""

    def __init__(self, config: FrequencyConfig, bound: float):
        super().__init__()
        self.bound = bound
        self.n_octaves = config.n_octaves
        self.network = MLP(3 * (1 + 2 * config.n_octaves), config.width, config.n_features, config.n_layers)
        self.n_outputs = config.n_features

    def forward(self, positions: Tensor) -> Tensor:
        """[M, 3] -> [M, n_features]."""
        # Half a period across the box at the lowest frequency, so that no two positions share all features.
        angles = positions * (torch.pi / 2 / self.bound)
        return self.network(tk.frequency_encode(angles, self.n_octaves))


POSITION_ENCODERS: dict[str, type[PositionEncoderConfig]] = {
    "triplane_hash": TriplaneHashConfig,
    "hash_grid": HashGridConfig,
    "plain_triplane": PlainTriplaneConfig,
    "frequency": FrequencyConfig,
}
"""Configurations of the encoders by name."""

_MODULES: dict[type, Callable[..., PositionEncoder]] = {
    TriplaneHashConfig: TriplaneHash,
    HashGridConfig: HashGrid,
    PlainTriplaneConfig: PlainTriplane,
    FrequencyConfig: Frequency,
}


def position_encoder(config: PositionEncoderConfig, bound: float) -> PositionEncoder:
    """Construct the encoder of a configuration.

    Args:
        config: one of the four records.
        bound: half the side length of the scene cube, scene units.

    Raises ValueError for anything else.
    """
    if type(config) not in _MODULES:
        names = ", ".join(c.__name__ for c in _MODULES)
        raise ValueError(f"config: expected one of {names}, got {type(config).__name__}; pass one of these")
    return _MODULES[type(config)](config, bound)


def _finest(config: TriplaneHashConfig | HashGridConfig, bound: float) -> int:
    return round(config.finest_resolution * bound) if config.n_levels > 1 else config.base_resolution
