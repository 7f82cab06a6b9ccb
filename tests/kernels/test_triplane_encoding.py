import pytest
import torch

from taichi_kernels import GridConfig, TriplaneEncoding, grid_encode, reference, triplane_encode
from tests.compare import assert_matches_twin
from tests.kernels.test_grid_encoding import float32_tolerance, points_inside_cells

pytestmark = pytest.mark.usefixtures("each_variant")

CONFIG = GridConfig(2, 5, 8, 64, 9, 2)


def random_inputs(n, config, device, dtype=torch.float32):
    positions = torch.rand(n, 3, device=device, dtype=dtype) * 2 - 1
    tables = torch.randn(3, config.n_entries, config.n_features, device=device, dtype=dtype)
    return positions.requires_grad_(), tables.requires_grad_()


@pytest.mark.parametrize("n", [0, 1, 2048, 4099])
def test_matches_twin(n, device):
    assert_matches_twin(
        lambda x, t: triplane_encode(x, t, CONFIG),
        lambda x, t: reference.triplane_encode(x, t, CONFIG),
        list(random_inputs(n, CONFIG, device)),
        value_scale=256,
        value_tolerance=float32_tolerance(CONFIG),
    )


def test_planes_are_xy_yz_xz(device):
    positions, tables = random_inputs(100, CONFIG, device)
    features = triplane_encode(positions, tables, CONFIG).chunk(3, dim=1)
    for plane, axes in enumerate([(0, 1), (1, 2), (0, 2)]):
        points = positions[:, axes].contiguous()
        torch.testing.assert_close(features[plane], grid_encode(points, tables[plane].contiguous(), CONFIG))


def test_a_plane_sees_only_its_own_axes(device):
    positions = torch.tensor([[2.0, 0.1, 0.2]], device=device)  # outside along x
    tables = torch.ones(3, CONFIG.n_entries, CONFIG.n_features, device=device)
    xy, yz, xz = triplane_encode(positions, tables, CONFIG).chunk(3, dim=1)
    assert (xy == 0).all() and (xz == 0).all()
    torch.testing.assert_close(yz, torch.ones_like(yz))


def test_gradcheck(device):
    config = GridConfig(2, 2, 3, 7, 5, 1)
    positions = points_inside_cells(12, config, device).repeat(1, 2)[:, :3].contiguous()
    tables = torch.randn(3, config.n_entries, 1, dtype=torch.float64, device=device)
    assert torch.autograd.gradcheck(
        lambda x, t: triplane_encode(x, t, config),
        (positions.requires_grad_(), tables.requires_grad_()),
        nondet_tol=1e-12,
    )


def test_module_and_float16(device):
    encoding = TriplaneEncoding(CONFIG, bound=2.0).to(device)
    positions = torch.rand(10, 3, device=device) * 4 - 2
    features = encoding(positions)
    assert features.shape == (10, 3 * CONFIG.n_outputs)
    half = triplane_encode(positions, encoding.tables.half(), CONFIG, 2.0)
    torch.testing.assert_close(half.float(), features, rtol=1e-3, atol=1e-6)
    features.sum().backward()
    assert encoding.tables.grad.abs().sum() > 0


def test_needs_a_two_dimensional_config(device):
    config = GridConfig(3, 2, 4, 8)
    with pytest.raises(ValueError, match=r"config.n_dims: expected 2 for the grid of a plane, got 3"):
        triplane_encode(torch.zeros(1, 3, device=device), torch.zeros(3, 8, 2, device=device), config)
