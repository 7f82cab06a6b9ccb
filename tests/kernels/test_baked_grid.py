import pytest
import torch

import taichi_kernels as tk
from taichi_kernels import reference
from taichi_kernels.baked_grid import EMPTY, FIRST_ROW, TRANSPARENT, UNKNOWN
from taichi_kernels.pixel_tiles import NOTHING, depths_of_tiles, occupied_blocks
from taichi_kernels.step_alphas import FIRST, N_INTERVALS, PER_UNIT, table_of_alphas

RESOLUTION, SIZE, INTRINSICS = 8, (13, 9), (11.0, 12.0, 6.3, 4.4)
# No side lies on a face of cells, where the rounding of a device would decide whether a ray's first point is a sample.
AABB = (-0.99, -0.47, -0.97, 0.98, 0.46, 0.99)


def camera(dtype, device, distance=2.5):
    """A camera in front of the box, turned a little."""
    a = torch.tensor(0.2, dtype=dtype)
    pose = torch.eye(4, dtype=dtype)
    pose[:3, :3] = torch.tensor([[a.cos(), -a.sin(), 0], [0, 0, 1], [-a.sin(), -a.cos(), 0]], dtype=dtype)
    pose[:3, 3] = torch.tensor([0.1, -distance, 0.05], dtype=dtype)
    return pose.to(device)


def scene(dtype, device, n_static=40, n_dynamic=30, n_bases=2):
    """Cells of every kind at random; a third of them empty."""
    n_cells = RESOLUTION**3
    codes = torch.tensor([EMPTY, EMPTY, EMPTY, TRANSPARENT, UNKNOWN] * n_cells)[torch.randperm(n_cells)]
    chosen = torch.rand(n_cells) < 0.6
    row = torch.randint(0, n_static + n_dynamic, (n_cells,))
    codes = torch.where(chosen, FIRST_ROW + 2 * row + (row >= n_static).long(), codes)
    values = (
        codes.int().view(3 * (RESOLUTION,)),
        torch.randn(n_static + n_dynamic, 3, 3, 3, dtype=dtype),
        torch.randint(0, 256, (n_static, 3, 3, 3, n_bases, 3), dtype=torch.uint8),
        torch.rand(n_bases, 3, dtype=dtype) / 255,
        torch.rand(3, dtype=dtype) * 0.1,
        1.0,
        torch.tensor(AABB, dtype=dtype),
        occupied_blocks(codes.view(3 * (RESOLUTION,)) > EMPTY),
    )
    return tuple(value.to(device) if isinstance(value, torch.Tensor) else value for value in values)


def check_samples(samples, expected):
    """The same samples, and their values up to the error of the kernel's alpha."""
    torch.testing.assert_close(samples[:5], tuple(expected[:5]))
    torch.testing.assert_close(samples[5:], tuple(expected[5:]), atol=1e-4, rtol=0)


@pytest.mark.usefixtures("each_variant")
@pytest.mark.parametrize(
    ("max_steps", "dt_gamma", "T_threshold", "n_bases"),
    [(8, 0.0, 1e-4, 2), (64, 0.05, 0.2, 1), (3, 0.0, 1e-4, 3), (32, 0.0, 1e-4, 1)],
)
def test_matches_twin(max_steps, dt_gamma, T_threshold, n_bases, device):
    arguments = (camera(torch.float64, device), INTRINSICS, SIZE, *scene(torch.float64, device, n_bases=n_bases))
    options = {"max_steps": max_steps, "dt_gamma": dt_gamma, "T_threshold": T_threshold}
    samples = tk.march_baked_grid(*arguments, **options)
    expected = reference.march_baked_grid(*arguments, **options)
    check_samples(samples, expected)
    assert len(samples.ts) > 50 and samples.before[:, 3].min() < 0.9 and samples.after[:, 3].min() < 0.9
    values = torch.rand(4, len(samples.ts), dtype=torch.float64, device=device)
    values[0] *= 5
    runs = samples.deltas, samples.packed_info, samples.before, samples.after
    rays = tk.composite_baked(values, *runs, samples.ts, 0.1)
    torch.testing.assert_close(rays, reference.composite_baked(values, *runs, samples.ts, 0.1))


