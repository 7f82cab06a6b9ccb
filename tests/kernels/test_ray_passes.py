import pytest
import torch

from taichi_kernels import RayMarch, RaySums, blend_samples_, composite, empty_blocks, march_rays, reference
from taichi_kernels.reference.ray_aabb import intersect_aabb
from tests.kernels.scene import random_rays, shell_bitfield

pytestmark = pytest.mark.usefixtures("each_variant")

CASES = {
    "constant step": {"max_steps": 16},
    "short steps": {"max_steps": 256},
    "growing step": {"max_steps": 256, "dt_gamma": 1 / 64},
    "cascades": {"max_steps": 128, "bound": 4.0, "dt_gamma": 1 / 128},
}


def scene(options, n, device, dtype):
    """Rays, boxes and bits of a shell; a box around the occupied cells that is smaller than the scene."""
    bound = options.get("bound", 1.0)
    rays_o, rays_d, _, _ = random_rays(n, device, dtype, bound)
    box = torch.tensor([-1, -0.8, -0.7, 1, 0.8, 0.9], dtype=dtype, device=device) * bound
    # No face of a cell: rounding would decide where a ray is that enters there.
    aabb = (-bound, -bound, -bound, bound, bound, 0.47 * bound)
    return (rays_o, rays_d, aabb, box), shell_bitfield(device, bound=bound)


def all_rays(n, device):
    return torch.arange(n, dtype=torch.int32, device=device)


def values_at(positions, n_plain=2):
    """Density and color in closed form, and plain channels."""
    sigmas = 3 + 30 * torch.exp(-8 * (positions.norm(dim=1) - 0.5) ** 2)
    rgb = torch.sin(3 * positions) ** 2
    plain = [positions[:, 0].abs() + k for k in range(n_plain)]
    return torch.stack((sigmas, *rgb.unbind(1), *plain))


@pytest.mark.parametrize("case", CASES)
def test_matches_twin(case, device):
    # In float64, where no sample is within rounding of a cell's face.
    options, n = CASES[case], 831
    arguments, bitfield = scene(options, n, device, torch.float64)
    march = RayMarch(*arguments, empty_blocks(bitfield, options.get("bound", 1.0)), **options)
    twin = reference.RayMarch(*arguments, bitfield, **options)
    sums, rows = RaySums.begin(arguments[0], 2), RaySums.begin(arguments[0], 2).rows
    rays, n_samples, n_ended = all_rays(n, device), 0, 0
    for most in (2, 1, 5, 2):
        samples, (positions, directions, ts, deltas, begins, counts) = march.take(rays, most), twin.take(rays, most)
        assert torch.equal(samples.counts, counts) and torch.equal(samples.begins, begins)
        torch.testing.assert_close(samples.positions, positions, rtol=1e-12, atol=1e-12)
        assert torch.equal(samples.directions, directions)
        goes_on = blend_samples_(sums, values_at(positions), samples, 0.4)
        is_open = reference.blend_samples_(rows, values_at(positions), ts, deltas, rays, begins, counts, 0.4)
        torch.testing.assert_close(sums.rows, rows)
        assert torch.equal(goes_on, is_open & (counts == most))
        n_samples, n_ended = n_samples + len(positions), n_ended + int((~is_open).sum())
        rays = rays[goes_on]
    assert n_samples > 300 and n_ended > 0


