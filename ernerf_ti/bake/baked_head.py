"""The stored part of a baked head: cells, densities and colors at their corners."""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taichi_kernels.baked_grid import EMPTY, FIRST_ROW, UNKNOWN
from taichi_kernels.pixel_tiles import occupied_blocks

FORMAT_VERSION = 2  # version 1 also had the box around the cells, which nothing reads any more

_DAMAGED = "the file is damaged, bake the run again"


@dataclass(frozen=True)
class BakedHead:
    """What a file of a baked portrait holds besides the run: K rows of corners, the K' static ones first."""

    cells: Tensor
    """[R, R, R] int32 codes of cells, see :data:`taichi_kernels.baked_grid.FIRST_ROW`."""
    log_densities: Tensor
    """[K, S, S, S] float16."""
    colors: Tensor
    """[K', S, S, S, B, 3] uint8."""
    color_lows: Tensor
    """[B, 3] of the coefficients that the colors' 0 stands for."""
    color_steps: Tensor
    """[B, 3] of the coefficients, between two values of the colors."""
    camera_mean: Tensor
    """[3] mean position of the cameras, scene."""
    camera_axes: Tensor
    """[B - 1, 3] directions in which the position of the camera changes colors, divided by its standard deviation."""
    camera_reach: Tensor
    """[B - 1] largest deviation along the axes in the capture; beyond it colors do not change."""

    @property
    def n_bases(self) -> int:
        """B, coefficients per color: 1 for colors that depend on the position alone."""
        return self.colors.shape[4]

    @cached_property
    def densities_for_rendering(self) -> Tensor:
        """[K, S, S, S] float32."""
        return self.log_densities.float()

    @cached_property
    def blocks(self) -> Tensor:
        """[n, 3] int32 blocks of cells that are not empty."""
        return occupied_blocks(self.cells > EMPTY)

    @cached_property
    def dynamic(self) -> Tensor:
        """[R, R, R] bool, cells whose samples the networks are evaluated for."""
        has_row = self.cells >= FIRST_ROW
        return (self.cells == UNKNOWN) | has_row & ((self.cells - FIRST_ROW) & 1 == 1)

    def color_transform(self, camera: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [B, 3] and offset [3] that make colors of the stored values, for a camera at [3]."""
        reach = self.camera_reach
        place = (self.camera_axes @ (camera - self.camera_mean)).clamp(-reach, reach)
        basis = torch.cat((place.new_ones(1), place))[:, None]
        return (basis * self.color_steps).contiguous(), (basis * self.color_lows).sum(0)

    def state(self) -> dict[str, Any]:
        """Entries of the file."""
        # Cloned: of a view the whole tensor behind it would be written.
        return {"format_version": FORMAT_VERSION} | {f.name: getattr(self, f.name).clone() for f in fields(self)}

    @staticmethod
    def from_state(state: Any, resolution: int, path: Path) -> "BakedHead":
        """Read what :meth:`state` returned.

        Args:
            state: the entry of the file.
            resolution: of the portrait's occupancy grid.
            path: of the file, for messages.

        Raises ValueError, naming the first difference, for anything else.
        """
        version = state.get("format_version") if isinstance(state, dict) else None
        if version not in (1, FORMAT_VERSION):
            raise ValueError(
                f"{path}: expected a baked head of format_version 1 to {FORMAT_VERSION}, got {str(version)[:40]}; "
                "use the version of ernerf-ti that wrote it"
            )
        sizes: dict[str, int] = {"R": resolution}
        values = {}
        for name, (dtype, shape) in _SHAPES.items():
            tensor = state.get(name)
            got = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tensor.dim() != len(shape):
                raise ValueError(f"{path}: expected {name} of the baked head as {dtype}, got {got}; {_DAMAGED}")
            for symbol, n in zip(shape, tensor.shape, strict=True):
                expected = sizes.setdefault(symbol, n) if isinstance(symbol, str) else symbol
                if n != expected:
                    raise ValueError(f"{path}: expected {name} of the baked head to fit, got {got}; {_DAMAGED}")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{path}: expected finite numbers in {name} of the baked head; {_DAMAGED}")
            values[name] = tensor.contiguous()
        n_static, n_rows = sizes["K'"], sizes["K"]
        rows, cells = (values["cells"] - FIRST_ROW) >> 1, values["cells"]
        is_static = (cells >= FIRST_ROW) & ((cells - FIRST_ROW) & 1 == 0)
        cells_fit = bool((cells > -sizes["R"]).all())
        fits = cells_fit and sizes["S"] >= 2 and sizes["B"] == sizes["A"] + 1 and n_static <= n_rows
        if not fits or bool((rows >= torch.where(is_static, n_static, n_rows)).any()):
            raise ValueError(f"{path}: expected cells of the baked head with rows that it has; {_DAMAGED}")
        return BakedHead(**values)


_SHAPES: dict[str, tuple[torch.dtype, tuple[str | int, ...]]] = {
    "cells": (torch.int32, ("R", "R", "R")),
    "log_densities": (torch.float16, ("K", "S", "S", "S")),
    "colors": (torch.uint8, ("K'", "S", "S", "S", "B", 3)),
    "color_lows": (torch.float32, ("B", 3)),
    "color_steps": (torch.float32, ("B", 3)),
    "camera_mean": (torch.float32, (3,)),
    "camera_axes": (torch.float32, ("A", 3)),
    "camera_reach": (torch.float32, ("A",)),
}