@pytest.mark.parametrize("runs_dtype", [torch.float32, torch.float16])
def test_composite_without_depth(runs_dtype, device):
    samples = tk.march_baked_grid(
        camera(torch.float32, device), INTRINSICS, SIZE, *scene(torch.float32, device), max_steps=8
    )
    values = torch.rand(4, len(samples.ts), device=device)
    runs = samples.deltas, samples.before[:, :4], samples.after[:, :4]
    deltas, before, after = (x.to(runs_dtype).contiguous() for x in runs)
    rgb, opacity, depth = tk.composite_baked(values, deltas, samples.packed_info, before, after, T_threshold=0.1)
    assert depth is None and rgb.dtype == opacity.dtype == torch.float32
    expected = reference.composite_baked(values, deltas, samples.packed_info, before, after, T_threshold=0.1)
    torch.testing.assert_close((rgb, opacity, depth), expected)
    with_depth = tk.composite_baked(
        *(values, deltas, samples.packed_info, samples.before.to(runs_dtype), samples.after.to(runs_dtype)),
        *(samples.ts, 0.1),
    )
    torch.testing.assert_close((rgb, opacity), with_depth[:2])


def test_dynamic_samples_are_those_of_the_march(device):
    pose, occupied = camera(torch.float64, device), torch.rand(3 * (RESOLUTION,), device=device) < 0.3
    _, *values, _ = scene(torch.float64, device)
    values.append(occupied_blocks(occupied))
    samples = tk.march_baked_grid(pose, INTRINSICS, SIZE, occupied.int() * UNKNOWN, *values, max_steps=6)
    axis = torch.arange(RESOLUTION, dtype=torch.int32, device=device)
    order = tk.morton_encode(torch.cartesian_prod(axis, axis, axis)).long()
    densities = torch.zeros(RESOLUTION**3, device=device).index_copy(0, order, occupied.flatten().float())
    columns, rows = torch.arange(SIZE[0], device=device), torch.arange(SIZE[1], device=device)
    y, x = torch.meshgrid(rows.double(), columns.double(), indexing="ij")
    fx, fy, cx, cy = INTRINSICS
    rays_d = torch.stack(((x + 0.5 - cx) / fx, (y + 0.5 - cy) / fy, torch.ones_like(x)), -1).view(-1, 3)
    rays_d = (rays_d / rays_d.norm(dim=1, keepdim=True)) @ pose[:3, :3].t()
    rays_o = pose[:3, 3].expand_as(rays_d).contiguous()
    bitfield = tk.pack_bits(densities[None], 0.5)
    expected = tk.march_rays(rays_o, rays_d, *tk.intersect_aabb(rays_o, rays_d, AABB), bitfield, max_steps=6)
    for name in ("positions", "directions", "ts", "deltas", "packed_info"):
        torch.testing.assert_close(getattr(samples, name), getattr(expected, name))
    assert len(samples.ts) > 30
    sigmas = torch.rand(len(samples.ts), dtype=torch.float64, device=device) * 9
    rgbs = torch.rand(len(sigmas), 3, dtype=torch.float64, device=device)
    rays = tk.composite(sigmas, expected.deltas, rgbs, None, expected.packed_info)
    values = torch.cat((sigmas[None], rgbs.t()))
    rgb, opacity, _ = tk.composite_baked(
        *(values, samples.deltas, samples.packed_info, samples.before[:, :4].contiguous()),
        samples.after[:, :4].contiguous(),
    )
    torch.testing.assert_close((rgb, opacity), (rays.weighted, rays.opacity), atol=2e-4, rtol=0)


