import pytest
import torch

import taichi_kernels as tk
from taichi_kernels import reference

RESOLUTION, BOUND = 6, 0.8


def some_cells(device):
    cells = torch.zeros(3 * (RESOLUTION,), dtype=torch.bool, device=device)
    cells[1, 2:4, 3] = cells[5, 0, 4] = True
    return cells


def inside(cells, n, dtype):
    """Points in cells, also on their faces."""
    chosen = cells.nonzero()[torch.randint(0, int(cells.sum()), (n,))].to(dtype)
    share = torch.rand(n, 3, dtype=dtype, device=cells.device)
    share[: n // 3] = share[: n // 3].round()
    return ((chosen + share) * (2 * BOUND / RESOLUTION) - BOUND).clamp(-BOUND, BOUND)


def encoding(dtype, device):
    encoding = tk.TriplaneEncoding(tk.GridConfig(2, 3, 4, 12, 12, 2), BOUND).to(device, dtype)
    torch.nn.init.normal_(encoding.tables)
    return encoding


@pytest.mark.usefixtures("each_variant")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_twin(dtype, device):
    cells = some_cells(device)
    tiles = tk.PlaneTiles.of(encoding(torch.float32, device), cells, 5, BOUND, 10**6)
    tiles = tk.PlaneTiles(tiles.numbers, tiles.values.to(dtype))
    points = inside(cells, 90, dtype)
    torch.testing.assert_close(tk.encode_tiles(points, tiles, BOUND), reference.encode_tiles(points, tiles, BOUND))
    far = 3 * torch.randn(50, 3, dtype=dtype, device=device)
    far[:3] = torch.tensor([1e30, -torch.inf, torch.inf], dtype=dtype, device=device)[:, None]
    assert torch.isfinite(tk.encode_tiles(far, tiles, BOUND)).all()


def test_tends_to_the_encoding(device):
    cells = some_cells(device)
    encode = encoding(torch.float32, device)
    points = inside(cells, 3000, torch.float32)
    expected = encode(points).detach()
    errors = []
    for n_corners in (5, 9, 33):
        tiles = tk.PlaneTiles.of(encode, cells, n_corners, BOUND, 10**8)
        errors.append(float((tk.encode_tiles(points, tiles, BOUND) - expected).square().mean().sqrt()))
    assert errors[0] < 0.4 and errors[1] < errors[0] / 2 and errors[2] < errors[1] / 3


def test_points_that_rounding_moves_to_the_next_cell_have_tiles(device):
    cells = some_cells(device)
    encode = encoding(torch.float32, device)
    tiles = tk.PlaneTiles.of(encode, cells, 33, BOUND, 10**8)
    points = inside(cells, 500, torch.float32)
    beside = (points + 0.02 * torch.randn(500, 3, device=device)).clamp(-BOUND, BOUND)
    assert (tk.encode_tiles(beside, tiles, BOUND) - encode(beside)).detach().abs().max() < 0.5


def test_tiles_of_a_float64_encoding(device):
    cells, encode = some_cells(device), encoding(torch.float64, device)
    tiles = tk.PlaneTiles.of(encode, cells, 33, BOUND, 10**8, torch.float64)
    points = inside(cells, 100, torch.float64)
    assert tiles.values.dtype == torch.float64
    assert (tk.encode_tiles(points, tiles, BOUND) - encode(points)).detach().abs().max() < 0.5


def test_room(device):
    cells, encode = some_cells(device), encoding(torch.float32, device)
    tiles = tk.PlaneTiles.of(encode, cells, 5, BOUND, 10**6)
    assert tk.PlaneTiles.of(encode, cells, 5, BOUND, tiles.values.numel()) is not None
    assert tk.PlaneTiles.of(encode, cells, 5, BOUND, tiles.values.numel() - 1) is None


def test_no_cells(device):
    tiles = tk.PlaneTiles.of(encoding(torch.float32, device), some_cells(device) & False, 5, BOUND, 10**6)
    assert tk.encode_tiles(torch.zeros(0, 3, device=device), tiles, BOUND).shape == (0, 18)
    assert torch.isfinite(tk.encode_tiles(torch.zeros(2, 3, device=device), tiles, BOUND)).all()
