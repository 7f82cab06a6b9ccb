"""`march_rays_train`, `march_rays` and the small functions of both `raymarching` modules."""

import math

import pytest
import torch

from taichi_kernels.compat.torch_ngp import raymarching, raymarching_torch_ngp
from taichi_kernels.reference import morton, occupancy_grid, ray_aabb
from tests.compat import twins
from tests.kernels.scene import random_rays, shell_bitfield

MODULES = {False: raymarching, True: raymarching_torch_ngp}  # by whether deltas hold steps
R = 32

both = pytest.mark.parametrize("ends_as_steps", [False, True])


def cascades(bound):
    return 1 + max(0, math.ceil(math.log2(bound)))


def march(ends_as_steps, rays, bitfield, bound=1.0, **options):
    rays_o, rays_d, nears, fars = rays
    return MODULES[ends_as_steps].march_rays_train(
        rays_o, rays_d, bound, bitfield, cascades(bound), R, nears, fars, **options
    )


@both
@pytest.mark.parametrize(
    "options", [{"max_steps": 16}, {"max_steps": 128}, {"max_steps": 64, "bound": 4.0, "dt_gamma": 1 / 64}]
)
def test_training_samples_match_the_twin(ends_as_steps, options, device):
    bound = options.get("bound", 1.0)
    rays = random_rays(203, device, torch.float64, bound)
    bitfield = shell_bitfield(device, R, bound)
    xyzs, dirs, deltas, rows = march(ends_as_steps, rays, bitfield, **options)
    rays_o, rays_d, nears, fars = rays
    expected = twins.march_rays_train(ends_as_steps, rays_o, rays_d, bitfield, nears, fars, **options)
    assert len(xyzs) > 200
    for actual, wanted in zip((xyzs, dirs, deltas), expected, strict=False):
        torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-11)
    assert rows.dtype == torch.int32
    assert rows[:, 0].tolist() == list(range(203))
    assert torch.equal(rows[:, 2], expected[3])
    assert torch.equal(rows[:, 1], rows[:, 2].cumsum(0) - rows[:, 2])


@both
def test_perturbation_is_that_of_the_seed(ends_as_steps, device):
    rays = random_rays(101, device, torch.float64)
    bitfield = shell_bitfield(device, R)
    torch.manual_seed(3)
    deltas = march(ends_as_steps, rays, bitfield, perturb=True, max_steps=64)[2]
    torch.manual_seed(3)
    noise = torch.rand(101, device=device, dtype=torch.float64)
    rays_o, rays_d, nears, fars = rays
    expected = twins.march_rays_train(ends_as_steps, rays_o, rays_d, bitfield, nears, fars, noise=noise, max_steps=64)
    torch.testing.assert_close(deltas, expected[2], rtol=1e-9, atol=1e-11)
    assert not torch.equal(deltas[:50], march(ends_as_steps, rays, bitfield, max_steps=64)[2][:50])


@pytest.mark.parametrize("force_all_rays", [False, True])
@pytest.mark.parametrize("align", [-1, 128])
@pytest.mark.parametrize("mean_count", [-1, 0, 300, 100_000])
def test_room_for_samples(mean_count, align, force_all_rays, device):
    rays = random_rays(97, device)
    bitfield = shell_bitfield(device, R)
    full = march(False, rays, bitfield, max_steps=128)
    counter = torch.zeros(16, 2, dtype=torch.int32, device=device)
    xyzs, dirs, deltas, rows = march(
        False,
        rays,
        bitfield,
        step_counter=counter[5],
        mean_count=mean_count,
        align=align,
        force_all_rays=force_all_rays,
        max_steps=128,
    )
    m = len(full[0])
    assert 300 + 128 < m < 97 * 128 - 128
    limited = mean_count > 0 and not force_all_rays
    n_rows = mean_count if limited else m
    if align > 0:
        n_rows += align - n_rows % align
    assert xyzs.shape == dirs.shape == (n_rows, 3) and deltas.shape == (n_rows, 2)
    assert torch.equal(rows, full[3])  # also of rays without room
    assert counter[5].tolist() == [m, 97] and int(counter.sum()) == m + 97
    ends = rows[:, 1] + rows[:, 2]
    kept = int(ends[ends <= n_rows].max())
    assert kept == m or limited
    for part, whole in zip((xyzs, dirs, deltas), full[:3], strict=True):
        assert torch.equal(part[:kept], whole[:kept])
        assert (part[kept:] == 0).all()


