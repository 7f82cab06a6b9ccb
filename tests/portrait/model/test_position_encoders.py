import pytest
import torch

from ernerf_ti.portrait.config import FrequencyConfig, HashGridConfig, PlainTriplaneConfig, TriplaneHashConfig
from ernerf_ti.portrait.model.position_encoders import POSITION_ENCODERS, position_encoder
from taichi_kernels.reference import frequency_encode, grid_encode, triplane_encode

SMALL = {
    "triplane_hash": TriplaneHashConfig(n_levels=3, base_resolution=4, finest_resolution=16, log2_table_size=6),
    "hash_grid": HashGridConfig(n_levels=3, base_resolution=4, finest_resolution=12, log2_table_size=7),
    "plain_triplane": PlainTriplaneConfig(resolution=6, n_features=16),
    "frequency": FrequencyConfig(n_octaves=3, width=8, n_layers=3, n_features=5),
}


def test_all_have_a_small_case():
    assert {name: type(config) for name, config in SMALL.items()} == POSITION_ENCODERS


@pytest.mark.parametrize("bound", [1.0, 2.0])
@pytest.mark.parametrize("name", SMALL)
def test_interface(name, bound, device):
    encoder = position_encoder(SMALL[name], bound).to(device)
    positions = (torch.rand(200, 3, device=device) * 2 - 1) * bound
    positions.requires_grad_()
    features = encoder(positions)
    assert features.shape == (200, encoder.n_outputs)
    (features * torch.randn_like(features)).sum().backward()
    for parameter in (*encoder.parameters(), positions):
        assert parameter.grad.abs().max() > 0 and parameter.grad.isfinite().all()
    assert encoder(positions[:0].detach()).shape == (0, encoder.n_outputs)


@pytest.mark.parametrize("name", SMALL)
def test_outside_of_the_box_features_are_finite(name, device):
    encoder = position_encoder(SMALL[name], 1.0).to(device)
    outside = torch.randn(50, 3, device=device).sign() * (1.001 + 100 * torch.rand(50, 3, device=device))
    features = encoder(outside)
    assert features.isfinite().all()
    if name != "frequency":
        assert (features == 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_values_are_those_of_the_twins(name, device):
    encoder = position_encoder(SMALL[name], 1.0).to(device)
    positions = torch.rand(100, 3, device=device) * 2 - 1
    if name == "triplane_hash":
        expected = triplane_encode(positions, encoder.encoding.tables, encoder.encoding.config)
    elif name == "hash_grid":
        expected = grid_encode(positions, encoder.encoding.table, encoder.encoding.config)
    elif name == "plain_triplane":
        planes = triplane_encode(positions, encoder.encoding.tables, encoder.encoding.config)
        expected = planes.view(100, 3, 16).sum(1)
    else:
        expected = encoder.network(frequency_encode(positions * torch.pi / 2, 3))
    torch.testing.assert_close(encoder(positions), expected, rtol=1e-4, atol=1e-5)


def test_planes_are_summed_bilinear_interpolations(device):
    # A plane whose entries are linear in their position is interpolated exactly: feature = x + 10 y of the plane.
    encoder = position_encoder(PlainTriplaneConfig(resolution=5, n_features=8), 1.0).to(device)
    entries = torch.zeros_like(encoder.encoding.tables)
    indices = torch.arange(36, device=device)
    entries[:, :36] = (indices % 6 + 10 * (indices // 6)).float()[None, :, None]
    encoder.encoding.tables.data = entries
    x = torch.tensor([[-0.5, 0.2, 0.6]], device=device)
    in_cells = (x[0] + 1) / 2 * 4 + 0.5  # the first and last of five cell centers at 0 and 4
    a, b, c = in_cells.tolist()
    expected = (a + 10 * b) + (b + 10 * c) + (a + 10 * c)
    torch.testing.assert_close(encoder(x), torch.full((1, 8), expected, device=device), rtol=1e-5, atol=1e-4)


def test_paper_and_released_sizes():
    assert position_encoder(TriplaneHashConfig(), 1.0).n_outputs == 42
    released = position_encoder(TriplaneHashConfig(n_levels=12), 1.0)
    assert released.n_outputs == 36
    offsets = [0, 4232, 10480, 19512, 32512, 48896, 65280, 81664, 98048, 114432, 130816, 147200, 163584]
    assert list(released.encoding.config.level_offsets) == offsets


def test_unknown_configurations():
    with pytest.raises(ValueError, match=r"expected one of TriplaneHashConfig, .* got dict"):
        position_encoder({}, 1.0)
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        position_encoder(PlainTriplaneConfig(n_features=12), 1.0)
