import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.experiments.operations import recorded_operations
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


class Evaluated:
    """A density that is constant, and notes where it is evaluated."""

    def __init__(self, density):
        self.density, self.points = density, []

    def __call__(self, positions):
        self.points.append(positions)
        return torch.full((len(positions),), float(self.density), device=positions.device)


def cells_of(points):
    """[n, 3] points -> [n] int64 Morton codes of their cells."""
    return tk.morton_encode(((points + 1) * (R / 2)).long().clamp(0, R - 1).int()).long()


def ball_of(device, fraction):
    """A grid in which a ball is occupied, and the rest has been found empty."""
    grid = grid_of(device, fraction=fraction, density_threshold=5.0)
    grid.update(lambda positions: 20.0 * (positions.norm(dim=1) < 0.3).float())
    occupied = unpack_bits(grid.bitfield)
    assert 0.01 < occupied.float().mean() < 0.1
    return grid, occupied


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_a_fraction_of_the_cells(fraction, device):
    """One half is spread evenly over all cells, the other half over the occupied ones."""
    grid, occupied = ball_of(device, fraction)
    seen = grid.density_grid[0] >= 0
    generator, visits = torch.Generator(device).manual_seed(0), torch.zeros(R**3, device=device)
    n = -(-int(seen.sum()) * fraction // 2)
    for _ in range(50):
        density, before = Evaluated(20), grid.density_grid.clone()
        grid.update(density, generator, all_cells=False)
        points = torch.cat(density.points)
        assert len(points) == 2 * n
        even, of_occupied = cells_of(points[: int(n)]), cells_of(points[int(n) :])
        assert seen[even].all() and occupied[of_occupied].all()
        # One of them in each of n runs of cells, and so for the occupied ones.
        order = seen.cumsum(0) - 1
        assert (order[even].diff() >= 0).all() and len(even.unique()) > 0.95 * n
        counts = torch.bincount(of_occupied, minlength=R**3)[occupied]
        assert counts.max() - counts.min() <= 3 and counts.sum() == n
        visits[even] += 1
        # The next update draws from the same cells.
        grid.density_grid.copy_(before)
        grid.mean_density.copy_(before.clamp(min=0).mean())
    assert (visits[seen] > 0).float().mean() > 0.9
    assert visits[~seen].sum() == 0


def test_cells_that_are_not_evaluated_keep_their_density(device):
    grid, _ = ball_of(device, 0.05)
    before, density = grid.density_grid.clone(), Evaluated(0)
    grid.update(density, torch.Generator(device).manual_seed(0), all_cells=False)
    visited = torch.zeros(R**3, dtype=torch.bool, device=device)
    visited[cells_of(torch.cat(density.points))] = True
    expected = torch.where(visited & (before[0] >= 0), before[0] * 0.95, before[0])
    torch.testing.assert_close(grid.density_grid[0], expected)
    assert not visited[before[0] >= 0].all()


def test_a_fraction_of_an_empty_grid(device):
    """No cell is occupied, and new matter is found all the same."""
    grid = grid_of(device, fraction=0.25, density_threshold=5.0)
    grid.mean_density.fill_(20.0)
    grid.set_bitfield(torch.zeros_like(grid.bitfield))
    for _ in range(40):
        grid.update(lambda positions: 20.0 * (positions[:, 0] > 0.5).float(), all_cells=False)
    low, high = grid.occupied_box.view(2, 3)
    assert low[0] < 0.51 and low[0] > 0.3 and high[0] > 0.95


def test_a_fraction_of_no_cells(device):
    grid = grid_of(device, fraction=0.25)
    grid.density_grid.fill_(-1)
    grid.update(Evaluated(20), all_cells=False)
    assert (grid.density_grid == -1).all() and (grid.bitfield == 0).all()


def test_a_density_that_is_no_number_does_not_stay(device):
    grid = grid_of(device)
    before = grid.density_grid.clone()
    grid.update(lambda positions: torch.where(positions[:, 2] > 0, torch.nan, 3.0))
    assert not grid.density_grid.isnan().any() and not grid.mean_density.isnan()
    centers = cell_centers(R, device=device)
    unknown = (before[0] >= 0) & (centers[:, 2] > 3 / R)
    assert torch.equal(grid.density_grid[0, unknown], before[0, unknown])


def test_repeated_cells_take_the_largest_density(device):
    """However the points of a cell are ordered."""
    grid, occupied = ball_of(device, 1 - 1e-6)
    calls = []

    def density(positions):
        calls.append(cells_of(positions))
        return positions.abs().sum(1) * 10 + 6

    grid.density_grid.mul_((grid.density_grid < 0).float())  # zeros, and -1 where excluded
    grid.density_grid[0, occupied] = 20.0
    before = grid.density_grid.clone()
    points = []
    grid.update(lambda positions: (points.append(positions), density(positions))[1], all_cells=False)
    cells, values = torch.cat(calls), torch.cat([density(p) for p in points])
    evaluated = torch.full((1, R**3), -1.0, device=device)
    for cell, value in zip(cells.tolist(), values.tolist(), strict=True):
        evaluated[0, cell] = max(evaluated[0, cell], value)
    expected = torch.maximum(torch.where(evaluated >= 0, before * 0.95, before), dilate_density(evaluated))
    torch.testing.assert_close(grid.density_grid[before >= 0], expected[before >= 0])
    assert len(cells) > len(cells.unique())


@pytest.mark.parametrize("all_cells", [True, False])
def test_updating_waits_for_nothing(all_cells, device):
    grid, _ = ball_of(device, 0.25)
    with recorded_operations() as operations:
        grid.update(Evaluated(20), torch.Generator(device).manual_seed(0), all_cells)
    assert operations.waits == []


@pytest.mark.parametrize(("resolution", "bound"), [(2, 1.0), (16, 1.0), (8, 2.0), (8, 4.0), (16, 1.5)])
@pytest.mark.parametrize("density", [0.0, 0.0005, 0.01, 1.0])
def test_the_occupied_box_encloses_the_occupied_cells(resolution, bound, density, device):
    grid = OccupancyGrid(OccupancyGridConfig(resolution=resolution, bound=bound)).to(device)
    for _ in range(5):
        occupied = torch.rand(grid.density_grid.shape, device=device) < density
        grid.set_bitfield(tk.pack_bits(occupied.float(), 0.5))
        low, high = torch.full((3,), torch.inf, device=device), torch.full((3,), -torch.inf, device=device)
        for cascade, cells in enumerate(occupied):
            half_side = min(2.0**cascade, bound)
            indices = tk.morton_decode(cells.nonzero()[:, 0].int())
            if len(indices):
                side = 2 * half_side / resolution
                low = torch.minimum(low, indices.amin(0) * side - half_side)
                high = torch.maximum(high, (indices.amax(0) + 1) * side - half_side)
        box_low, box_high = grid.occupied_box.view(2, 3)
        if not occupied.any():
            assert (box_low > box_high).all()
        elif len(occupied) == 1 or occupied.any(1).all():
            torch.testing.assert_close(torch.stack((box_low, box_high)), torch.stack((low, high)))
        else:
            assert (box_low <= low + 1e-6).all() and (box_high >= high - 1e-6).all()


def test_cells_are_found_again_after_they_have_changed(device):
    """What an update keeps of the grid does not outlive a change of its cells, of its device or of its state."""
    grid, density = grid_of(device), Evaluated(1)
    grid.update(density)
    n = sum(len(points) for points in density.points)
    other = grid_of(device)
    other.mark_unseen_cells(frontal_pose()[None], (30.0, 40.0, 8.0, 6.0))
    n_other = int((other.density_grid >= 0).sum())
    assert n_other < n
    for change in (
        lambda: grid.load_state_dict(other.state_dict()),
        lambda: grid.to(device),
    ):
        change()
        density = Evaluated(1)
        grid.update(density)
        assert sum(len(points) for points in density.points) == n_other
    grid.mark_unseen_cells(frontal_pose(0.2)[None], (90.0, 90.0, 8.0, 6.0))
    density = Evaluated(1)
    grid.update(density)
    assert sum(len(points) for points in density.points) == int((grid.density_grid >= 0).sum()) < n_other


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
