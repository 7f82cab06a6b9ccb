import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from taichi_kernels import (
    cell_centers,
    intersect_aabb,
    march_rays,
    morton_encode,
    pack_bits,
    ray_marching,
    reference,
)
from taichi_kernels.lattice import make_lattice
from taichi_kernels.reference.occupancy_grid import unpack_bits
from tests.compare import assert_gradient_close
from tests.kernels.scene import random_rays, shell_bitfield

pytestmark = pytest.mark.usefixtures("each_variant")

CASES = {
    "constant step": {"max_steps": 16},
    "short steps": {"max_steps": 1024},
    "few samples": {"max_steps": 512, "max_samples": 5},
    "growing step": {"max_steps": 512, "dt_gamma": 1 / 64},
    "cascades": {"max_steps": 256, "bound": 4.0, "dt_gamma": 1 / 128},
    "bound between powers": {"max_steps": 256, "bound": 3.0, "dt_gamma": 1 / 16},
}


def full_bitfield(device, resolution=128):
    return torch.full((resolution**3 // 8,), 255, dtype=torch.uint8, device=device)


def march_case(options, n, device, dtype, jitter=True):
    bound = options.get("bound", 1.0)
    rays = random_rays(n, device, dtype, bound)
    bitfield = shell_bitfield(device, bound=bound)
    noise = torch.rand(n, device=device, dtype=dtype) if jitter else None
    return (*rays, bitfield), options | {"noise": noise}


@pytest.mark.parametrize("case", CASES)
def test_matches_twin(case, device):
    # In float64, where no sample is within rounding of a cell's face.
    args, options = march_case(CASES[case], 1031, device, torch.float64)
    samples = march_rays(*args, **options)
    expected = reference.march_rays(*args, **options)
    assert len(samples.ts) > 1000
    assert torch.equal(samples.packed_info, expected[4])
    for result, reference_result in zip(samples[:4], expected[:4], strict=True):
        torch.testing.assert_close(result, reference_result, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_matches_twin_in_float32(case, device):
    args, options = march_case(CASES[case], 1031, device, torch.float32)
    samples = march_rays(*args, **options)
    _, _, ts, deltas, packed_info, _ = reference.march_rays(*args, **options)
    same = samples.packed_info[:, 1] == packed_info[:, 1]
    assert same.float().mean() > 0.99
    close = 0
    for ray in torch.nonzero(same).flatten().tolist():
        (a, count), (b, _) = samples.packed_info[ray].tolist(), packed_info[ray].tolist()
        close += torch.allclose(samples.ts[a : a + count], ts[b : b + count], rtol=1e-5)
    assert close > 0.99 * len(packed_info)
    assert abs(len(ts) - len(samples.ts)) < 0.01 * len(ts)
    assert deltas.min() >= samples.deltas.min() * 0.999


@pytest.mark.parametrize("case", CASES)
def test_properties(case, device):
    options = CASES[case]
    args, options = march_case(options, 4099, device, torch.float32)
    rays_o, rays_d, t_near, t_far, bitfield = args
    samples = march_rays(*args, **options)
    start, count = samples.packed_info.long().unbind(1)
    ray = torch.repeat_interleave(torch.arange(len(rays_o), device=device), count)
    bound, max_samples = options.get("bound", 1.0), options.get("max_samples", options["max_steps"])

    assert torch.equal(start, count.cumsum(0) - count)  # row i is ray i, no gaps
    assert count.sum() == len(samples.ts)  # exact allocation
    assert count.max() <= max_samples and count.max() > 1
    assert torch.equal(samples.directions, rays_d[ray])
    assert ((samples.ts >= t_near[ray]) & (samples.ts < t_far[ray])).all()
    along = rays_o[ray] + samples.ts[:, None] * rays_d[ray]
    torch.testing.assert_close(samples.positions, along.clamp(-bound, bound), rtol=1e-5, atol=1e-5 * bound)
    # Steps do not overlap, and every sample lies in an occupied cell of its cascade.
    same_ray = ray[1:] == ray[:-1]
    assert (samples.ts[1:] - samples.ts[:-1] >= 0.999 * samples.deltas[:-1])[same_ray].all()
    n_cascades = 1 + max(0, math.ceil(math.log2(bound)))
    resolution = round((8 * len(bitfield) / n_cascades) ** (1 / 3))
    exponents = torch.maximum(
        torch.frexp(samples.positions.abs().amax(1))[1], torch.frexp(samples.deltas * resolution / 2)[1]
    )
    cascade = exponents.clamp(0, n_cascades - 1)
    half_side = (2.0**cascade).clamp(max=bound)[:, None]
    cells = (0.5 * (samples.positions / half_side + 1) * resolution).clamp(0, resolution - 1).int()
    index = cascade * resolution**3 + morton_encode(cells)
    assert unpack_bits(bitfield)[index.long()].float().mean() > 0.999  # the rest: within rounding of a face


def test_deterministic(device):
    args, options = march_case(CASES["short steps"], 5000, device, torch.float32)
    first, second = march_rays(*args, **options), march_rays(*args, **options)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_full_box_of_the_spec(device):
    # dt = 0.027063293 for the defaults; a full box gives exactly 16 samples.
    rays_o = torch.tensor([[0.0, 3.2, 0.0]], device=device)
    rays_d = torch.tensor([[0.0, -1.0, 0.0]], device=device)
    t_near, t_far = intersect_aabb(rays_o, rays_d, (-1, -0.5, -1, 1, 0.5, 1))
    samples = march_rays(rays_o, rays_d, t_near, t_far, full_bitfield(device), max_steps=16, dt_gamma=1 / 256)
    assert samples.packed_info.tolist() == [[0, 16]]
    torch.testing.assert_close(samples.deltas, torch.full((16,), 0.027063293, device=device))
    expected = 2.7 + 0.027063293 * torch.arange(16, device=device)
    torch.testing.assert_close(samples.ts, expected)
    torch.testing.assert_close(samples.positions[:, 1], 3.2 - expected, atol=2e-6, rtol=0)  # 16 float32 additions


def test_hand_worked_skip(device):
    # Two of four cells along x are occupied: [-1, -0.5) and [0.5, 1). R = 4: dt_max = 2 sqrt(3) / 4.
    bits = torch.zeros(64, dtype=torch.bool)
    for x in (0, 3):
        bits[morton_encode(torch.tensor([[x, 2, 2]], dtype=torch.int32, device=device)).item()] = True
    bitfield = (bits.reshape(8, 8) * 2 ** torch.arange(8)).sum(1).to(torch.uint8).to(device)
    rays_o, rays_d = torch.tensor([[-2.0, 0.1, 0.1]], device=device), torch.tensor([[1.0, 0, 0]], device=device)
    t_near, t_far = torch.tensor([1.0], device=device), torch.tensor([3.0], device=device)
    max_steps = 18  # dt = 2 sqrt(3) / 18 = 0.19245
    dt = 2 * math.sqrt(3) / max_steps
    samples = march_rays(rays_o, rays_d, t_near, t_far, bitfield, max_steps=max_steps)
    # Lattice t = 1 + k dt, x = -1 + k dt: k = 0, 1, 2 lie below -0.5, and k = 8, 9, 10 between 0.5 and 1.
    expected = torch.tensor([1 + k * dt for k in (0, 1, 2, 8, 9, 10)], device=device)
    torch.testing.assert_close(samples.ts, expected)
    half = march_rays(
        rays_o, rays_d, t_near, t_far, bitfield, max_steps=max_steps, noise=torch.tensor([0.5], device=device)
    )
    torch.testing.assert_close(half.ts[0], torch.tensor(1 + dt / 2, device=device))


@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, 1031])
def test_sizes_and_full_and_empty_grids(n, device):
    rays = random_rays(n, device)
    full = march_rays(*rays, full_bitfield(device, 32), max_steps=64)
    assert full.packed_info.shape == (n, 2) and full.positions.shape == full.directions.shape == (len(full.ts), 3)
    empty = march_rays(*rays, torch.zeros_like(full_bitfield(device, 32)), max_steps=64)
    assert len(empty.ts) == 0 and (empty.packed_info == 0).all()
    expected = reference.march_rays(*rays, full_bitfield(device, 32), max_steps=64)
    assert (full.packed_info - expected[4])[:, 1].abs().sum() <= 0.001 * len(full.ts) + 1


def test_rays_that_miss(device):
    rays_o, rays_d, t_near, t_far = random_rays(64, device)
    rays_d = -rays_d
    t_near, t_far = intersect_aabb(rays_o, rays_d, (-1.0,) * 3 + (1.0,) * 3)
    samples = march_rays(rays_o, rays_d, t_near, t_far, full_bitfield(device, 32))
    assert len(samples.ts) == 0


def test_bad_rays_end_without_samples(device):
    # NaN and endless rays must not hang, write outside, or become a plausible picture.
    bitfield = full_bitfield(device, 32)
    for bad in range(4):
        rays = list(random_rays(8, device))
        rays[bad][:] = torch.nan
        assert len(march_rays(*rays, bitfield, max_steps=64).ts) == 0
    rays_o, rays_d, t_near, t_far = random_rays(200, device)
    endless = march_rays(rays_o, rays_d, t_near, torch.full_like(t_far, torch.inf), bitfield, max_steps=64)
    expected = march_rays(rays_o, rays_d, t_near, t_far, bitfield, max_steps=64)
    hit = t_near < t_far
    # A lattice point within rounding of the far face may count or not.
    assert ((endless.packed_info - expected.packed_info)[hit, 1].abs() <= 1).all()
    parallel = torch.tensor([[0.0, 0.0, 1.0]], device=device)
    beside = torch.tensor([[5.0, 0.0, -3.0]], device=device)
    zero, far = torch.zeros(1, device=device), torch.full((1,), 9.0, device=device)
    assert len(march_rays(beside, parallel, zero, far, bitfield).ts) == 0


@pytest.mark.parametrize("distance", [5.0, 1e3])
def test_a_start_before_the_cube_changes_nothing(distance, device):
    # Only the last cells along z are occupied; the lattice has many points before the cube.
    dtype = torch.float64
    rays_o = torch.tensor([[0.1, 0.1, distance]], device=device, dtype=dtype)
    rays_d = torch.tensor([[0.0, 0.0, -1.0]], device=device, dtype=dtype)
    bitfield = pack_bits((cell_centers(32, device=device)[:, 2] < -0.9).float()[None], 0.5)
    t_near, t_far = intersect_aabb(rays_o, rays_d, (-1.0,) * 3 + (1.0,) * 3)
    expected = march_rays(rays_o, rays_d, t_near, t_far, bitfield)
    assert len(expected.ts) > 10
    dt = expected.deltas[0]
    for n_before in (1, 500, 1200):
        early = march_rays(rays_o, rays_d, t_near - n_before * dt, t_far, bitfield)
        torch.testing.assert_close(early.ts, expected.ts, rtol=1e-9, atol=1e-9)


def test_nothing_outside_the_cube_is_a_sample(device):
    # All cells are occupied: clipped positions before or behind the cube must not count as inside.
    rays_o, rays_d, t_near, t_far = random_rays(300, device)
    everywhere = torch.zeros_like(t_near), torch.full_like(t_far, 10.0)
    samples = march_rays(rays_o, rays_d, *everywhere, full_bitfield(device, 32), max_steps=64)
    ray = torch.repeat_interleave(torch.arange(300, device=device), samples.packed_info[:, 1].long())
    unclipped = rays_o[ray] + samples.ts[:, None] * rays_d[ray]
    assert len(samples.ts) > 1000
    assert unclipped.abs().max() < 1 + 1e-3


def test_huge_max_samples(device):
    rays = random_rays(20, device)
    expected = march_rays(*rays, shell_bitfield(device), max_steps=64)
    assert torch.equal(march_rays(*rays, shell_bitfield(device), max_steps=64, max_samples=2**32).ts, expected.ts)


def test_gradients_to_rays(device):
    args, options = march_case(CASES["constant step"], 300, device, torch.float64)
    rays_o, rays_d = args[0].requires_grad_(), args[1].requires_grad_()
    samples = march_rays(rays_o, rays_d, *args[2:], **options)
    assert not samples.ts.requires_grad and not samples.deltas.requires_grad
    count = samples.packed_info[:, 1].long()
    assert (count == 0).any()
    ray = torch.repeat_interleave(torch.arange(300, device=device), count)
    expected = (rays_o[ray] + samples.ts[:, None] * rays_d[ray], rays_d[ray])
    upstream = [torch.randn_like(samples.positions) for _ in range(2)]
    gradients = torch.autograd.grad(samples[:2], (rays_o, rays_d), upstream)
    for name, a, b in zip(
        ("rays_o", "rays_d"), gradients, torch.autograd.grad(expected, (rays_o, rays_d), upstream), strict=True
    ):
        assert_gradient_close(a, b, name)


def test_gradcheck(device):
    rays_o, rays_d, t_near, t_far = random_rays(6, device, torch.float64)
    bitfield = full_bitfield(device, 8)  # full: a nudge of the ray does not change which points are samples

    def march(rays_o, rays_d):
        samples = march_rays(rays_o, rays_d, t_near + 0.1, t_far - 0.1, bitfield, max_steps=8)
        return samples.positions, samples.directions

    assert torch.autograd.gradcheck(march, (rays_o.requires_grad_(), rays_d.requires_grad_()))


def two_samples_a_ray(device, n_rays=3, dtype=torch.float32):
    """Rays that have two samples each: the arguments and options of a march."""
    rays_o = torch.tensor([[0.1, 0.1, -3.0]], device=device, dtype=dtype).repeat(n_rays, 1)
    rays_o[:, 0] += 0.05 * torch.arange(n_rays, device=device)
    rays_d = torch.tensor([[0.0, 0.0, 1.0]], device=device, dtype=dtype).repeat(n_rays, 1)
    t_near = torch.full((n_rays,), 2.5, device=device, dtype=dtype)
    options = {"max_steps": 64, "max_samples": 2}
    return (rays_o, rays_d, t_near, t_near + 1, full_bitfield(device, 32)), options


@pytest.mark.parametrize(
    ("capacity", "n_kept"),
    [(8, 6), (7, 6), (6, 6), (5, 4), (4, 4), (3, 2), (1, 0), (0, 0)],  # of three rays with two samples each
)
def test_capacity(capacity, n_kept, device):
    args, options = two_samples_a_ray(device)
    exact, padded = march_rays(*args, **options), march_rays(*args, **options, capacity=capacity)
    assert exact.packed_info[:, 1].tolist() == [2, 2, 2]
    assert exact.n_found.item() == padded.n_found.item() == 6
    assert padded.packed_info[:, 1].tolist() == [2 if 2 * i < n_kept else 0 for i in range(3)]
    assert padded.packed_info[:, 0].tolist() == [min(2 * i, capacity) for i in range(3)]
    for a, b in zip(padded[:4], exact[:4], strict=True):
        assert len(a) == capacity
        assert torch.equal(a[:n_kept], b[:n_kept])
        assert torch.equal(a[n_kept:], torch.zeros_like(a[n_kept:]))
    for a, b in zip(padded, reference.march_rays(*args, **options, capacity=capacity), strict=True):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=1e-6, atol=1e-6)


