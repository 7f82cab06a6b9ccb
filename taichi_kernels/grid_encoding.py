"""Multiresolution grid encoding: features of a point, interpolated from tables at several resolutions.

Each level lays a grid over the box and blends the 2^D entries at the corners of the cell that holds
the point; the features of all levels are concatenated [Instant-NGP, Mueller et al. 2022]. Coarse
levels have an entry for every corner. A level with more corners than its table has entries shares
them: by a spatial hash ("hash"), or by wrapping the row-major index around ("tiled"). Grids of the
kind "dense" have no limit.

Memory layout: a table is [n_entries, F], the levels one after the other; an output is [N, L F],
level-major, and in memory the transpose of that (channel-major), which is what the kernels write
fastest and matrix products take as well.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, dense, expect
from taichi_kernels.grid_config import GridConfig
from taichi_kernels.grid_kernels import MAX_DIMS, NO_MASK, GridKernels, grid_kernels
from taichi_kernels.operators import Operator, not_differentiable
from taichi_kernels.runtime import is_cuda, launch

HASH_PRIMES = (1, 2654435761, 805459861, 3674653429)  # Instant-NGP, section 3; the fourth is torch-ngp's
TABLE_DTYPES = (torch.float32, torch.float64, torch.float16)


class GridEncoding(nn.Module):
    """A multiresolution grid with its table; see :func:`grid_encode`.

    Args:
        config: shape of the grid.
        bound: the grid covers [-bound, bound] along each axis, in world units.
    """

    def __init__(self, config: GridConfig, bound: float = 1.0):
        super().__init__()
        self.config = config
        self.bound = bound
        self.table = nn.Parameter(torch.empty(config.n_entries, config.n_features).uniform_(-1e-4, 1e-4))

    def forward(self, positions: Tensor) -> Tensor:
        """[N, D] positions -> [N, L F] features."""
        return grid_encode(positions, self.table, self.config, self.bound)

    def extra_repr(self) -> str:
        return f"{self.config}, bound={self.bound}"


def grid_encode(positions: Tensor, table: Tensor, config: GridConfig, bound: float = 1.0) -> Tensor:
    """Interpolated features of points in a multiresolution grid.

    A point outside [-bound, bound] along any axis has zero features and zero gradients.

    Args:
        positions: [N, D] float32 or float64, world units.
        table: [n_entries, F] of the same dtype, or float16 with float32 positions.
        config: shape of the grid.
        bound: half side of the box that the grid covers, in world units.

    Returns:
        [N, L F] in the dtype of the table, level-major; the memory is channel-major.

    Differentiable twice in the table and in the positions, away from the faces of cells, where the
    features have kinks: a loss on their derivative with respect to the positions (eikonal, smoothness) has
    the right gradients. With linear interpolation the second derivative along one axis is zero inside a
    cell; use "smoothstep" if positions have to follow such a loss. On the CPU the table's gradient is
    bitwise reproducible; on CUDA it is summed by atomics in any order. Under
    `torch.use_deterministic_algorithms(True)` it is reproducible there too, and independent of the order of the points:
    it is summed in integers, whose unit is less than 2^-40 of the largest upstream gradient for up to a million points,
    and all of it is NaN if an upstream gradient is not finite. It is summed in float32 for a float16 table.

    Raises ValueError if an argument is not as above, and RuntimeError for a third derivative.
    """
    positions, table = cast_under_autocast(positions), cast_under_autocast(table, half_allowed=True)
    check = ArgumentCheck()
    check.tensor("positions", positions, ("N", config.n_dims), FLOATS)
    check.tensor("table", table, (config.n_entries, config.n_features), TABLE_DTYPES)
    return encode_planes(_GRID_ENCODE, positions, table, config, (tuple(range(config.n_dims)),), bound)


def encode_planes(
    operator: Operator,
    positions: Tensor,
    tables: Tensor,
    config: GridConfig,
    planes: tuple[tuple[int, ...], ...],
    bound: float,
) -> Tensor:
    """Features of points in one grid per entry of `planes`, all of the shape `config`, in one launch.

    Args:
        operator: one made by :func:`encoding_operator`.
        positions: [N, n] with the shape checked.
        tables: the grids' tables one after the other, with the shape checked.
        config: shape of each grid.
        planes: the axes of the positions that each grid sees.
        bound: half side of the box.
    """
    expect(bound > 0, "bound", "a positive number", bound, "pass the half side of the box")
    expect(
        positions.dtype == tables.dtype or (positions.dtype == torch.float32 and tables.dtype == torch.float16),
        "positions",
        f"the dtype of the table, {tables.dtype}, or float32 for a float16 table",
        positions.dtype,
        "convert one of them",
    )
    axes = tuple(axis for plane in planes for axis in plane)
    features: Tensor = operator(
        *(positions, tables, config.n_dims, axes, config.level_offsets, config.level_scales),
        *(config.n_features, config.kind, config.interpolation, config.align_corners, float(bound)),
    )
    return features


_GRIDS_SCHEMA = (
    "int n_dims, int[] axes, int[] level_offsets, float[] level_scales, int n_features, str kind, str interpolation, "
    "bool align_corners, float bound"
)


class _Grids(NamedTuple):
    """What a :class:`GridConfig` comes down to, in the types that an operator takes."""

    n_dims: int
    axes: tuple[int, ...]
    """Of the positions, n_dims for each grid."""
    level_offsets: tuple[int, ...]
    level_scales: tuple[float, ...]
    n_features: int
    kind: str
    interpolation: str
    align_corners: bool
    bound: float


def _grids(arguments: tuple[Any, ...]) -> _Grids:
    n_dims, axes, offsets, scales, *others = arguments  # lists if they come through the dispatcher
    return _Grids(n_dims, tuple(axes), tuple(offsets), tuple(scales), *others)


class _LevelTensors(NamedTuple):
    rows: Tensor
    """[L INTS_PER_LEVEL + grids n_dims] int32: of the levels, then the axes."""
    scales: Tensor
    """[L]"""


@functools.lru_cache(maxsize=64)
def _level_tensors(grids: _Grids, dtype: torch.dtype, device: torch.device) -> _LevelTensors:
    """What the kernels need to know about each level."""
    rows = list[int]()
    for level, scale in enumerate(grids.level_scales):
        first, end = grids.level_offsets[level : level + 2]
        n_slots = end - first
        n_corners = math.ceil(scale) + (1 if grids.align_corners else 2)
        strides, is_hashed = level_strides(grids.n_dims, n_corners, n_slots, grids.kind)
        factors = HASH_PRIMES[: grids.n_dims] if is_hashed else strides
        is_power_of_two = n_slots & (n_slots - 1) == 0
        unused = [0] * (MAX_DIMS - grids.n_dims)
        mask = n_slots - 1 if is_power_of_two else NO_MASK
        rows += [first, n_slots, mask, is_hashed, *(_int32(f) for f in factors), *unused]
    return _LevelTensors(
        torch.tensor([*rows, *grids.axes], dtype=torch.int32, device=device),
        torch.tensor(grids.level_scales, dtype=dtype, device=device),
    )


def level_strides(n_dims: int, n_corners: int, n_slots: int, kind: str) -> tuple[list[int], bool]:
    """Row-major strides of a level, 0 for coordinates that its index leaves out, and True if it hashes.

    As in torch-ngp a coordinate is left out once the stride exceeds the table, and the strides wrap
    in 32 bits.

    Args:
        n_dims: of the grid.
        n_corners: along an axis.
        n_slots: entries of the level.
        kind: as in :class:`GridConfig`.
    """
    strides, stride = [0] * n_dims, 1
    for d in range(n_dims):
        if stride > n_slots:
            break
        strides[d] = stride
        stride = stride * n_corners % 2**32
    return strides, kind == "hash" and stride > n_slots


def _int32(x: int) -> int:
    """The signed 32-bit integer with the bits of the unsigned `x`."""
    return x - 2**32 if x >= 2**31 else x


def _kernels(
    grids: _Grids, dtype: torch.dtype, table_dtype: torch.dtype, along: bool, fixed_point: bool = False
) -> GridKernels:
    return grid_kernels(
        *(grids.n_dims, _n_planes(grids) if is_cuda() else 1, grids.n_features, grids.interpolation),
        *(grids.align_corners, dtype, table_dtype, along, is_cuda(), fixed_point),
    )


def _n_planes(grids: _Grids) -> int:
    return len(grids.axes) // grids.n_dims


def _sizes(positions: Tensor, grids: _Grids) -> tuple[int, int, int, int, int, float, float]:
    """The numbers that all kernels take, from the number of points on."""
    n, n_axes = positions.shape
    n_levels, n_entries = len(grids.level_scales), grids.level_offsets[-1]
    inverse_extent = _inverse_extent(grids.bound, positions.dtype)
    return n, _n_planes(grids), n_levels, n_entries, n_axes, grids.bound, inverse_extent


@functools.lru_cache
def _inverse_extent(bound: float, dtype: torch.dtype) -> float:
    """1 / (2 bound), rounded so that the upper face of the box does not come to lie outside of it."""
    one = torch.ones((), dtype=dtype, device="cpu")
    extent = 2 * (one * bound)
    inverse = one * (0.5 / bound)
    while extent * inverse > 1:
        inverse = torch.nextafter(inverse, torch.zeros_like(inverse))
    return float(inverse)


def _points(positions: Tensor, tangents: Tensor | None) -> Tensor:
    return positions if tangents is None else torch.cat((positions, tangents), 1)


def _gradient_layout(grad_features: Tensor) -> tuple[Tensor, int, int]:
    """Upstream gradients as kernels read them, and the strides of points and of channels."""
    # On the CPU a transposition costs as much as the scatter itself, so row-major gradients are read
    # where they lie; on CUDA neighboring threads would then read far apart.
    n, n_channels = grad_features.shape
    if is_cuda() or grad_features.stride() == (1, n):
        return dense(grad_features.t()), 1, n
    return dense(grad_features), n_channels, 1


def _encode(positions: Tensor, tables: Tensor, grids: _Grids, tangents: Tensor | None = None) -> Tensor:
    levels = _level_tensors(grids, positions.dtype, positions.device)
    features = _empty_features(positions, tables, grids)
    launch(
        _kernels(grids, positions.dtype, tables.dtype, tangents is not None).encode,
        *(_points(positions, tangents), tables, *levels, *_sizes(positions, grids)),
        features.t(),
    )
    return features


def _grad_tables(
    positions: Tensor,
    grad_features: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    grids: _Grids,
    tangents: Tensor | None = None,
) -> Tensor:
    levels = _level_tensors(grids, positions.dtype, positions.device)
    fixed_point = len(positions) > 0 and is_cuda() and torch.are_deterministic_algorithms_enabled()
    if fixed_point:
        grad_features = grad_features.to(positions.dtype)
        unit = _fixed_point_unit(grad_features, grids, tangents)
        grad_features = grad_features / unit
    grad_features, point_stride, channel_stride = _gradient_layout(grad_features)
    grad_tables = positions.new_zeros(shape, dtype=torch.int64 if fixed_point else None)
    # On the CPU a group of levels to each task: more groups than threads, to even out the load.
    n_groups = min(_n_planes(grids) * len(grids.level_scales), 2 * torch.get_num_threads())
    launch(
        _kernels(grids, positions.dtype, grad_features.dtype, tangents is not None, fixed_point).grad_table,
        *(_points(positions, tangents), grad_features, *levels, *_sizes(positions, grids)),
        *(point_stride, channel_stride, n_groups),
        grad_tables,
    )
    if fixed_point:
        grad_tables = grad_tables.to(positions.dtype) * unit
    return grad_tables.to(dtype)


def _fixed_point_unit(grad_features: Tensor, grids: _Grids, tangents: Tensor | None) -> Tensor:
    """The power of two [] whose multiples a table's gradients are summed as: 63 bits hold all sums.

    NaN if a gradient or tangent is not finite. Found on the device, without a wait.
    """
    largest = grad_features.abs().amax()
    if tangents is not None:
        # The weights of a point's corners sum to 1, their slopes to at most 3 for each axis, along which the point
        # moves by so many cells.
        cells = tangents.abs().amax() * (0.5 / grids.bound * max(grids.level_scales))
        largest = largest * (3 * grids.n_dims * cells).clamp(min=1)
    smallest = torch.finfo(largest.dtype).tiny
    largest = largest.clamp(min=smallest)
    mantissa, _ = torch.frexp(largest)  # largest / mantissa is a power of two, exactly
    n_points = grad_features.shape[0]
    return (largest / mantissa * 2.0 ** (n_points.bit_length() - 62)).clamp(min=smallest)


def _grad_positions(
    positions: Tensor, tables: Tensor, grad_features: Tensor, grids: _Grids, tangents: Tensor | None = None
) -> Tensor:
    levels = _level_tensors(grids, positions.dtype, positions.device)
    grad_features, point_stride, channel_stride = _gradient_layout(grad_features)
    grad_positions = torch.zeros_like(positions)
    launch(
        _kernels(grids, positions.dtype, tables.dtype, tangents is not None).grad_positions,
        *(_points(positions, tangents), tables, grad_features, *levels, *_sizes(positions, grids)),
        *(point_stride, channel_stride),
        grad_positions,
    )
    return grad_positions


def _empty_features(positions: Tensor, tables: Tensor, grids: _Grids) -> Tensor:
    n_channels = _n_planes(grids) * len(grids.level_scales) * grids.n_features
    return tables.new_empty(n_channels, positions.shape[0]).t()


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    positions, tables, *ctx.grids = inputs
    ctx.save_for_backward(positions, tables)


def _backward(ctx: Any, grad_features: Tensor) -> tuple[Tensor | None, ...]:
    positions, tables = ctx.saved_tensors
    grad_positions = grad_tables = None
    if ctx.needs_input_grad[0]:
        grad_positions = _GRAD_POSITIONS(positions, tables, grad_features, *ctx.grids)
    if ctx.needs_input_grad[1]:
        grad_tables = _GRAD_TABLES(positions, grad_features, tables.shape, tables.dtype, *ctx.grids)
    return grad_positions, grad_tables, *_no_gradients(ctx)


def _setup_positions_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    positions, tables, grad_features, *ctx.grids = inputs
    ctx.save_for_backward(positions, tables, grad_features)


def _positions_backward(ctx: Any, tangents: Tensor) -> tuple[Tensor | None, ...]:
    positions, tables, grad_features = ctx.saved_tensors
    to_positions = to_tables = to_grad_features = None
    if ctx.needs_input_grad[0]:
        to_positions = _GRAD_POSITIONS_ALONG(positions, tables, grad_features, tangents, *ctx.grids)
    if ctx.needs_input_grad[1]:
        to_tables = _GRAD_TABLES_ALONG(positions, grad_features, tangents, tables.shape, tables.dtype, *ctx.grids)
    if ctx.needs_input_grad[2]:
        to_grad_features = _ENCODE_ALONG(positions, tables, tangents, *ctx.grids)
    return to_positions, to_tables, to_grad_features, *_no_gradients(ctx)


def _setup_tables_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    positions, grad_features, _, _, *ctx.grids = inputs
    ctx.save_for_backward(positions, grad_features)


def _tables_backward(ctx: Any, grad_grad_tables: Tensor) -> tuple[Tensor | None, ...]:
    positions, grad_features = ctx.saved_tensors
    grad_grad_tables = dense(grad_grad_tables)
    to_positions = to_grad_features = None
    if ctx.needs_input_grad[0]:
        to_positions = _GRAD_POSITIONS(positions, grad_grad_tables, grad_features, *ctx.grids)
    if ctx.needs_input_grad[1]:
        to_grad_features = _GRID_ENCODE(positions, grad_grad_tables, *ctx.grids)
    return to_positions, to_grad_features, None, None, *_no_gradients(ctx)


def _no_gradients(ctx: Any) -> list[None]:
    return [None] * len(ctx.grids)


def encoding_operator(name: str, tables: str) -> Operator:
    """The operator `name` that encodes positions by grids, its second argument called `tables`."""
    return Operator(
        f"{name}(Tensor positions, Tensor {tables}, {_GRIDS_SCHEMA}) -> Tensor",
        lambda positions, tables, *grids: _encode(positions, tables, _grids(grids)),
        lambda positions, tables, *grids: _empty_features(positions, tables, _grids(grids)),
        _setup_context,
        _backward,
        half_allowed=(tables,),
    )


_GRID_ENCODE = encoding_operator("grid_encode", "table")
_GRAD_POSITIONS = Operator(
    f"grid_grad_positions(Tensor positions, Tensor tables, Tensor grad_features, {_GRIDS_SCHEMA}) -> Tensor",
    lambda positions, tables, grad_features, *grids: _grad_positions(positions, tables, grad_features, _grids(grids)),
    lambda positions, *others: torch.empty_like(positions),
    _setup_positions_context,
    _positions_backward,
    half_allowed=("tables", "grad_features"),
)
_GRAD_TABLES = Operator(
    f"grid_grad_tables(Tensor positions, Tensor grad_features, int[] shape, ScalarType dtype, {_GRIDS_SCHEMA})"
    " -> Tensor",
    lambda positions, grad_features, shape, dtype, *grids: _grad_tables(
        positions, grad_features, shape, dtype, _grids(grids)
    ),
    lambda positions, grad_features, shape, dtype, *grids: positions.new_empty(shape, dtype=dtype),
    _setup_tables_context,
    _tables_backward,
    half_allowed=("grad_features",),
)
_ENCODE_ALONG = Operator(
    f"grid_encode_along(Tensor positions, Tensor tables, Tensor grad_tangents, {_GRIDS_SCHEMA}) -> Tensor",
    lambda positions, tables, tangents, *grids: _encode(positions, tables, _grids(grids), tangents),
    lambda positions, tables, tangents, *grids: _empty_features(positions, tables, _grids(grids)),
    backward=not_differentiable("grid_encode"),
    half_allowed=("tables",),
)
_GRAD_POSITIONS_ALONG = Operator(
    "grid_grad_positions_along(Tensor positions, Tensor tables, Tensor grad_features, Tensor grad_tangents, "
    f"{_GRIDS_SCHEMA}) -> Tensor",
    lambda positions, tables, grad_features, tangents, *grids: _grad_positions(
        positions, tables, grad_features, _grids(grids), tangents
    ),
    lambda positions, *others: torch.empty_like(positions),
    backward=not_differentiable("grid_encode"),
    half_allowed=("tables", "grad_features"),
)
_GRAD_TABLES_ALONG = Operator(
    "grid_grad_tables_along(Tensor positions, Tensor grad_features, Tensor grad_tangents, int[] shape, "
    f"ScalarType dtype, {_GRIDS_SCHEMA}) -> Tensor",
    lambda positions, grad_features, tangents, shape, dtype, *grids: _grad_tables(
        positions, grad_features, shape, dtype, _grids(grids), tangents
    ),
    lambda positions, grad_features, tangents, shape, dtype, *grids: positions.new_empty(shape, dtype=dtype),
    backward=not_differentiable("grid_encode"),
    half_allowed=("grad_features",),
)