def test_padding_never_exceeds_what_rays_can_fill(device):
    rays = random_rays(3, device)
    xyzs, *_ = march(False, rays, shell_bitfield(device, R), align=128, max_steps=4)
    assert len(xyzs) == 12  # 3 rays of 4 steps, although the padding asks for 128


def test_gradients_reach_the_rays_by_their_ids(device):
    rays_o, rays_d, nears, fars = random_rays(67, device, torch.float64)
    rays_o.requires_grad_()
    rays_d.requires_grad_()
    bitfield = shell_bitfield(device, R)
    xyzs, dirs, deltas, rows = march(False, (rays_o, rays_d, nears, fars), bitfield, align=128, max_steps=64)
    assert not deltas.requires_grad and not rows.requires_grad
    upstream = torch.randn_like(xyzs), torch.randn_like(dirs)
    gradients = torch.autograd.grad((xyzs, dirs), (rays_o, rays_d), upstream)
    n = int(rows[:, 2].sum())
    ray = torch.repeat_interleave(rows[:, 0], rows[:, 2]).long()
    ts = (deltas[:, 1] - deltas[:, 0])[:n, None]  # a sample lies at the start of its step
    twin = rays_o[ray] + ts * rays_d[ray], rays_d[ray]
    torch.testing.assert_close(twin[0], xyzs[:n])
    expected = torch.autograd.grad(twin, (rays_o, rays_d), tuple(g[:n] for g in upstream))
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


@both
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("align", [-1, 128])
def test_rounds_add_up_to_the_training_samples(n_step, align, ends_as_steps, device):
    module = MODULES[ends_as_steps]
    rays = random_rays(37, device, torch.float64)
    rays_o, rays_d, nears, fars = rays
    bitfield = shell_bitfield(device, R)
    xyzs, dirs, deltas, rows = march(ends_as_steps, rays, bitfield, max_steps=64)
    found = {ray: [] for ray in range(37)}
    rays_t, alive = nears.clone(), torch.arange(37, dtype=torch.int32, device=device)
    while len(alive):
        n = len(alive)
        round_xyzs, round_dirs, round_deltas = module.march_rays(
            *(n, n_step, alive, rays_t, rays_o, rays_d, 1, bitfield, 1, R, nears, fars, align),
            max_steps=64,
        )
        n_rows = n * n_step if align < 0 else n * n_step + 128 - n * n_step % 128
        assert round_xyzs.shape == round_dirs.shape == (n_rows, 3) and round_deltas.shape == (n_rows, 2)
        assert (round_deltas[n * n_step :] == 0).all() and (round_xyzs[n * n_step :] == 0).all()
        samples = torch.cat((round_xyzs, round_dirs, round_deltas), 1)[: n * n_step].view(n, n_step, 8)
        goes_on = []
        for ray, block in zip(alive.tolist(), samples, strict=True):
            hits = block[block[:, 6] > 0]
            assert torch.equal(hits, block[: len(hits)])  # samples first, then zeros
            assert (block[len(hits) :] == 0).all()
            found[ray] += list(hits)
            for hit in hits:
                rays_t[ray] = rays_t[ray] + hit[7] if ends_as_steps else hit[7]
            if len(hits) == n_step:
                goes_on.append(ray)
        alive = torch.tensor(goes_on, dtype=torch.int32, device=device)
    for ray, begin, count in rows.tolist():
        expected = torch.cat((xyzs, dirs, deltas), 1)[begin : begin + count]
        actual = torch.stack(found[ray]) if found[ray] else expected[:0]
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def test_the_first_round_can_be_perturbed(device):
    rays_o, rays_d, nears, fars = random_rays(50, device)
    bitfield, alive = shell_bitfield(device, R), torch.arange(50, dtype=torch.int32, device=device)
    fixed = (50, 2, alive, nears, rays_o, rays_d, 1, bitfield, 1, R, nears, fars)
    still = raymarching.march_rays(*fixed, perturb=False)[2]
    moved = raymarching.march_rays(*fixed, perturb=True)[2]
    hit = (still[:, 0] > 0) & (moved[:, 0] > 0)
    assert hit.any() and (still[hit, 1] != moved[hit, 1]).float().mean() > 0.9


