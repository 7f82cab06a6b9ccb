import itertools

import pytest
import torch

from taichi_kernels import GridConfig, GridEncoding, grid_encode
from taichi_kernels.grid_encoding import level_strides
from taichi_kernels.reference import grid_encoding as reference
from tests.compare import assert_gradient_close, assert_matches_twin

PLANE = GridConfig(2, 12, 64, 512, log2_table_size=14, n_features=1)
TORSO = GridConfig(2, 16, 16, 2048, log2_table_size=16, n_features=2, kind="tiled")


def random_points(n, config, device, dtype=torch.float32, bound=1.0):
    return (torch.rand(n, config.n_dims, device=device, dtype=dtype) * 2 - 1) * bound


def random_table(config, device, dtype=torch.float32):
    return torch.randn(config.n_entries, config.n_features, device=device, dtype=dtype)


def float32_tolerance(config):
    """A coordinate at the finest level is rounded by resolution x 2^-24, fused or not, and the table varies by
    several units from entry to entry."""
    return {"rtol": 1e-5, "atol": 2e-6 + 16 * config.finest_resolution * 2**-24}


def float32_position_gradient_within(config, upstream):
    """How far two float32 gradients to positions may be apart, by element [N, D].

    A coordinate's rounding moves the slopes of the corners, relative to 1 rather than to themselves, and terms of all
    corners, levels and features cancel; table entries are of order 1. Against float64 each of the two was seen off by
    up to 2 of these units.
    """
    by_level = upstream.abs().view(len(upstream), config.n_levels, -1).sum(2)
    terms = 2**config.n_dims * (by_level * upstream.new_tensor(config.level_scales) / 2).sum(1, keepdim=True)
    return (4 * config.finest_resolution * 2**-24 * terms).expand(-1, config.n_dims)


def points_inside_cells(n, config, device, dtype=torch.float64):
    """Points whose coordinates are away from the cell faces of every level, where the op has kinks."""
    points = random_points(64 * n, config, device, dtype)
    for scale in config.level_scales:
        fraction = ((points + 1) / 2 * scale + 0.5) % 1
        points = points[((fraction > 0.02) & (fraction < 0.98)).all(1)]
    assert len(points) >= n
    return points[:n].contiguous()


def test_plane_geometry_of_the_spec():
    offsets = (0, 4232, 10480, 19512, 32512, 48896, 65280, 81664, 98048, 114432, 130816, 147200, 163584)
    assert PLANE.level_offsets == offsets
    assert PLANE.level_resolutions == (64, 78, 94, 113, 137, 165, 199, 241, 291, 351, 424, 512)
    scales = (63.0, 76.31773, 92.40673, 111.84368, 135.32526, 163.69312, 197.96402, 239.36633, 289.38403)
    assert PLANE.level_scales[:9] == pytest.approx(scales, abs=5e-6)
    assert PLANE.level_scales[11] == 511.0


def test_torso_geometry_of_the_spec():
    resolutions = (16, 23, 31, 43, 59, 81, 112, 154, 213, 295, 407, 562, 777, 1073, 1483, 2048)
    assert TORSO.level_resolutions == resolutions
    sizes = (296, 576, 1024, 1936, 3600, 6728, 12776, 24032, 45800, *[65536] * 7)
    assert TORSO.level_offsets == tuple(itertools.accumulate(sizes, initial=0))
    assert TORSO.n_entries == 555520


@pytest.mark.parametrize(
    ("config", "level", "cell", "slot"),
    [
        (PLANE, 11, (3, 5), 8310),
        (PLANE, 11, (511, 1), 14414),
        (PLANE, 11, (100, 200), 4652),
        (PLANE, 11, (424, 424), 3200),
        (TORSO, 15, (2048, 2048), 4096),
        (TORSO, 15, (1000, 37), 11277),
    ],
)
def test_slots_of_the_spec(config, level, cell, slot, device):
    # The last cell of an axis is met only by the upper corner, at the far end of the box.
    table = torch.zeros(config.n_entries, config.n_features, device=device)
    table[config.level_offsets[level] + slot] = 1
    scale = config.level_scales[level]
    position = [[min(1.0, 2 * (c - 0.5) / scale - 1) for c in cell]]
    features = grid_encode(torch.tensor(position, device=device), table, config)
    feature = features[0, level * config.n_features].item()
    # At c - 0.5 the lower corner is c with all of the weight; at the end of the box the upper one has half of it.
    weight = 1.0
    for c in cell:
        weight *= min(1.0, scale + 0.5 - (c - 1)) if c > scale else 1.0
    assert feature == pytest.approx(weight, abs=2e-3)


