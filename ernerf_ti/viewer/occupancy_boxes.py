"""Occupied cells of the scene, drawn as boxes."""

import cv2
import numpy as np
import torch

import taichi_kernels as tk
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.viewer.camera_control import Intrinsics

_BOXES_PER_AXIS = 32
_NEAREST = 0.05  # scene units in front of the camera; edges that come closer are left out
_SHADES = 8
_NEAR_COLOR, _FAR_COLOR = np.array([255, 214, 92]), np.array([70, 84, 160])


@torch.no_grad()
def box_edges(grid: OccupancyGrid) -> np.ndarray:
    """Edges on the surface of the occupied boxes.

    Cells are merged into boxes, at most 32 along an axis; a box is occupied if one of its cells is.

    Args:
        grid: occupancy grid of the head.

    Returns:
        [n, 2, 3] float32 end points, scene units.
    """
    n = min(grid.config.resolution, _BOXES_PER_AXIS)
    per_box = grid.config.resolution // n
    edges = []
    for cascade in range(len(grid.density_grid)):
        cells = occupied_cells(grid, cascade).reshape(n, per_box, n, per_box, n, per_box)
        boxes = np.any(cells, (1, 3, 5))
        half_side = min(2.0**cascade, grid.config.bound)
        edges += [ends * (2 * half_side / n) - half_side for ends in _edges_of(boxes)]
    return np.concatenate(edges).astype(np.float32)


def occupied_cells(grid: OccupancyGrid, cascade: int) -> np.ndarray:
    """[R, R, R] bool of a cascade, indexed by x, y and z."""
    n = grid.config.resolution
    bitfield = grid.bitfield.view(len(grid.density_grid), -1)[cascade]
    bits = torch.arange(8, dtype=torch.uint8, device=bitfield.device)
    codes = ((bitfield[:, None] >> bits) & 1).flatten().nonzero()[:, 0].int()
    occupied = np.zeros((n, n, n), bool)
    if len(codes):
        occupied[tuple(tk.morton_decode(codes).cpu().numpy().T)] = True
    return occupied


def draw_boxes(
    image: np.ndarray, edges: np.ndarray, pose_world_from_camera: np.ndarray, intrinsics: Intrinsics
) -> np.ndarray:
    """Draw edges over an image, near ones last and brightest.

    Args:
        image: [H, W, 3] uint8.
        edges: [n, 2, 3] end points, scene units.
        pose_world_from_camera: [4, 4].
        intrinsics: fx, fy, cx, cy in pixels.

    Returns:
        A new image.
    """
    drawn = np.ascontiguousarray(image).copy()
    points = (edges - pose_world_from_camera[:3, 3]) @ pose_world_from_camera[:3, :3]
    points = points[(points[..., 2] > _NEAREST).all(1)]
    if not len(points):
        return drawn
    depth = points[..., 2].mean(1)
    fx, fy, cx, cy = intrinsics
    fraction_bits = 4
    pixels = points[..., :2] / points[..., 2:] * (fx, fy) + (cx - 0.5, cy - 0.5)
    pixels = np.clip(pixels * 2**fraction_bits, -(2**20), 2**20).astype(np.int32)
    relative = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-6)
    shade = np.minimum((relative * _SHADES).astype(int), _SHADES - 1)
    for k in reversed(range(_SHADES)):
        color = _NEAR_COLOR + (_FAR_COLOR - _NEAR_COLOR) * (k / (_SHADES - 1))
        lines = list(pixels[shade == k])
        if lines:
            cv2.polylines(drawn, lines, False, tuple(map(int, color)), 1, cv2.LINE_AA, fraction_bits)
    return drawn


def _edges_of(occupied: np.ndarray) -> list[np.ndarray]:
    """[n, 2, 3] end points in cells along each axis, of edges that touch some but not all of their four cells."""
    result = []
    for axis in range(3):
        along = np.moveaxis(occupied, axis, 0)
        padded = np.pad(along, ((0, 0), (1, 1), (1, 1))).astype(np.int8)
        touching = padded[:, 1:, 1:] + padded[:, :-1, 1:] + padded[:, 1:, :-1] + padded[:, :-1, :-1]
        begin = np.argwhere((touching > 0) & (touching < 4))
        ends = np.stack((begin, begin + (1, 0, 0)), 1)
        result.append(np.insert(ends[..., 1:], axis, ends[..., 0], axis=2))  # x, y, z again
    return result