@both
def test_rays_that_miss_and_no_rays(ends_as_steps, device):
    bitfield = shell_bitfield(device, R)
    away = torch.tensor([[0.0, 0.0, 3.0]], device=device), torch.tensor([[1.0, 0.0, 0.0]], device=device)
    nears, fars = raymarching.near_far_from_aabb(*away, torch.tensor([-1.0, -1, -1, 1, 1, 1], device=device))
    assert nears.item() == fars.item() == torch.finfo(torch.float32).max
    xyzs, _, _, rows = march(ends_as_steps, (*away, nears, fars), bitfield)
    assert len(xyzs) == 0 and rows.tolist() == [[0, 0, 0]]
    none = torch.zeros(0, 3, device=device)
    ends = torch.zeros(0, device=device)
    counter = torch.zeros(2, dtype=torch.int32, device=device)
    xyzs, dirs, deltas, rows = march(ends_as_steps, (none, none, ends, ends), bitfield, align=128, step_counter=counter)
    assert xyzs.shape == dirs.shape == (0, 3) and deltas.shape == (0, 2) and rows.shape == (0, 3)
    assert counter.tolist() == [0, 0]
    alive = torch.zeros(0, dtype=torch.int32, device=device)
    xyzs, _, deltas = MODULES[ends_as_steps].march_rays(
        0, 4, alive, ends, none, none, 1, bitfield, 1, R, ends, ends, 128
    )
    assert xyzs.shape == (128, 3) and (deltas == 0).all()


def test_leading_axes_and_half_precision(device):
    rays_o, rays_d, nears, fars = random_rays(12, device)
    bitfield = shell_bitfield(device, R)
    expected = march(False, (rays_o, rays_d, nears, fars), bitfield)
    shaped = march(False, (rays_o.view(1, 12, 3), rays_d.view(1, 12, 3), nears, fars), bitfield)
    assert all(torch.equal(a, b) for a, b in zip(shaped, expected, strict=True))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        low = march(False, (rays_o.double(), rays_d.double(), nears, fars), bitfield)
    assert low[0].dtype == torch.float32
    half = march(False, (rays_o.half(), rays_d.half(), nears.half(), fars.half()), bitfield)
    assert half[0].dtype == torch.float32 and half[0].shape[1] == 3


def test_errors(device):
    rays_o, rays_d, nears, fars = random_rays(12, device)
    bitfield = shell_bitfield(device, R)
    with pytest.raises(ValueError) as error:
        raymarching.march_rays_train(rays_o, rays_d, 2, bitfield, 1, R, nears, fars)
    assert str(error.value) == (
        "C: expected 2 cascades for bound = 2, got 1; use C = 1 + ceil(log2(bound)), at least 1"
    )
    with pytest.raises(ValueError, match=r"density_bitfield: expected shape \[262144\], got \[4096\]; "):
        raymarching.march_rays_train(rays_o, rays_d, 1, bitfield, 1, 128, nears, fars)
    with pytest.raises(
        ValueError, match=r"rays_d: expected shape \[N, 3\] with N = 12 \(from rays_o\), got \[11, 3\]; "
    ):
        raymarching.march_rays_train(rays_o, rays_d[:11], 1, bitfield, 1, R, nears, fars)
    with pytest.raises(TypeError, match=r"rays_o: expected a torch.Tensor, got list; use torch.as_tensor"):
        raymarching.march_rays_train([[1.0, 0, 0]], rays_d, 1, bitfield, 1, R, nears, fars)
    alive = torch.tensor([3, -1, 5], dtype=torch.int32, device=device)
    with pytest.raises(ValueError) as error:
        raymarching.march_rays(3, 1, alive, nears, rays_o, rays_d, 1, bitfield, 1, R, nears, fars)
    assert str(error.value) == (
        "rays_alive: expected 3 rays that are alive, got 1 dead ones (-1); keep the living ones with "
        "rays_alive = rays_alive[rays_alive >= 0] and pass their number"
    )
    with pytest.raises(ValueError, match=r"rays_alive: expected at least n_alive = 4 rays, got 3; "):
        raymarching.march_rays(4, 1, alive, nears, rays_o, rays_d, 1, bitfield, 1, R, nears, fars)


