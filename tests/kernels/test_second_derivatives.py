"""Losses on gradients: second derivatives are right, or an error, never a silent zero."""

import pytest
import torch

import taichi_kernels as tk
from taichi_kernels import reference
from tests.compare import assert_gradient_close
from tests.kernels.scene import random_rays, shell_bitfield
from tests.kernels.test_grid_encoding import points_inside_cells


def grid(interpolation, n_dims=2):
    return tk.GridConfig(n_dims, 2, 3, 7, 5, 2, interpolation=interpolation)


def grid_inputs(config, n_tables, device):
    x = points_inside_cells(5, config, device).repeat(1, 2)[:, : 3 if n_tables == 3 else config.n_dims]
    tables = torch.randn(n_tables, config.n_entries, 2, dtype=torch.float64, device=device)
    return x.contiguous().requires_grad_(), (tables if n_tables == 3 else tables[0]).requires_grad_()


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_grid_gradgradcheck(n_dims, interpolation, device):
    config = grid(interpolation, n_dims)
    inputs = grid_inputs(config, 1, device)
    assert torch.autograd.gradgradcheck(lambda x, t: tk.grid_encode(x, t, config), inputs, nondet_tol=1e-12)


def test_gradgradcheck_of_the_deterministic_variant(device, deterministic_variant):
    config = grid("smoothstep")
    x, tables = grid_inputs(config, 3, device)
    assert torch.autograd.gradgradcheck(lambda x, t: tk.triplane_encode(x, t, config), (x, tables))


def test_triplane_gradgradcheck(device, each_variant):
    config = grid("smoothstep")
    inputs = grid_inputs(config, 3, device)
    assert torch.autograd.gradgradcheck(lambda x, t: tk.triplane_encode(x, t, config), inputs, nondet_tol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 5, 8])
def test_spherical_harmonics_gradgradcheck(degree, device):
    directions = torch.randn(4, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda d: tk.spherical_harmonics(d, degree), directions)


@pytest.mark.parametrize("n_octaves", [0, 4])
def test_frequency_gradgradcheck(n_octaves, device):
    x = torch.randn(4, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: tk.frequency_encode(x, n_octaves), x)


OPS = {
    "grid_encode": (lambda ops, x, t: ops.grid_encode(x, t, grid("smoothstep", 3)), (1, 3)),
    "triplane_encode": (lambda ops, x, t: ops.triplane_encode(x, t, grid("smoothstep")), (3, 2)),
    "spherical_harmonics": (lambda ops, x: ops.spherical_harmonics(x, 4), None),
    "frequency_encode": (lambda ops, x: ops.frequency_encode(x, 3), None),
}


@pytest.mark.parametrize("upstream", ["plain", "squared"])
@pytest.mark.parametrize("n", [0, 1, 517])
@pytest.mark.parametrize("name", OPS)
def test_eikonal_loss_matches_twin(name, n, upstream, device, each_variant):
    """A loss on the slope alone, where nothing upstream needs a gradient, and where something does."""
    op, table_shape = OPS[name]
    leaves = [(torch.rand(n, 3, dtype=torch.float64, device=device) * 2 - 1).requires_grad_()]
    if table_shape:
        n_tables, n_dims = table_shape
        tables = torch.randn(n_tables, grid("linear", n_dims).n_entries, 2, dtype=torch.float64, device=device)
        leaves.append((tables if n_tables == 3 else tables[0]).requires_grad_())
    gradients = []
    for ops in (tk, reference):
        features = op(ops, *leaves)
        value = features.sum() if upstream == "plain" else features.square().sum()
        (slope,) = torch.autograd.grad(value, leaves[0], create_graph=True)
        gradients.append(torch.autograd.grad((slope.norm(dim=1) - 1).square().sum(), leaves))
    for i, (a, b) in enumerate(zip(*gradients, strict=True)):
        assert_gradient_close(a, b, f"{name} {i}")
        assert n == 0 or a.abs().max() > 0