def test_no_ray_is_served_after_one_that_does_not_fit(device):
    # Rays with 5, 5, 0 and 1 samples and room for 7: the last would fit, but comes after the second.
    args, options = two_samples_a_ray(device, n_rays=4)
    options["max_samples"] = 5
    dt = march_rays(*args, **options).deltas[0]
    t_near, t_far = args[2:4]
    t_far = t_near + torch.tensor([1, 1, 0, 0.5 * dt], device=device)
    args = (*args[:2], t_near, t_far, args[4])
    assert march_rays(*args, **options).packed_info[:, 1].tolist() == [5, 5, 0, 1]
    padded = march_rays(*args, **options, capacity=7)
    assert padded.packed_info[:, 1].tolist() == [5, 0, 0, 0] and padded.n_found.item() == 11


@pytest.mark.parametrize("case", CASES)
def test_capacity_matches_twin(case, device):
    args, options = march_case(CASES[case], 1031, device, torch.float64)
    n_found = int(march_rays(*args, **options).n_found)
    assert n_found > 1000
    for capacity in (n_found + 100, n_found, n_found - 1, n_found // 2):
        samples = march_rays(*args, **options, capacity=capacity)
        expected = reference.march_rays(*args, **options, capacity=capacity)
        assert torch.equal(samples.packed_info, expected[4]) and samples.n_found == expected[5] == n_found
        for result, reference_result in zip(samples[:4], expected[:4], strict=True):
            torch.testing.assert_close(result, reference_result, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("capacity", [0, 5])
def test_capacity_without_rays(capacity, device):
    samples = march_rays(*random_rays(0, device), full_bitfield(device, 32), capacity=capacity)
    assert samples.positions.shape == (capacity, 3) and not samples.positions.any() and not samples.deltas.any()
    assert samples.packed_info.shape == (0, 2) and samples.n_found.item() == 0


def test_gradients_of_a_padded_march_equal_those_of_the_exact_one(device):
    args, options = march_case(CASES["constant step"], 300, device, torch.float64)
    rays_o, rays_d = args[0].requires_grad_(), args[1].requires_grad_()
    exact = march_rays(rays_o, rays_d, *args[2:], **options)
    padded = march_rays(rays_o, rays_d, *args[2:], **options, capacity=len(exact.ts) + 77)
    assert not (padded.ts.requires_grad or padded.deltas.requires_grad or padded.n_found.requires_grad)
    upstream = [torch.randn_like(padded.positions) for _ in range(2)]
    gradients = torch.autograd.grad(padded[:2], (rays_o, rays_d), upstream)
    expected = torch.autograd.grad(exact[:2], (rays_o, rays_d), [g[: len(exact.ts)] for g in upstream])
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    # A ray without room has no samples and so no gradient.
    cut = march_rays(rays_o, rays_d, *args[2:], **options, capacity=len(exact.ts) // 2)
    (grad_o,) = torch.autograd.grad(cut.positions.sum(), rays_o)
    served = cut.packed_info[:, 1] > 0
    assert 0 < served.sum() < (exact.packed_info[:, 1] > 0).sum()
    assert (grad_o[served] != 0).any() and not grad_o[~served].any()


@pytest.mark.parametrize("capacity", [30, 12])
def test_gradcheck_with_a_capacity(capacity, device):
    rays_o, rays_d, t_near, t_far = random_rays(6, device, torch.float64)
    bitfield = full_bitfield(device, 8)
    options = {"max_steps": 8, "capacity": capacity}

    def march(rays_o, rays_d):
        samples = march_rays(rays_o, rays_d, t_near + 0.1, t_far - 0.1, bitfield, **options)
        return samples.positions, samples.directions

    n_found = march_rays(rays_o, rays_d, t_near + 0.1, t_far - 0.1, bitfield, **options).n_found
    assert 12 < n_found < 30
    assert torch.autograd.gradcheck(march, (rays_o.requires_grad_(), rays_d.requires_grad_()))


class _Waits(TorchDispatchMode):
    """Counts reads of a number from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_without_length_have_no_samples(dtype, device):
    rays_o, rays_d, t_near, t_far = random_rays(40, device, dtype)
    rays_d[0], rays_d[1] = 0.0, torch.tensor([1e-4, 0.0, 0.0], dtype=dtype, device=device)
    t_far[:2] = torch.finfo(dtype).max
    for march in (march_rays, reference.march_rays):
        counts = march(rays_o, rays_d, t_near, t_far, shell_bitfield(device), max_steps=64)[4][:, 1]
        assert (counts[:2] == 0).all() and counts.sum() > 0


def test_a_march_with_a_capacity_waits_for_nothing(device):
    args, options = march_case(CASES["constant step"], 100, device, torch.float32)
    march_rays(*args, **options)  # Taichi's start and the first compilation
    lattice = make_lattice(8 * len(args[4]), 1.0, options["max_steps"], None, 0.0)
    counts = []
    for capacity in (None, 2000):
        with _Waits() as waits:
            ray_marching._march(*args[:4], options["noise"], args[4], capacity, *lattice)
        counts.append(waits.count)
    assert counts == [1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_steps": 0}, "max_steps: expected at least 1, got 0"),
        ({"max_samples": 0}, "max_samples: expected at least 1, got 0; pass None for max_steps"),
        ({"capacity": -1}, "capacity: expected at least 0, got -1; pass None for exactly the samples found"),
        ({"bound": -1.0}, "bound: expected a positive number, got -1.0"),
        ({"bound": math.inf}, "bound: expected a positive number, got inf"),
        ({"dt_gamma": -0.5}, "dt_gamma: expected at least 0, got -0.5"),
        ({"bound": 2.0}, "bitfield: expected C R^3 cells with C = 2 (from bound = 2.0)"),
    ],
)
def test_bad_options(change, message, device):
    rays = random_rays(2, device)
    with pytest.raises(ValueError) as error:
        march_rays(*rays, shell_bitfield(device), **change)
    assert message in str(error.value)
