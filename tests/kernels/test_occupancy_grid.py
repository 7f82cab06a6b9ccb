import pytest
import torch

from taichi_kernels import cell_centers, dilate_density, morton_encode, pack_bits, reference
from taichi_kernels.reference.occupancy_grid import unpack_bits

pytestmark = pytest.mark.usefixtures("each_variant")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_cascades", "resolution"), [(1, 2), (1, 16), (3, 8), (2, 32)])
def test_matches_twin(n_cascades, resolution, dtype, device):
    grid = torch.randn(n_cascades, resolution**3, device=device, dtype=dtype)
    assert torch.equal(dilate_density(grid), reference.dilate_density(grid))
    assert torch.equal(pack_bits(grid, 0.3), reference.pack_bits(grid, 0.3))


def test_dilation_of_single_cells(device):
    def code(*cell):
        return morton_encode(torch.tensor([cell], dtype=torch.int32, device=device)).item()

    grid = torch.zeros(2, 512, device=device)
    grid[0, code(0, 0, 0)] = 5.0  # a corner: three neighbours, and none on the far sides
    grid[1, code(4, 4, 4)] = 7.0
    dilated = dilate_density(grid)
    corner = {code(0, 0, 0), code(1, 0, 0), code(0, 1, 0), code(0, 0, 1)}
    assert set(torch.nonzero(dilated[0]).flatten().tolist()) == corner
    assert (dilated[1] == 7).sum() == 7
    assert (dilated[1, [code(3, 4, 4), code(4, 4, 5)]] == 7).all()
    assert grid.sum() == 12  # not modified


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dilation_keeps_nan(dtype, device):
    grid = torch.randn(2, 512, device=device, dtype=dtype)
    grid[0, [0, 70, 71, 300]] = torch.nan
    grid[1, 5] = torch.inf
    dilated = dilate_density(grid)
    torch.testing.assert_close(dilated, reference.dilate_density(grid), rtol=0, atol=0, equal_nan=True)
    assert 4 + 7 <= int(dilated[0].isnan().sum()) <= 4 + 3 * 7 and not dilated[1].isnan().any()


def test_bit_order_and_strict_threshold(device):
    grid = torch.zeros(1, 8, device=device)
    grid[0, :4] = torch.tensor([0.6, 0.5, 0.4, 0.6], device=device)
    assert pack_bits(grid, 0.5).tolist() == [0b1001]


def test_all_empty_and_all_full(device):
    grid = torch.zeros(1, 64, device=device)
    assert pack_bits(grid, 0.0).tolist() == [0] * 8
    assert pack_bits(grid, -1.0).tolist() == [255] * 8


def test_no_cascades(device):
    grid = torch.zeros(0, 64, device=device)
    assert dilate_density(grid).shape == (0, 64)
    assert pack_bits(grid, 0.5).shape == (0,)


def test_cell_centers_of_the_spec(device):
    centers = cell_centers(128, device=device)
    cell = torch.tensor([[0, 64, 127]], dtype=torch.int32, device=device)
    expected = torch.tensor([0, 64, 127], device=device) * (2 / 127) - 1
    torch.testing.assert_close(centers[morton_encode(cell).long()][0], expected * (1 - 1 / 128))
    outer = cell_centers(8, cascade=2, bound=3.0, device=device)
    assert outer.max().item() == pytest.approx(3 - 3 / 8)


@pytest.mark.parametrize("n_cells", [27, 100, 1])
def test_bad_resolution(n_cells, device):
    with pytest.raises(ValueError, match=f"density_grid: expected R\\^3 cells with R a power of two.*{n_cells} cells"):
        pack_bits(torch.zeros(1, n_cells, device=device), 0.0)
    with pytest.raises(ValueError, match="resolution: expected a power of two from 2 to 1024, got 12"):
        cell_centers(12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threshold_as_a_tensor(dtype, device):
    grid = torch.randn(2, 512, device=device, dtype=dtype)
    threshold = grid[0, 100].clone()  # exactly one of the densities, which is not above itself
    bits = pack_bits(grid, threshold)
    assert torch.equal(bits, pack_bits(grid, threshold.item()))
    assert torch.equal(bits, reference.pack_bits(grid, threshold))
    assert not unpack_bits(bits)[100]