def test_float16_table_follows_an_eikonal_loss(device):
    config = grid("linear", 3)
    x = (torch.rand(200, 3, device=device) * 2 - 1).requires_grad_()
    table = torch.randn(config.n_entries, 2, device=device).half()
    gradients = []
    for t in (table.clone().requires_grad_(), table.float().requires_grad_()):
        (slope,) = torch.autograd.grad(tk.grid_encode(x, t, config).float().sum(), x, create_graph=True)
        gradients += torch.autograd.grad(slope.square().mean(), t)
    assert gradients[0].dtype == torch.float16 and gradients[1].abs().max() > 0
    torch.testing.assert_close(gradients[0].float(), gradients[1], rtol=2e-2, atol=2e-2)


def test_points_outside_have_no_second_derivative(device):
    config = grid("smoothstep", 3)
    x = torch.full((3, 3), 1.5, device=device, requires_grad=True)
    table = torch.randn(config.n_entries, 2, device=device, requires_grad=True)
    (slope,) = torch.autograd.grad(tk.grid_encode(x, table, config).sum(), x, create_graph=True)
    for gradient in torch.autograd.grad(slope.sum(), (x, table)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_eikonal_loss_compiles(device):
    config = grid("smoothstep", 3)
    x = torch.rand(20, 3, device=device).requires_grad_()
    table = torch.randn(config.n_entries, 2, device=device).requires_grad_()
    grids = (3, (0, 1, 2), config.level_offsets, config.level_scales, 2, config.kind, config.interpolation, False, 1.0)

    def loss(x, table, upstream):
        return torch.ops.taichi_kernels.grid_grad_positions(x, table, upstream, *grids).square().sum()

    upstream = torch.randn(20, 4, device=device).requires_grad_()
    leaves = (x, table, upstream)
    expected = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(*leaves), leaves), expected, strict=True):
        torch.testing.assert_close(a, b)


def composite_inputs(device):
    sigmas, weighted = torch.rand(6, device=device), torch.rand(6, 3, device=device)
    return sigmas, torch.rand(6, device=device), weighted, torch.tensor([[0, 4], [4, 2]], device=device).int()


@pytest.mark.parametrize("leaf", ["sigmas", "weighted"])
def test_composite_says_that_it_has_none(leaf, device):
    sigmas, deltas, weighted, info = composite_inputs(device)
    x = (sigmas if leaf == "sigmas" else weighted).requires_grad_()
    rays = tk.composite(sigmas, deltas, weighted, None, info)
    (slope,) = torch.autograd.grad(rays.weighted.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="composite: expected a loss that needs no higher derivative"):
        slope.square().sum().backward()


def test_march_says_that_it_has_none(device):
    rays_o, rays_d, *distances = random_rays(20, device)
    samples = tk.march_rays(rays_o.requires_grad_(), rays_d, *distances, shell_bitfield(device), max_steps=32)
    (slope,) = torch.autograd.grad(samples.positions.square().sum(), rays_o, create_graph=True)
    with pytest.raises(RuntimeError, match="march_rays: expected a loss that needs no higher derivative"):
        slope.square().sum().backward()


@pytest.mark.parametrize("name", ["grid_encode", "spherical_harmonics"])
def test_third_derivatives_are_an_error(name, device):
    op, table_shape = OPS[name]
    leaves = [torch.rand(4, 3, device=device).requires_grad_()]
    if table_shape:
        leaves.append(torch.rand(grid("linear", 3).n_entries, 2, device=device))
    value = op(tk, *leaves).square().sum()
    for _ in range(2):
        (slope,) = torch.autograd.grad(value, leaves[0], create_graph=True)
        value = slope.square().sum()
    with pytest.raises(RuntimeError, match=f"{name}: expected a loss that needs no higher derivative"):
        value.backward()