def test_hand_worked_value(device):
    config = GridConfig(2, 1, 3, 3, n_features=1)  # scale 2: u in [0, 1] -> p in [0.5, 2.5], row length 4
    table = torch.arange(16.0, device=device)[:, None]
    # x = -0.5 -> u = 0.25 -> p = 1.0: cell 1, fraction 0.   y = 0.5 -> u = 0.75 -> p = 2.0: cell 2, fraction 0.
    # x = 0 -> p = 1.5: halfway between cells 1 and 2;       y = -1 -> p = 0.5: halfway between rows 0 and 1.
    positions = torch.tensor([[-0.5, 0.5], [0.0, -1.0]], device=device)
    features = grid_encode(positions, table, config)
    assert features.flatten().tolist() == [1 + 2 * 4, (1 + 2 + 5 + 6) / 4]


@pytest.mark.parametrize("kind", ["hash", "tiled", "dense"])
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("n_features", [1, 2, 4, 8])
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_matches_twin(kind, n_dims, n_features, interpolation, device):
    check_twin(GridConfig(n_dims, 5, 4, 37, 9, n_features, kind, interpolation), device)


@pytest.mark.parametrize(("n_dims", "n_features"), [(2, 1), (2, 2), (3, 8)])
def test_variant_for_cuda_matches_twin(n_dims, n_features, device, variant_for_cuda):
    check_twin(GridConfig(n_dims, 5, 4, 37, 9, n_features, "hash", "smoothstep"), device)


def check_twin(config, device):
    positions = random_points(333, config, device).requires_grad_()
    table = random_table(config, device).requires_grad_()
    assert_matches_twin(
        lambda x, t: grid_encode(x, t, config),
        lambda x, t: reference.grid_encode(x, t, config),
        [positions, table],
        value_scale=config.finest_resolution,  # of which a coordinate's rounding is a fraction
        value_tolerance=float32_tolerance(config),
        gradients_within=lambda upstream: [float32_position_gradient_within(config, upstream[0]), None],
    )


@pytest.mark.parametrize("config", [PLANE, TORSO, GridConfig(3, 8, 16, 2048)])
def test_matches_twin_in_float64_at_real_sizes(config, device, each_variant):
    positions = random_points(5003, config, device, torch.float64, bound=2.5).requires_grad_()
    table = random_table(config, device, torch.float64).requires_grad_()
    assert_matches_twin(
        lambda x, t: grid_encode(x, t, config, bound=2.5),
        lambda x, t: reference.grid_encode(x, t, config, bound=2.5),
        [positions, table],
        value_scale=1e3,
    )


@pytest.mark.parametrize("n", [0, 1, 2, 511, 512, 513, 2047, 2048, 2049, 3 * 2048 + 7])
def test_sizes_across_every_block(n, device, each_variant):
    config = GridConfig(2, 4, 8, 64, 8, 2)
    assert_matches_twin(
        lambda x, t: grid_encode(x, t, config),
        lambda x, t: reference.grid_encode(x, t, config),
        [random_points(n, config, device).requires_grad_(), random_table(config, device).requires_grad_()],
        value_scale=256,
        value_tolerance=float32_tolerance(config),
    )


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_gradcheck(n_dims, interpolation, device, each_variant):
    config = GridConfig(n_dims, 3, 3, 7, 5, 2, interpolation=interpolation)
    positions = points_inside_cells(6, config, device).requires_grad_()
    table = random_table(config, device, torch.float64).requires_grad_()
    # On CUDA the scatter adds in any order.
    assert torch.autograd.gradcheck(lambda x, t: grid_encode(x, t, config), (positions, table), nondet_tol=1e-12)


def test_outside_points_have_no_features_and_no_gradients(device, each_variant):
    config = GridConfig(2, 4, 8, 64, 8, 2)
    positions = torch.tensor(
        [[1.001, 0], [0, -1.001], [torch.nan, 0], [torch.inf, 0], [0, -torch.inf], [3e9, 0]], device=device
    ).requires_grad_()
    table = random_table(config, device).requires_grad_()
    features = grid_encode(positions, table, config)
    grads = torch.autograd.grad(features, (positions, table), torch.randn_like(features))
    for tensor in (features, *grads):
        assert torch.equal(tensor, torch.zeros_like(tensor))


