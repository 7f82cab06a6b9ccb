import pytest
import torch
import torch.nn.functional as F

from taichi_kernels import intersect_aabb, reference

pytestmark = pytest.mark.usefixtures("each_variant")

BOX = (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)
LARGEST = torch.finfo(torch.float32).max


def test_centre_ray_of_the_spec(device):
    rays_o, rays_d = torch.tensor([[0, 3.2, 0]], device=device), torch.tensor([[0, -1.0, 0]], device=device)
    t_near, t_far = intersect_aabb(rays_o, rays_d, BOX)
    assert t_near.item() == pytest.approx(2.7) and t_far.item() == pytest.approx(3.7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 1031])
def test_matches_twin(n, dtype, device):
    rays_o = torch.randn(n, 3, device=device, dtype=dtype) * 2
    rays_d = F.normalize(torch.randn(n, 3, device=device, dtype=dtype), dim=-1)
    for result, expected in zip(
        intersect_aabb(rays_o, rays_d, BOX), reference.intersect_aabb(rays_o, rays_d, BOX), strict=True
    ):
        torch.testing.assert_close(result, expected, rtol=2e-6, atol=2e-6)
    if n > 100:
        assert 0 < (intersect_aabb(rays_o, rays_d, BOX)[0] == torch.finfo(dtype).max).sum() < n


def test_parallel_rays(device):
    zeros = (0.0, -0.0)
    origins = [[0, 0, -3], [0, 2, -3], [0, 0.5, -3]]  # through the box, beside it, along a face
    for x in zeros:
        for y in zeros:
            t_near, t_far = intersect_aabb(
                torch.tensor(origins, device=device), torch.tensor([[x, y, 1.0]], device=device).repeat(3, 1), BOX
            )
            assert t_near.tolist() == [2, LARGEST, 2] and t_far.tolist() == [4, LARGEST, 4]


def test_nan_misses(device):
    for bad in ("rays_o", "rays_d"):
        for axis in range(3):
            rays = {"rays_o": torch.zeros(1, 3, device=device), "rays_d": torch.tensor([[0, 0, 1.0]], device=device)}
            rays[bad][0, axis] = torch.nan
            t_near, t_far = intersect_aabb(**rays, aabb=BOX)
            assert t_near.item() == t_far.item() == LARGEST


def test_min_near(device):
    inside = torch.zeros(1, 3, device=device)
    direction = torch.tensor([[0.0, 1.0, 0.0]], device=device)
    t_near, t_far = intersect_aabb(inside, direction, BOX)
    assert t_near.item() == pytest.approx(0.05) and t_far.item() == pytest.approx(0.5)
    t_near, t_far = intersect_aabb(inside - 2 * direction, -direction, BOX)  # the box lies behind
    assert t_near.item() > t_far.item()


def test_points_lie_on_the_box(device):
    rays_o = torch.randn(500, 3, device=device, dtype=torch.float64) * 2
    rays_d = F.normalize(-rays_o + 0.5 * torch.randn_like(rays_o), dim=-1)
    t_near, t_far = intersect_aabb(rays_o, rays_d, BOX, min_near=-1e9)
    hit = t_near < t_far
    half = torch.tensor(BOX[3:], device=device, dtype=torch.float64)
    for t in (t_near, t_far):
        points = (rays_o + t[:, None] * rays_d)[hit] / half
        torch.testing.assert_close(points.abs().amax(1), torch.ones_like(points[:, 0]))


def test_bad_box(device):
    rays = torch.ones(1, 3, device=device)
    with pytest.raises(ValueError, match="aabb: expected xmin, ymin, zmin, xmax, ymax, zmax with min <= max, got"):
        intersect_aabb(rays, rays, (1, 1, 1, -1, -1, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_box_as_a_tensor(dtype, device):
    rays_o = torch.randn(300, 3, device=device, dtype=dtype) * 2
    rays_d = F.normalize(torch.randn(300, 3, device=device, dtype=dtype), dim=-1)
    box = torch.tensor([-0.9, -0.5, -1.0, 1.0, 0.3, 0.7], device=device, dtype=dtype)
    expected = intersect_aabb(rays_o, rays_d, box.tolist())
    assert 20 < (expected[0] < torch.finfo(dtype).max).sum() < 280
    for result, a in zip(intersect_aabb(rays_o, rays_d, box), expected, strict=True):
        assert torch.equal(result, a)


@pytest.mark.parametrize("axis", range(3))
def test_all_rays_miss_an_empty_box(axis, device):
    rays_o = torch.randn(100, 3, device=device)
    rays_d = F.normalize(-rays_o, dim=-1)
    rays_d[0] = torch.eye(3, device=device)[axis - 1]  # parallel to the faces between which there is nothing
    box = torch.tensor(BOX, device=device)
    assert (intersect_aabb(rays_o, rays_d, box)[0] < LARGEST).sum() > 90
    for low, high in ((0.5, -0.5), (torch.inf, -torch.inf), (torch.nan, 1.0)):
        box[axis], box[3 + axis] = low, high
        for t in intersect_aabb(rays_o, rays_d, box):
            assert (t == LARGEST).all()
        if low > high:
            expected = reference.intersect_aabb(rays_o, rays_d, box)
            assert all((t == LARGEST).all() for t in expected)
