"""Which pixels are drawn."""

import numpy as np
import pytest
import torch

from ernerf_ti.train.pixel_sampling import (
    Rectangle,
    eyes_rectangle,
    face_rectangle,
    head_rectangle,
    inside,
    lips_rectangle,
    patch_pixels,
    random_pixels,
    rectangle_pixels,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def landmarks() -> np.ndarray:
    points = np.full((68, 2), [50.0, 40.0])
    points[0], points[8], points[16] = (20.2, 30.9), (50.0, 70.7), (80.1, 31.0)
    points[36:48, 0] = np.linspace(30, 70, 12)
    points[36:48, 1] = 35
    points[48:60, 0] = np.linspace(40.6, 60.4, 12)
    points[48:60, 1] = np.linspace(52, 58, 12)
    return points


def test_random_pixels_cover_a_rectangle(generator):
    pixels = random_pixels(5000, Rectangle(3, 7, 10, 20), generator)
    assert sorted(set(map(tuple, pixels.tolist()))) == [(r, c) for r in range(3, 7) for c in range(10, 20)]


def test_patches_are_squares_at_any_position(generator):
    pixels = patch_pixels(400, 4, 6, 9, generator).view(400, 4, 4, 2)
    steps = torch.cartesian_prod(torch.arange(4), torch.arange(4)).view(4, 4, 2)
    assert (pixels - pixels[:, :1, :1] == steps).all()
    corners = set(map(tuple, pixels[:, 0, 0].tolist()))
    assert corners == {(r, c) for r in range(3) for c in range(6)}
    with pytest.raises(ValueError, match=r"patch size: expected at most 6 \(the frame's side\), got 7"):
        patch_pixels(1, 7, 6, 9, generator)


def test_rectangles_of_landmarks():
    assert face_rectangle(landmarks(), 100, 100) == Rectangle(30, 70, 20, 80)
    # Center (50, 55), half of the wider side, 10.
    assert lips_rectangle(landmarks(), 100, 100) == Rectangle(45, 65, 40, 60)
    # A fifth of the width, 12, on each side; 0.65 of the height, 26, above, and 0.12 of it, 4.8, below.
    assert head_rectangle(landmarks(), 100, 100) == Rectangle(5, 75, 8, 92)
    # A tenth of the eyes' width, 4, on each side.
    assert eyes_rectangle(landmarks(), 100, 100) == Rectangle(31, 40, 26, 75)


def test_rectangles_are_clipped_to_the_frame():
    assert face_rectangle(landmarks(), 50, 60) == Rectangle(30, 50, 20, 60)
    row0, row1, column0, column1 = lips_rectangle(landmarks() + 200, 50, 60)
    assert 0 <= row0 < row1 <= 50 and 0 <= column0 < column1 <= 60


def test_rectangle_pixels_and_inside():
    rectangle = Rectangle(1, 3, 2, 5)
    pixels = rectangle_pixels(rectangle)
    assert pixels.tolist() == [[1, 2], [1, 3], [1, 4], [2, 2], [2, 3], [2, 4]]
    assert inside(pixels, rectangle).all()
    assert not inside(torch.tensor([[0, 2], [3, 2], [1, 1], [1, 5]]), rectangle).any()