def test_box_faces_are_inside(device, each_variant):
    config = GridConfig(3, 2, 8, 16)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), device=device)
    features = grid_encode(corners, torch.ones(config.n_entries, config.n_features, device=device), config)
    torch.testing.assert_close(features, torch.ones_like(features))


def test_row_major_and_channel_major_gradients_agree(device):
    config = GridConfig(2, 6, 8, 64, 8, 2)
    positions, table = random_points(4099, config, device).requires_grad_(), random_table(config, device)
    table.requires_grad_()
    upstream = torch.randn(4099, config.n_outputs, device=device)
    results = []
    for layout in (upstream, upstream.t().contiguous().t(), upstream[:, None].expand(-1, 2, -1)[:, 0]):
        results.append(torch.autograd.grad(grid_encode(positions, table, config), (positions, table), layout))
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
    # autograd's expanded gradient of a sum
    (ones,) = torch.autograd.grad(grid_encode(positions, table, config).sum(), table)
    (same,) = torch.autograd.grad(grid_encode(positions, table, config), table, torch.ones_like(upstream))
    torch.testing.assert_close(ones, same, rtol=1e-5, atol=1e-4)


def test_cpu_scatter_is_bitwise_reproducible(device):
    if device.type != "cpu":
        pytest.skip("atomics add in any order on CUDA")
    config = GridConfig(2, 14, 64, 512, 14, 1)
    positions, table = random_points(50_000, config, device), random_table(config, device).requires_grad_()
    upstream = torch.randn(50_000, config.n_outputs)
    gradients = []
    threads = torch.get_num_threads()
    try:
        for n_threads in (threads, threads, 1, 5):  # the number of task groups follows torch's threads
            torch.set_num_threads(n_threads)
            gradients.append(torch.autograd.grad(grid_encode(positions, table, config), table, upstream)[0])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(g, gradients[0]) for g in gradients)


def table_gradient(positions, config, upstream, dtype=None):
    table = torch.zeros(config.n_entries, config.n_features, device=positions.device, dtype=dtype or positions.dtype)
    return torch.autograd.grad(grid_encode(positions, table.requires_grad_(), config), table, upstream)[0]


@pytest.mark.parametrize("n_features", [1, 2])
def test_points_without_a_gradient_are_skipped_but_not_nan(n_features, device, variant_for_cuda):
    config = GridConfig(2, 2, 3, 5, n_features=n_features)
    positions = random_points(40, config, device, torch.float64)
    upstream = torch.randn(40, config.n_outputs, device=device, dtype=torch.float64)
    upstream[:20] = 0
    upstream[20:, 0] = 0
    expected = table_gradient(positions[20:], config, upstream[20:])
    assert torch.equal(table_gradient(positions, config, upstream) == 0, expected == 0)
    torch.testing.assert_close(table_gradient(positions, config, upstream), expected, rtol=1e-12, atol=1e-12)
    upstream[3, 0] = torch.nan
    n_corners = 4
    assert table_gradient(positions, config, upstream).isnan().sum() == n_corners


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize(("n_dims", "n_features"), [(2, 1), (2, 2), (3, 2)])
def test_deterministic_scatter_matches_twin(n_dims, n_features, interpolation, dtype, device, deterministic_variant):
    config = GridConfig(n_dims, 5, 4, 37, 9, n_features, interpolation=interpolation)
    assert_matches_twin(
        lambda x, t: grid_encode(x, t, config),
        lambda x, t: reference.grid_encode(x, t, config),
        [random_points(333, config, device, dtype), random_table(config, device, dtype).requires_grad_()],
        value_scale=config.finest_resolution,
        value_tolerance=float32_tolerance(config) if dtype == torch.float32 else None,
    )


def test_deterministic_scatter_does_not_depend_on_the_order_of_points(device, deterministic_variant):
    config = GridConfig(2, 3, 4, 16, 6, 2)  # few entries: hundreds of sums for each
    positions = random_points(20_000, config, device)
    # Magnitudes over 30 decades, and many points that cancel.
    upstream = torch.randn(20_000, config.n_outputs, device=device)
    upstream *= 10 ** (torch.rand(20_000, 1, device=device) * 30 - 20)
    positions, upstream = torch.cat((positions, positions)), torch.cat((upstream, -upstream))
    upstream[:5000] *= 0.5
    expected = table_gradient(positions, config, upstream)
    assert expected.any()
    for _ in range(3):
        order = torch.randperm(len(positions), device=device)
        assert torch.equal(table_gradient(positions[order], config, upstream[order]), expected)


