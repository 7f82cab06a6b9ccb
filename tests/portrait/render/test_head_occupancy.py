import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.config import OccupancyGridConfig
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from taichi_kernels import cell_centers
from taichi_kernels.reference.occupancy_grid import dilate_density, pack_bits, unpack_bits

R = 16


def grid_of(device, **changes):
    return OccupancyGrid(OccupancyGridConfig(resolution=R, **changes)).to(device)


def frontal_pose(z=0.8):
    pose = torch.eye(4)
    pose[2, 3] = z
    return scene_from_capture(pose)


def test_initially_the_box_is_occupied(device):
    grid = grid_of(device)
    occupied = unpack_bits(grid.bitfield)
    depth = cell_centers(R, device=device)[:, 1].abs()
    assert occupied[depth < 0.5].all() and not occupied[depth > 0.5 + 3 / R].any()
    assert grid.aabb == (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)
    low, high = grid.occupied_box.view(2, 3)
    assert (low <= torch.tensor(grid.aabb[:3], device=device)).all()
    assert (high >= torch.tensor(grid.aabb[3:], device=device)).all()


@pytest.mark.parametrize(("resolution", "bound"), [(16, 1.0), (32, 1.0), (16, 2.0), (16, 1.5), (8, 4.0)])
def test_initial_state_agrees_with_the_kernels(resolution, bound, device):
    grid = OccupancyGrid(OccupancyGridConfig(resolution=resolution, bound=bound)).to(device)
    assert torch.equal(grid.bitfield, tk.pack_bits(grid.density_grid, -1.0))
    for cascade, density in enumerate(grid.density_grid):
        half_cell = min(2.0**cascade, bound) / resolution
        y = cell_centers(resolution, cascade, bound, device)[:, 1]
        assert torch.equal(density == -1, y.abs() > bound / 2 + 2 * half_cell)
    box = grid.occupied_box.clone()
    grid.set_bitfield(grid.bitfield.clone())  # computes the box with a kernel
    torch.testing.assert_close(box, grid.occupied_box)


def test_unseen_cells_by_projection(device):
    poses = torch.stack([frontal_pose(0.8), frontal_pose(0.6)])
    fx, fy, cx, cy = 30.0, 40.0, 8.0, 6.0
    grid = grid_of(device)
    was = grid.density_grid.clone()
    grid.mark_unseen_cells(poses, (fx, fy, cx, cy))
    seen = torch.zeros(R**3, dtype=torch.bool)
    for pose in poses:
        world_to_camera = torch.linalg.inv(pose)
        for i, center in enumerate(cell_centers(R, device=device).cpu()):
            x, y, z = (world_to_camera[:3, :3] @ center + world_to_camera[:3, 3]).tolist()
            seen[i] |= z > 0 and abs(x) < cx / fx * z + 2 / R and abs(y) < cy / fy * z + 2 / R
    expected = torch.where(seen.to(device) & (was[0] >= 0), 0.0, -1.0)
    assert 0.05 < (expected >= 0).float().mean() < 0.5
    torch.testing.assert_close(grid.density_grid[0], expected)
    assert not unpack_bits(grid.bitfield)[expected < 0].any()


def test_update_is_a_decaying_maximum(device):
    grid = grid_of(device, density_threshold=5.0)

    def density(positions):
        # Constant around cells, so that the position within a cell does not matter.
        return torch.where(positions[:, 2] > 0.5, 100.0, 0.001)

    live = grid.density_grid >= 0
    grid.update(density)
    centers = cell_centers(R, device=device)
    evaluated = dilate_density(torch.where(live, torch.where(centers[:, 2] > 0.5, 100.0, 0.001)[None], -1.0))
    # Cells next to the change may have been evaluated on either side of it.
    clear = live & ((centers[:, 2] - 0.5).abs() > 5 / R)
    torch.testing.assert_close(grid.density_grid[clear], evaluated[clear])
    assert (grid.density_grid[~live] == -1).all()
    torch.testing.assert_close(grid.mean_density, grid.density_grid.clamp(min=0).mean())
    assert torch.equal(grid.bitfield, pack_bits(grid.density_grid, 5.0))
    assert grid.occupied_box[2] > 0.2

    before = grid.density_grid.clone()
    grid.update(lambda positions: torch.zeros(len(positions), device=device))
    torch.testing.assert_close(grid.density_grid[live], before[live] * 0.95)


def test_threshold_is_at_most_the_mean(device):
    grid = grid_of(device)
    grid.update(lambda positions: 0.2 + 0.1 * torch.sin(4 * positions[:, 0]))
    assert grid.mean_density < 1
    assert torch.equal(grid.bitfield, pack_bits(grid.density_grid, float(grid.mean_density)))


def test_random_points_cover_the_cells_and_repeat_with_their_generator(device):
    grids, points = [], []
    for seed in (1, 1, 2):
        grid, seen = grid_of(device), []

        def density(positions, seen=seen):
            seen.append(positions)
            return positions.norm(dim=1) * 20

        grid.update(density, torch.Generator(device).manual_seed(seed))
        grids.append(grid)
        points.append(torch.cat(seen))
    assert torch.equal(grids[0].density_grid, grids[1].density_grid)
    assert not torch.equal(grids[0].density_grid, grids[2].density_grid)
    live = (grids[0].density_grid[0] >= 0).nonzero()[:, 0]
    offsets = (points[0] - cell_centers(R, device=device)[live]) * R
    assert offsets.abs().max() <= 1 + 1e-4
    assert offsets.min() < -0.98 and offsets.max() > 0.98 and abs(offsets.mean()) < 0.02


def test_a_fraction_of_the_cells(device):
    grid, count = grid_of(device, fraction=0.25), []

    def density(positions):
        count.append(len(positions))
        return torch.ones(len(positions), device=device)

    grid.update(density, torch.Generator(device).manual_seed(0))
    assert 0.2 < sum(count) / (grid.density_grid >= 0).sum() < 0.3


def test_all_empty_has_an_empty_box(device):
    grid = grid_of(device)
    grid.set_bitfield(torch.zeros_like(grid.bitfield))
    assert (grid.occupied_box[:3] > grid.occupied_box[3:]).all()


def test_larger_scenes_have_cascades(device):
    grid = grid_of(device, bound=2.0)
    assert grid.density_grid.shape == (2, R**3)
    grid.update(lambda positions: torch.full((len(positions),), 20.0, device=device))
    assert (grid.density_grid.amax(1) == 20).all()
    torch.testing.assert_close(grid.occupied_box[[0, 3]], torch.tensor([-2.0, 2.0], device=device))


def test_state_round_trip(device):
    grid, other = grid_of(device), grid_of(device)
    grid.update(lambda positions: 30 * (positions[:, 0] > 0.5).float())
    other.load_state_dict(grid.state_dict())
    for name, value in grid.named_buffers():
        assert torch.equal(value, dict(other.named_buffers())[name]), name


def test_wrong_bitfield(device):
    with pytest.raises(ValueError, match=r"bitfield: expected \[512\] uint8 .* got \[8\]"):
        grid_of(device).set_bitfield(torch.zeros(8, dtype=torch.uint8, device=device))