@pytest.mark.parametrize("case", ["constant step", "growing step"])
def test_has_the_sums_of_march_and_composite(case, device):
    options = CASES[case]
    (rays_o, rays_d, aabb, box), bitfield = scene(options, 500, device, torch.float32)
    t_near, t_far = intersect_aabb(rays_o, rays_d, aabb, 0.05)
    first, last = intersect_aabb(rays_o, rays_d, box, 0.05)
    marched = march_rays(rays_o, rays_d, t_near, torch.minimum(t_far, last) * (first < last), bitfield, **options)
    sigmas, *weighted = values_at(marched.positions, 0)
    weighted = torch.stack((*weighted, marched.ts + marched.deltas), 1)
    expected = composite(sigmas, marched.deltas, weighted, None, marched.packed_info, 1e-2)
    march, sums = RayMarch(rays_o, rays_d, aabb, box, empty_blocks(bitfield), **options), RaySums.begin(rays_o)
    rays, counts = all_rays(500, device), torch.zeros(500, dtype=torch.int32, device=device)
    while len(rays):
        samples = march.take(rays, 3)
        counts[rays] += samples.counts
        rays = rays[blend_samples_(sums, values_at(samples.positions, 0), samples, 1e-2)]
    torch.testing.assert_close(sums.rgb, expected.weighted[:, :3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums.depth, expected.weighted[:, 3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums.opacity, expected.opacity, rtol=1e-4, atol=1e-5)
    assert sums.summed.shape == (500, 0)
    # Rays end early, and never have samples that they do not have there.
    assert counts.sum() < 0.9 * len(marched.ts) and (counts <= marched.packed_info[:, 1]).all()


@pytest.mark.parametrize("bound", [1.0, 2.0])
@pytest.mark.parametrize("resolution", [2, 32])
def test_empty_blocks_match_their_twin(resolution, bound, device):
    torch.manual_seed(0)
    n_bytes = (2 if bound > 1 else 1) * resolution**3 // 8
    bitfield = (torch.rand(n_bytes, device=device) < 0.02).to(torch.uint8) * 16
    blocks = empty_blocks(bitfield, bound)
    assert torch.equal(blocks, reference.empty_blocks(bitfield, bound))
    if resolution == 32 and bound == 1.0:
        assert set(blocks.unique().tolist()) >= {0, 1, 2, 3}


def test_rays_without_samples(device):
    (rays_o, rays_d, aabb, box), bitfield = scene({}, 4, device, torch.float32)
    rays_o[0], rays_d[1] = torch.nan, torch.nan
    rays_o[2], rays_d[2] = torch.tensor([5.0, 5, 5]), torch.tensor([0.0, 0, 1])
    rays_o[3], rays_d[3] = torch.tensor([-1e9, 0.0, 0]), torch.tensor([1.0, 0, 0])  # no step is felt so far away
    march = RayMarch(rays_o, rays_d, aabb, box, empty_blocks(bitfield), max_steps=16)
    samples = march.take(all_rays(4, device), 2)
    assert len(samples.positions) == 0 and samples.counts.tolist() == [0, 0, 0, 0]
    sums = RaySums.begin(rays_o)
    assert not blend_samples_(sums, rays_o.new_empty(4, 0), samples).any()
    assert (sums.rows[:, :5] == 0).all()
    nobody = RayMarch(rays_o[:0], rays_d[:0], aabb, box, empty_blocks(bitfield)).take(all_rays(0, device), 2)
    assert len(blend_samples_(RaySums.begin(rays_o[:0]), rays_o.new_empty(4, 0), nobody)) == 0


def test_at_most_as_many_samples_as_steps(device):
    arguments, bitfield = scene({}, 50, device, torch.float32)
    march = RayMarch(*arguments, empty_blocks(torch.full_like(bitfield, 255)), max_steps=5)
    rays = all_rays(50, device)
    counts = march.take(rays, 3).counts + march.take(rays, 3).counts
    assert counts.max() == 5 and march.take(rays, 3).counts.max() == 0


def test_the_passes_end(device):
    # Also for rays that are transparent after as many samples as a ray may have.
    (rays_o, *others), bitfield = scene({}, 50, device, torch.float32)
    march, sums, rays = RayMarch(rays_o, *others, empty_blocks(bitfield), max_steps=4), RaySums.begin(rays_o), None
    n_passes = 0
    rays = all_rays(50, device)
    while len(rays):
        samples = march.take(rays, 2)
        rays = rays[blend_samples_(sums, torch.full((4, len(samples.positions)), 0.1, device=device), samples)]
        n_passes += 1
        assert n_passes <= 3
    assert n_passes == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_no_ray_has_no_samples(dtype, device):
    n = 200
    (rays_o, rays_d, *others), bitfield = scene({}, n, device, dtype)
    rays_d[0] = 0.0
    alone = RayMarch(rays_o, rays_d, *others, empty_blocks(bitfield)).take(all_rays(n, device), 8).counts
    first, last = alone.nonzero()[:, 0][[0, -1]].tolist()
    assert 0 < first < last
    rays = torch.tensor([-1, first, 10**9, n, 0, last], dtype=torch.int32, device=device)
    samples = RayMarch(rays_o, rays_d, *others, empty_blocks(bitfield)).take(rays, 8)
    assert samples.counts.tolist() == [0, int(alone[first]), 0, 0, 0, int(alone[last])]
    rows = RaySums.begin(rays_o).rows
    before, values = rows.clone(), values_at(samples.positions, 0)
    blend_samples_(RaySums(rows[:last]), values, samples)  # sums that do not reach to the last ray
    assert not torch.equal(rows[first], before[first])
    rows[first] = before[first]
    assert torch.equal(rows, before)


def test_blending_is_seen_by_autograd(device):
    (rays_o, *others), bitfield = scene({}, 5, device, torch.float32)
    march, sums = RayMarch(rays_o, *others, empty_blocks(bitfield)), RaySums.begin(rays_o)
    samples = march.take(all_rays(5, device), 4)
    weight = torch.ones((), device=device, requires_grad=True)
    loss = (weight * sums.rows).sum()
    blend_samples_(sums, values_at(samples.positions, 0), samples)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_errors(device):
    arguments, bitfield = scene({}, 3, device, torch.float32)
    blocks = empty_blocks(bitfield)
    rays_o, rays_d, aabb, box = arguments
    with pytest.raises(ValueError, match="aabb: expected xmin, ymin, zmin"):
        RayMarch(rays_o, rays_d, aabb[:3], box, blocks)
    with pytest.raises(ValueError, match="rays_o: expected a tensor that requires no gradient"):
        RayMarch(rays_o.clone().requires_grad_(), rays_d, aabb, box, blocks)
    with pytest.raises(ValueError, match="blocks: expected C R"):
        RayMarch(rays_o, rays_d, aabb, box, blocks[:-8])
    march = RayMarch(*arguments, blocks)
    with pytest.raises(ValueError, match="most: expected at least 1, got 0"):
        march.take(all_rays(3, device), 0)
    samples = march.take(all_rays(3, device), 2)
    with pytest.raises(ValueError, match=r"sums\.rows: expected shape \[N, 7\], got \[3, 6\]"):
        blend_samples_(RaySums.begin(rays_o), rays_o.new_zeros(5, len(samples.positions)), samples)
    with pytest.raises(ValueError, match=r"samples\.directions: expected shape"):
        blend_samples_(RaySums.begin(rays_o), rays_o.new_zeros(4, len(samples.positions) + 1), samples)
