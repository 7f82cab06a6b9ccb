"""Sampling of training pixels: at random, in patches, or all pixels of a rectangle."""

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


def random_pixels(n: int, rectangle: Rectangle, generator: torch.Generator) -> Tensor:
    """[n, 2] rows and columns, drawn with replacement from a rectangle."""
    row0, row1, column0, column1 = rectangle
    ids = torch.randint((row1 - row0) * (column1 - column0), (n,), generator=generator)
    return torch.stack((row0 + ids // (column1 - column0), column0 + ids % (column1 - column0)), 1)


def patch_pixels(n: int, size: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """[n size^2, 2] rows and columns of n random square patches, patch by patch, row by row.

    Raises ValueError if a patch is larger than the frame.
    """
    if size > min(height, width):
        raise ValueError(
            f"patch size: expected at most {min(height, width)} (the frame's side), got {size}; choose a smaller one"
        )
    top = torch.randint(height - size + 1, (n, 1, 1), generator=generator)
    left = torch.randint(width - size + 1, (n, 1, 1), generator=generator)
    rows = top + torch.arange(size)[None, :, None]
    columns = left + torch.arange(size)[None, None, :]
    return torch.stack(torch.broadcast_tensors(rows, columns), -1).reshape(-1, 2)


def rectangle_pixels(rectangle: Rectangle) -> Tensor:
    """[n, 2] rows and columns of all pixels of a rectangle, row by row."""
    row0, row1, column0, column1 = rectangle
    return torch.cartesian_prod(torch.arange(row0, row1), torch.arange(column0, column1))


def inside(pixels: Tensor, rectangle: Rectangle) -> Tensor:
    """[N, 2] rows and columns -> [N] bool, whether they lie in the rectangle."""
    row0, row1, column0, column1 = rectangle
    rows, columns = pixels.unbind(1)
    return (rows >= row0) & (rows < row1) & (columns >= column0) & (columns < column1)


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
    low, high = landmarks[36:48].min(0), landmarks[36:48].max(0)
    margin = (high[0] - low[0]) / 10
    low, high = (low - margin).astype(int), (high + margin).astype(int) + 1
    return _clip(Rectangle(low[1], high[1], low[0], high[0]), height, width)


def _clip(rectangle: Rectangle, height: int, width: int) -> Rectangle:
    row0, row1, column0, column1 = (int(edge) for edge in rectangle)
    row0, column0 = min(max(0, row0), height - 1), min(max(0, column0), width - 1)
    return Rectangle(row0, max(row0 + 1, min(height, row1)), column0, max(column0 + 1, min(width, column1)))
