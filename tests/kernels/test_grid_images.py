import pytest
import torch

from taichi_kernels import PLANES, GridConfig, GridImages, ImagesOfTables, grid_encode, triplane_encode

CASES = {
    "hashed": {"kind": "hash", "log2_table_size": 6},
    "tiled": {"kind": "tiled", "log2_table_size": 6, "n_features": 1},
    "dense": {"kind": "dense"},
    "one level": {"n_levels": 1, "finest_resolution": 5, "base_resolution": 5, "log2_table_size": 4},
    "corners on the faces": {"align_corners": True, "log2_table_size": 7},
}


def config(**changes):
    options = {"n_dims": 2, "n_levels": 4, "base_resolution": 3, "finest_resolution": 21, "n_features": 2}
    return GridConfig(**options | changes)


def points(n, device, dtype, n_axes, bound):
    torch.manual_seed(1)
    inner = (torch.rand(n, n_axes, dtype=dtype) * 2 - 1) * bound
    faces = torch.cartesian_prod(*n_axes * [torch.tensor([-bound, 0.0, bound], dtype=dtype)])
    return torch.cat((inner, faces)).to(device)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_have_the_features_of_the_grid(case, dtype, device):
    grid, bound = config(**CASES[case]), 1.5
    tables = torch.randn(3, grid.n_entries, grid.n_features, dtype=dtype, device=device)
    positions = points(501, device, dtype, 3, bound)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    if dtype == torch.float64:  # scales of levels are float32 numbers
        tolerance = {"rtol": 1e-9, "atol": 1e-9}
    images = GridImages(tables, grid, PLANES, bound)
    expected = triplane_encode(positions, tables, grid, bound)
    torch.testing.assert_close(images(positions), expected, **tolerance)
    memory = torch.empty(images(positions).shape[1], len(positions), dtype=dtype, device=device)
    assert torch.equal(images(positions, memory), memory.t())
    flat = GridImages(tables[:1], grid, ((0, 1),), bound)(positions[:, :2].contiguous())
    torch.testing.assert_close(flat, grid_encode(positions[:, :2].contiguous(), tables[0], grid, bound), **tolerance)


def test_no_points(device):
    grid = config()
    images = GridImages(torch.randn(3, grid.n_entries, 2, device=device), grid, PLANES, 1.0)
    assert images(torch.empty(0, 3, device=device)).shape == (0, 3 * grid.n_outputs)


def test_has_no_gradient(device):
    grid = config()
    tables = torch.randn(3, grid.n_entries, 2, device=device, requires_grad=True)
    with pytest.raises(ValueError, match="tables: expected a tensor that requires no gradient"):
        GridImages(tables, grid, PLANES, 1.0)
    with pytest.raises(ValueError, match=r"tables: expected shape \[3, .*\], got \[2, "):
        GridImages(tables[:2].detach(), grid, PLANES, 1.0)
    with pytest.raises(ValueError, match="positions: expected a tensor that requires no gradient"):
        GridImages(tables.detach(), grid, PLANES, 1.0)(torch.zeros(1, 3, device=device, requires_grad=True))


def test_images_follow_the_tables():
    grid = config()
    tables = torch.nn.Parameter(torch.randn(3, grid.n_entries, 2))
    positions, images_of = points(20, "cpu", torch.float32, 3, 1.0), ImagesOfTables(grid, PLANES)
    images = images_of.of(tables)
    assert images_of.of(tables) is images
    triplane_encode(positions, tables, grid).sum().backward()
    torch.optim.AdamW([tables], lr=0.1, fused=True).step()
    assert images_of.of(tables) is not images
    torch.testing.assert_close(
        images_of.of(tables)(positions), triplane_encode(positions, tables, grid).detach(), rtol=1e-4, atol=1e-4
    )
    other = torch.nn.Parameter(tables.detach().clone())
    torch.nn.Module.register_parameter(holder := torch.nn.Module(), "tables", tables)
    holder.load_state_dict({"tables": other.detach() + 1})
    assert (images_of.of(tables)(positions) - triplane_encode(positions, other, grid)).abs().min() > 0.5


def test_grids_without_images():
    tables = torch.randn(1, config(interpolation="smoothstep").n_entries, 2)
    assert ImagesOfTables(config(interpolation="smoothstep"), ((0, 1),)).of(tables) is None
    assert ImagesOfTables(config(), ((0, 1),), most=1000).of(tables) is None
    assert ImagesOfTables(config(), ((0, 1),)).of(torch.empty_like(tables, device="meta")) is None
    with pytest.raises(ValueError, match="config: expected n_dims = 2 and linear interpolation, got 2 and smoothstep"):
        GridImages(tables, config(interpolation="smoothstep"), ((0, 1),), 1.0)
