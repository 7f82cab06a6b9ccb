"""Which pixels are drawn."""

import numpy as np
import pytest
import torch

from ernerf_ti.train.pixel_sampling import (
    Rectangle,
    eyes_rectangle,
    face_rectangle,
    head_rectangle,
    lips_rectangle,
    patch_pixels,
    random_pixels,
    random_pixels_in,
    rectangle_table,
    square_corner,
    squares_pixels,
    with_means_between,
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


def test_random_pixels_cover_the_frame(generator):
    assert sorted(set(random_pixels(1000, 60, generator).tolist())) == list(range(60))


def test_random_pixels_cover_the_rectangles(generator):
    frames = [[Rectangle(3, 7, 10, 20), Rectangle(0, 1, 29, 30)], [Rectangle(5, 6, 0, 30), Rectangle(0, 7, 0, 1)]]
    table = rectangle_table(frames, torch.device("cpu"))
    for rectangles, corners, sides in zip(frames, *table, strict=True):
        which = torch.arange(2).repeat_interleave(2000)
        pixels = random_pixels_in(corners[which], sides[which], 30, generator)
        for part, (row0, row1, column0, column1) in zip(pixels.view(2, -1), rectangles, strict=True):
            expected = [30 * r + c for r in range(row0, row1) for c in range(column0, column1)]
            assert sorted(set(part.tolist())) == expected


def test_rounding_never_leaves_a_rectangle(monkeypatch, generator):
    largest = 1 - 2.0**-24
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, largest))
    sides = torch.arange(1, 5000)
    corners = torch.full((len(sides), 2), 4096)
    pixels = random_pixels_in(corners, sides[:, None].expand(-1, 2).float(), 1 << 16, generator)
    assert torch.equal(pixels, (4095 + sides) * ((1 << 16) + 1))


def test_patches_are_squares_at_any_position(generator):
    pixels = patch_pixels(400, 4, 6, 9, generator).view(400, 16)
    assert (pixels - pixels[:, :1] == squares_pixels(torch.tensor([0]), 4, 9)).all()
    assert set(pixels[:, 0].tolist()) == {9 * r + c for r in range(3) for c in range(6)}
    with pytest.raises(ValueError, match=r"patch size: expected at most 6 \(the frame's side\), got 7"):
        patch_pixels(1, 7, 6, 9, generator)


def test_squares():
    assert squares_pixels(torch.tensor([0, 25]), 2, 10).tolist() == [0, 1, 10, 11, 25, 26, 35, 36]
    lips = Rectangle(4, 8, 3, 7)
    assert square_corner(lips, 4, 20, 10) == 43
    assert square_corner(lips, 2, 20, 10) == 54
    assert square_corner(lips, 8, 20, 10) == 21
    # Moved into the frame.
    assert square_corner(lips, 10, 20, 10) == 10
    assert square_corner(Rectangle(17, 20, 8, 10), 6, 20, 10) == 144


def test_means_between_neighbors():
    values = torch.tensor([[0.0, 1, 4], [8, 5, 0]])
    assert with_means_between(values, 1).tolist() == [[0, 0.5, 1, 2.5, 4], [8, 6.5, 5, 2.5, 0]]
    assert with_means_between(values, 0).tolist() == [[0, 1, 4], [4, 3, 2], [8, 5, 0]]
    assert torch.equal(with_means_between(values[:1], 0), values[:1])


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
