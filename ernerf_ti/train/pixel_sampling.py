"""Which pixels of a frame are trained on. A pixel is its index, row * width + column."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Rectangle(NamedTuple):
    """Rows and columns of a frame, half-open."""

    row0: int
    row1: int
    column0: int
    column1: int


class RectangleTable(NamedTuple):
    """m rectangles of each of n frames, on the training device."""

    corners: Tensor
    """[n, m, 2] int64 first row and column."""
    sides: Tensor
    """[n, m, 2] float32 number of rows and columns."""


def rectangle_table(rectangles: list[list[Rectangle]], device: torch.device) -> RectangleTable:
    """The table of lists of m rectangles, one list for each frame."""
    edges = torch.tensor(rectangles).view(len(rectangles), -1, 4)
    corners = edges[..., 0::2]
    return RectangleTable(corners.to(device), (edges[..., 1::2] - corners).float().to(device))


def random_pixels(n: int, n_pixels: int, generator: torch.Generator) -> Tensor:
    """[n] pixels, drawn with replacement from a frame of `n_pixels`, on the generator's device."""
    return torch.randint(n_pixels, (n,), generator=generator, device=generator.device)


def random_pixels_in(corners: Tensor, sides: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """[n] pixels, each drawn from a rectangle of its own.

    Args:
        corners: [n, 2] int64 first row and column of the rectangles.
        sides: [n, 2] float32 number of rows and columns, at most 2^20.
        width: of the frame.
        generator: on the device of the rectangles.
    """
    # A float in [0, 1) times the side is rounded to less than the side; the corner is added to the integer, since
    # their sum in float32 could be rounded up to the first row or column outside.
    steps = (torch.rand(sides.shape, generator=generator, device=sides.device) * sides).long()
    rows, columns = (corners + steps).unbind(1)
    return rows * width + columns


def squares_pixels(corners: Tensor, size: int, width: int) -> Tensor:
    """[n size^2] pixels of squares in a frame of a width, square by square, row by row; corners: [n] first pixels."""
    steps = torch.arange(size, device=corners.device)
    return (corners[:, None] + (steps[:, None] * width + steps).flatten()).flatten()


def patch_pixels(n: int, size: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """[n size^2] pixels of n random square patches, patch by patch, row by row.

    Raises ValueError if a patch is larger than the frame.
    """
    if size > min(height, width):
        raise ValueError(
            f"patch size: expected at most {min(height, width)} (the frame's side), got {size}; choose a smaller one"
        )
    device = generator.device
    top = torch.randint(height - size + 1, (n,), generator=generator, device=device)
    left = torch.randint(width - size + 1, (n,), generator=generator, device=device)
    return squares_pixels(top * width + left, size, width)


def with_means_between(values: Tensor, dim: int) -> Tensor:
    """Values with the means of neighbors along a dimension between them: n become 2 n - 1."""
    n = values.shape[dim]
    first, last = values.narrow(dim, 0, n - 1), values.narrow(dim, n - 1, 1)
    means = (first + values.narrow(dim, 1, n - 1)) / 2
    return torch.cat((torch.stack((first, means), dim + 1).flatten(dim, dim + 1), last), dim)


def square_corner(rectangle: Rectangle, size: int, height: int, width: int) -> int:
    """First pixel of the square of a given size around the center of a rectangle, moved into the frame.

    Args:
        rectangle: in the frame.
        size: of the square, at most the height and the width.
        height, width: of the frame.
    """
    row0, row1, column0, column1 = rectangle
    row = min(max(0, (row0 + row1 - size) // 2), height - size)
    column = min(max(0, (column0 + column1 - size) // 2), width - size)
    return row * width + column


def face_rectangle(landmarks: np.ndarray, height: int, width: int) -> Rectangle:
    """The box around all 68 landmarks [68, 2] x, y, clipped to the frame."""
    low, high = landmarks.min(0).astype(int), landmarks.max(0).astype(int)
    return _clip(Rectangle(low[1], high[1], low[0], high[0]), height, width)


def head_rectangle(landmarks: np.ndarray, height: int, width: int) -> Rectangle:
    """The box around all 68 landmarks with room for hair, ears and the outline of the jaw, clipped to the frame."""
    low, high = landmarks.min(0), landmarks.max(0)
    size = high - low
    low, high = low - size * (0.2, 0.65), high + size * (0.2, 0.12)
    return _clip(Rectangle(low[1], high[1], low[0], high[0]), height, width)


def lips_rectangle(landmarks: np.ndarray, height: int, width: int) -> Rectangle:
    """The square around the outer lips (landmarks 48 to 59), clipped to the frame."""
    low, high = landmarks[48:60].min(0).astype(int), landmarks[48:60].max(0).astype(int)
    center, half = (low + high) // 2, max(1, int((high - low).max()) // 2)
    return _clip(Rectangle(center[1] - half, center[1] + half, center[0] - half, center[0] + half), height, width)


def eyes_rectangle(landmarks: np.ndarray, height: int, width: int) -> Rectangle:
    """The box around both eyes (landmarks 36 to 47) and their lids, clipped to the frame."""
    return _with_lids(landmarks[36:48], landmarks, height, width)


def eye_rectangle(landmarks: np.ndarray, eye: int, height: int, width: int) -> Rectangle:
    """The box around an eye, 0 or 1 (landmarks 36 to 41 or 42 to 47), and its lids, clipped to the frame."""
    return _with_lids(landmarks[36 + 6 * eye : 42 + 6 * eye], landmarks, height, width)


def _with_lids(points: np.ndarray, landmarks: np.ndarray, height: int, width: int) -> Rectangle:
    margin = (landmarks[36:48, 0].max() - landmarks[36:48, 0].min()) / 10
    low, high = (points.min(0) - margin).astype(int), (points.max(0) + margin).astype(int) + 1
    return _clip(Rectangle(low[1], high[1], low[0], high[0]), height, width)


def _clip(rectangle: Rectangle, height: int, width: int) -> Rectangle:
    row0, row1, column0, column1 = (int(edge) for edge in rectangle)
    row0, column0 = min(max(0, row0), height - 1), min(max(0, column0), width - 1)
    return Rectangle(row0, max(row0 + 1, min(height, row1)), column0, max(column0 + 1, min(width, column1)))
