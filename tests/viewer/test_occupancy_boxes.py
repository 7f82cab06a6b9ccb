"""Boxes of the occupied cells."""

import numpy as np
import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.portrait.config import OccupancyGridConfig
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.viewer.occupancy_boxes import box_edges, draw_boxes, occupied_cells


@pytest.fixture
def grid_of():
    def make(*cells: tuple[int, int, int], resolution: int = 8, bound: float = 1.0) -> OccupancyGrid:
        grid = OccupancyGrid(OccupancyGridConfig(bound=bound, resolution=resolution))
        density = torch.zeros_like(grid.density_grid)
        codes = tk.morton_encode(torch.tensor(cells, dtype=torch.int32).view(-1, 3))
        density[0, codes.long()] = 1.0
        grid.set_bitfield(tk.pack_bits(density, 0.5))
        return grid

    return make


def test_one_cell_has_the_edges_of_a_cube(grid_of):
    edges = box_edges(grid_of((1, 2, 5)))
    low, side = np.array([1, 2, 5]) * 0.25 - 1, 0.25
    assert edges.shape == (12, 2, 3)
    corners = np.unique(edges.reshape(-1, 3), axis=0)
    assert len(corners) == 8
    assert np.allclose(corners.min(0), low) and np.allclose(corners.max(0), low + side)
    assert np.allclose(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1), side)
    assert len({tuple(edge.ravel()) for edge in edges}) == 12


def test_edges_inside_are_left_out(grid_of):
    assert len(box_edges(grid_of((1, 1, 1), (2, 1, 1)))) == 20
    block = [(x, y, z) for x in (2, 3) for y in (2, 3) for z in (2, 3)]
    assert len(box_edges(grid_of(*block))) == 54 - 6  # of a 2 x 2 x 2 lattice, less those that meet in the middle


def test_cells_are_joined_to_boxes(grid_of):
    grid = grid_of((8, 8, 8), (9, 9, 9), resolution=64)
    assert occupied_cells(grid, 0).sum() == 2 and occupied_cells(grid, 0)[9, 9, 9]
    assert len(box_edges(grid)) == 12


def test_cascades_and_empty_grids(grid_of):
    grid = grid_of((0, 0, 0), bound=2.0)
    assert len(grid.density_grid) == 2
    assert box_edges(grid).min() == -1
    assert box_edges(grid_of()).shape == (0, 2, 3)


def test_edges_before_the_camera_are_drawn_where_they_are():
    image = np.zeros((64, 64, 3), np.uint8)
    pose = np.eye(4)
    edges = np.array([[[0.25, -0.25, 1.0], [0.25, 0.25, 1.0]], [[0.0, 0, -1], [0.0, 1, -1]]])
    drawn = draw_boxes(image, edges, pose, (64.0, 64.0, 32.5, 32.5))
    rows, columns = np.nonzero(drawn.sum(-1) > 200)
    assert set(columns) == {48} and (rows.min(), rows.max()) == (16, 48)
    assert not image.any()
    assert not draw_boxes(image, edges[1:], pose, (64.0, 64.0, 32.5, 32.5)).any()