def test_near_far_from_aabb(device):
    rays_o, rays_d, *_ = random_rays(300, device, torch.float64)
    aabb = torch.tensor([-1.0, -0.5, -1, 1, 0.5, 1], device=device)
    nears, fars = raymarching.near_far_from_aabb(rays_o.view(3, 100, 3), rays_d.view(3, 100, 3), aabb, 0.05)
    expected = ray_aabb.intersect_aabb(rays_o, rays_d, aabb.tolist(), 0.05)
    torch.testing.assert_close((nears, fars), expected)
    inside = torch.zeros(1, 3, device=device), torch.tensor([[0.0, 0.0, 1.0]], device=device)
    assert raymarching.near_far_from_aabb(*inside, aabb)[0].item() == pytest.approx(0.2)  # the default


def test_sph_from_ray(device):
    radius = 2.5
    origins = torch.randn(500, 3, device=device, dtype=torch.float64)
    origins *= 2 * torch.rand(500, 1, device=device, dtype=torch.float64) / origins.norm(dim=1, keepdim=True)
    directions = torch.randn(500, 3, device=device, dtype=torch.float64)
    coords = raymarching.sph_from_ray(origins, directions, radius)
    assert coords.abs().max() <= 1
    polar, azimuth = (coords[:, 0] + 1) * math.pi / 2, coords[:, 1] * math.pi
    points = radius * torch.stack((polar.sin() * azimuth.cos(), polar.cos(), polar.sin() * azimuth.sin()), 1)
    # The point lies ahead on the ray.
    along = ((points - origins) * directions).sum(1) / directions.square().sum(1)
    assert (along > 0).all()
    torch.testing.assert_close(origins + along[:, None] * directions, points)
    up = raymarching.sph_from_ray(
        torch.zeros(3, 3, device=device), torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]], device=device), 1.0
    )
    torch.testing.assert_close(up, torch.tensor([[-1.0, 0], [0, 0], [0, 0.5]], device=device))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_morton_codes(dtype, device):
    cells = torch.randint(0, 128, (1000, 3), device=device, dtype=dtype)
    codes = raymarching.morton3D(cells)
    assert codes.dtype == torch.int32
    assert torch.equal(codes, morton.morton_encode(cells.int()))
    assert torch.equal(raymarching.morton3D_invert(codes.to(dtype)), cells.int())


def test_packbits_and_dilation(device):
    grid = torch.rand(2, 16**3, device=device)
    bitfield = raymarching.packbits(grid, torch.tensor(0.7))
    assert torch.equal(bitfield, occupancy_grid.pack_bits(grid, 0.7))
    target = torch.full_like(bitfield, 7)
    assert raymarching.packbits(grid, 0.7, target) is target
    assert torch.equal(target, bitfield)
    with pytest.raises(ValueError, match=r"bitfield: expected shape \[1024\], got \[1023\]"):
        raymarching.packbits(grid, 0.7, target[:-1])
    dilated = raymarching.morton3D_dilation(grid.half())
    assert torch.equal(dilated, occupancy_grid.dilate_density(grid.half().float()))