def test_known_distances_change_nothing(device):
    cells, *values = scene(torch.float32, device)
    cells = torch.where(torch.rand_like(cells.float()) < 0.05, cells, EMPTY).contiguous()
    near = (cells > EMPTY).float()[None, None]
    distances = torch.zeros_like(cells)
    for _ in range(3):
        near = torch.nn.functional.max_pool3d(near, 3, 1, 1)
        distances -= (near[0, 0] == 0).int()
    skipping = torch.where(cells > EMPTY, cells, distances).contiguous()
    assert int(skipping.min()) < -1
    camera_ = (camera(torch.float32, device), INTRINSICS, SIZE)
    for options in ({"max_steps": 8}, {"max_steps": 64, "dt_gamma": 0.02}):
        known, unknown = (tk.march_baked_grid(*camera_, c, *values, **options) for c in (skipping, cells))
        for a, b in zip(known, unknown, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("each_variant")
@pytest.mark.parametrize(
    ("position", "size", "intrinsics"),
    [
        ((0.3, 0.1, -0.2), (21, 17), (8.0, -9.0, 10.3, 8.1)),  # inside, and blocks on all sides
        ((0.31, -0.44, 0.32), (17, 9), (5.0, 5.0, 8.5, 4.5)),  # the middle column and row parallel to axes
        ((0.2, -0.9, 0.1), (1, 1), (3.0, 3.0, 0.4, 0.6)),
        ((0.0, -2.5, 0.0), (40, 3), (60.0, 60.0, -7.0, 10.0)),  # a part of the grid, beyond the edge of the picture
    ],
)
def test_no_block_is_missed(position, size, intrinsics, device):
    cells, *values, aabb, _ = scene(torch.float64, device)
    cells = torch.where(torch.rand_like(cells.double()) < 0.4, cells, EMPTY).contiguous()
    pose = camera(torch.float64, device)
    if intrinsics[0] == 5.0:
        pose[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
    pose[:3, 3] = torch.tensor(position, dtype=torch.float64)
    arguments = (pose, intrinsics, size, cells, *values, aabb, occupied_blocks(cells > EMPTY))
    samples = tk.march_baked_grid(*arguments, max_steps=12)
    expected = reference.march_baked_grid(*arguments, max_steps=12)
    check_samples(samples, expected)
    assert samples.before[:, 3].min() < 1


def test_table_of_alphas(device):
    depths = torch.linspace(-15, 3.9, 10000, dtype=torch.float64, device=device)
    x = ((depths - FIRST) * PER_UNIT).clamp(min=0)
    a, b = table_of_alphas(torch.float32, device)[x.long()].double().unbind(1)
    torch.testing.assert_close(a + b * x, 1 - torch.exp(-depths.exp()), atol=1e-5, rtol=0)
    assert 1 - a[-1] - b[-1] * N_INTERVALS < 1e-6


def test_tiles_show_blocks_at_their_depths(device):
    pose = torch.eye(4, device=device)
    pose[2, 3] = -3.0
    # Blocks of side .5: the corner of the grid at (-1, -1, -1), and the cube right in front of its center.
    blocks = torch.tensor([[0, 0, 0], [2, 2, 1]], dtype=torch.int32, device=device)
    depths = depths_of_tiles(pose, (20.0, 20.0, 20.0, 12.0), (33, 24), blocks, 0.5, 1.0).view(3, 5, 2)
    # In pixels 20 + 20 * [-1, -.5] / [2, 2.5] = [10, 16] by 12 + 20 * [-1, -.5] / [2, 2.5] = [2, 8], and [20, 24] by
    # [12, 16].
    expected = torch.full((3, 5, 2), NOTHING, device=device)
    expected[0, 1] = torch.tensor([2.0, -2.5])
    expected[1, 2] = torch.tensor([2.5, -3.0])
    torch.testing.assert_close(depths, expected, atol=1e-3, rtol=0)


def test_a_camera_that_sees_nothing(device):
    pose = camera(torch.float32, device, distance=-2.5)
    samples = tk.march_baked_grid(pose, INTRINSICS, SIZE, *scene(torch.float32, device))
    assert len(samples.ts) == 0
    runs = samples.deltas, samples.packed_info, samples.before, samples.after
    rgb, opacity, depth = tk.composite_baked(torch.zeros(4, 0, device=device), *runs, samples.ts)
    assert (rgb == 0).all() and (opacity == 0).all() and (depth == 0).all()


def test_more_cascades_are_refused(device):
    cells, densities, colors, weights, offset, _, aabb, blocks = scene(torch.float32, device)
    with pytest.raises(ValueError, match="bound: expected a number above 0 and up to 1"):
        tk.march_baked_grid(
            camera(torch.float32, device),
            INTRINSICS,
            SIZE,
            cells,
            densities,
            colors,
            weights,
            offset,
            2.0,
            aabb,
            blocks,
        )