def test_deterministic_scatter_keeps_small_gradients(device, deterministic_variant):
    # From one side of the box to the other upstream gradients fall by nine decades.
    config = GridConfig(2, 1, 16, 16, n_features=1)
    positions = random_points(20_000, config, device, torch.float64)
    upstream = torch.randn(20_000, 1, device=device, dtype=torch.float64) * 10 ** (-4.5 * (positions[:, :1] + 1))
    gradient = table_gradient(positions, config, upstream)
    table = torch.zeros(config.n_entries, 1, device=device, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(reference.grid_encode(positions, table, config), table, upstream)
    magnitudes = table_gradient(positions, config, upstream.abs())
    assert 0 < magnitudes[magnitudes > 0].min() < 1e-8 * magnitudes.max()
    assert ((gradient - expected).abs() <= 1e-4 * magnitudes).all()


@pytest.mark.parametrize("magnitude", [0.0, 1e-37, 1e-30, 1e-3, 1e30, 3e37])
def test_deterministic_scatter_of_any_magnitude(magnitude, device, deterministic_variant):
    config = GridConfig(2, 2, 3, 5, n_features=1)
    positions = random_points(50, config, device)
    upstream = torch.randn(50, config.n_outputs, device=device).clamp(-2, 2)
    expected = table_gradient(positions, config, upstream) * magnitude
    smallest = torch.finfo(torch.float32).tiny  # the least unit: each of up to ten or so terms is rounded to it
    atol = 1e-5 * magnitude + 10 * smallest
    torch.testing.assert_close(table_gradient(positions, config, upstream * magnitude), expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_deterministic_scatter_of_what_is_not_finite(bad, device, deterministic_variant):
    config = GridConfig(2, 2, 3, 5, n_features=1)
    upstream = torch.randn(10, config.n_outputs, device=device)
    upstream[4, 1] = bad
    assert table_gradient(random_points(10, config, device), config, upstream).isnan().all()


def test_deterministic_scatter_of_float16_tables_and_no_points(device, deterministic_variant):
    config = GridConfig(2, 4, 8, 64, 8, 2)
    positions = random_points(1000, config, device)
    upstream = torch.randn(1000, config.n_outputs, device=device).half()
    gradient = table_gradient(positions, config, upstream, torch.float16)
    assert gradient.dtype == torch.float16
    expected = table_gradient(positions, config, upstream.float())
    torch.testing.assert_close(gradient.float(), expected, rtol=2e-3, atol=2e-3)
    assert not table_gradient(positions[:0], config, upstream[:0].float()).any()


def test_one_input_at_a_time(device):
    config = GridConfig(2, 4, 8, 64, 8, 2)
    positions, table = random_points(100, config, device), random_table(config, device)
    upstream = torch.randn(100, config.n_outputs, device=device)
    both = torch.autograd.grad(
        grid_encode(positions.requires_grad_(), table.requires_grad_(), config), (positions, table), upstream
    )
    (only_positions,) = torch.autograd.grad(grid_encode(positions, table.detach(), config), positions, upstream)
    (only_table,) = torch.autograd.grad(grid_encode(positions.detach(), table, config), table, upstream)
    assert torch.equal(only_positions, both[0])
    assert_gradient_close(only_table, both[1], "table")


def test_gradient_is_not_doubled_by_reuse(device):
    # A backward that returns a leaf's own .grad doubles it; used twice in one graph it triples.
    config = GridConfig(2, 2, 4, 8, n_features=1)
    encoding = GridEncoding(config).to(device)
    positions = random_points(10, config, device)
    encoding(positions).sum().backward()
    once = encoding.table.grad.clone()
    encoding.table.grad = None
    (encoding(positions) + encoding(positions)).sum().backward()
    torch.testing.assert_close(encoding.table.grad, 2 * once)


def test_float16_table(device, each_variant):
    config = GridConfig(2, 4, 8, 64, 8, 2)
    positions = random_points(1000, config, device).requires_grad_()
    table = random_table(config, device).half().requires_grad_()
    features = grid_encode(positions, table, config)
    assert features.dtype == torch.float16
    wide = table.detach().float().requires_grad_()
    expected = grid_encode(positions, wide, config)
    torch.testing.assert_close(features.float(), expected, rtol=1e-3, atol=1e-3)
    upstream = torch.randn(1000, config.n_outputs, device=device).half()
    grads = torch.autograd.grad(features, (positions, table), upstream)
    wide_grads = torch.autograd.grad(expected, (positions, wide), upstream.float())
    assert grads[0].dtype == torch.float32 and grads[1].dtype == torch.float16
    torch.testing.assert_close(grads[0], wide_grads[0], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(grads[1].float(), wide_grads[1], rtol=2e-3, atol=2e-3)


def test_module(device):
    encoding = GridEncoding(PLANE, bound=2.0).to(device)
    assert encoding.table.shape == (163584, 1)
    assert 0.9e-4 < encoding.table.abs().max() <= 1e-4
    positions = random_points(10, PLANE, device, bound=2.0)
    torch.testing.assert_close(encoding(positions), grid_encode(positions, encoding.table, PLANE, 2.0))
    assert "n_levels=12" in repr(encoding)


def test_wrapped_strides_match_the_twin():
    # (res + 1)^3 exceeds 2^32 here and wraps to less than the table, as in the torch-ngp kernels.
    config = GridConfig(3, 2, 16, 2048, log2_table_size=24, n_features=1)
    n_slots = config.level_offsets[2] - config.level_offsets[1]
    assert not level_strides(3, config.n_corners(config.level_resolutions[1]), n_slots, config.kind)[1]
    corner = torch.tensor([[2000, 1999, 1234]])
    slot = reference.corner_slots(corner, 2049, 2**24, "hash")
    assert slot.item() == (2000 + 1999 * 2049 + 1234 * 2049**2) % 2**32 % 2**24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_dims": 4}, "GridConfig.n_dims: expected 2 or 3, got 4; change the field"),
        ({"n_levels": 0}, "GridConfig.n_levels: expected at least 1, got 0; change the field"),
        ({"finest_resolution": 2}, "GridConfig.finest_resolution: expected at least base_resolution = 4"),
        ({"n_levels": 1}, "and equal to it for one level, got 8"),
        ({"n_features": 3}, "GridConfig.n_features: expected 1, 2, 4 or 8, got 3"),
        ({"kind": "sparse"}, 'GridConfig.kind: expected "hash", "tiled" or "dense", got sparse'),
        ({"interpolation": "cubic"}, 'expected "linear" or "smoothstep", got cubic'),
        ({"log2_table_size": 2}, "expected 3 to 28, got 2"),
        ({"n_dims": 3, "kind": "dense", "finest_resolution": 2048}, "a table of fewer than 2^31 numbers"),
    ],
)
def test_config_errors(change, message):
    fields = {"n_dims": 2, "n_levels": 2, "base_resolution": 4, "finest_resolution": 8} | change
    with pytest.raises(ValueError) as error:
        GridConfig(**fields)
    assert message in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bound", [1.0, 1.7, 3.4, 3.9, 4.3, 0.3])
def test_faces_of_the_box_are_inside(bound, dtype, device):
    config = GridConfig(2, 2, 4, 9)
    table = random_table(config, device, dtype) + 10
    faces = torch.cartesian_prod(*2 * [torch.tensor([-bound, bound], dtype=dtype)]).to(device)
    features = grid_encode(faces, table, config, bound)
    torch.testing.assert_close(features, reference.grid_encode(faces, table, config, bound))
    assert (features > 1).all()


@pytest.mark.parametrize("kind", ["hash", "tiled", "dense"])
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_twin_with_aligned_corners(kind, interpolation, device):
    config = GridConfig(2, 3, 4, 16, 8, kind=kind, interpolation=interpolation, align_corners=True)
    table = random_table(config, device, torch.float64)
    positions = random_points(50, config, device, torch.float64)
    torch.testing.assert_close(grid_encode(positions, table, config), reference.grid_encode(positions, table, config))


def test_dense_levels_share_no_entries():
    for n_dims, n_levels, base, finest in itertools.product((2, 3), (2, 5, 12), (2, 3, 7), (64, 100, 101)):
        for align_corners in (False, True):
            config = GridConfig(n_dims, n_levels, base, finest, kind="dense", n_features=1, align_corners=align_corners)
            for level, resolution in enumerate(config.level_resolutions):
                begin, end = config.level_offsets[level : level + 2]
                assert end - begin >= config.n_corners(resolution) ** n_dims


@pytest.mark.parametrize("change", [{"n_dims": 2.0}, {"log2_table_size": 9.5}, {"finest_resolution": float("inf")}])
def test_fields_are_integers(change):
    options = {"n_dims": 2, "n_levels": 3, "base_resolution": 4, "finest_resolution": 16}
    with pytest.raises(TypeError, match=f"GridConfig.{next(iter(change))}: expected an integer"):
        GridConfig(**options | change)
