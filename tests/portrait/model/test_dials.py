"""Expression dials in the head field."""

import dataclasses

import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.experiments.operations import recorded_operations
from ernerf_ti.portrait.config import HeadFieldConfig
from ernerf_ti.portrait.model.dials import MARGIN, Dials
from ernerf_ti.portrait.model.head_field import HeadField
from ernerf_ti.portrait.model.region_attention import ATTENTIONS
from tests.portrait.model.test_folded_networks import ENCODER, rows
from tests.portrait.model.test_head_field import inputs, points

VALUES = (1.5, -2.0, 0.5)


def make(device, **changes) -> HeadField:
    """A field with the dials brows, gaze-x and gaze-y, and features of a size that reaches all nonlinearities."""
    torch.manual_seed(3)
    config = HeadFieldConfig(position_encoder=ENCODER, dials=("gaze", "brows"), **changes)
    field = HeadField(config, 5, 3)
    torch.nn.init.normal_(field.position_encoder.encoding.tables)
    low = torch.rand(3, 2, 1, 2) - 0.7
    field.dials.boxes.copy_(torch.cat((low, low + 0.5), 2))
    return field.to(device)


def turned(device, values=VALUES):
    return dataclasses.replace(inputs(device), dials=None if values is None else torch.tensor(values, device=device))


def test_names_have_a_fixed_order():
    assert HeadFieldConfig(dials=("gaze", "brows")).dial_names == ("brows", "gaze-x", "gaze-y")
    assert HeadFieldConfig().dial_names == ()


def test_masks_are_one_in_their_boxes_and_zero_beyond_the_margin(device):
    dials = Dials(1, 4, 4).to(device)
    dials.boxes.copy_(torch.tensor([[[[0.0, 0.1], [0.2, 0.3]], [[0.0, -0.3], [0.2, -0.1]]]]))
    x = torch.tensor([0.1, 0.0, 0.2, 0.1, 0.1, 0.2 + MARGIN / 2, 0.2 + MARGIN, 0.1], device=device)
    z = torch.tensor([0.2, 0.1, 0.3, -0.2, 0.0, 0.2, 0.2, 0.3 + MARGIN], device=device)
    positions = torch.stack((x, torch.linspace(-1, 1, 8, device=device), z), 1)  # whatever the depth
    reach = dials.reach(positions, torch.tensor([2.0], device=device))
    torch.testing.assert_close(reach, torch.tensor([[2, 2, 2, 2, 0, 1, 0, 0.0]], device=device), rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_dial_moves_its_boxes_and_nothing_else(attention, device):
    field = make(device, attention=attention)
    positions, directions = points(300, device)
    neutral = field.bind(turned(device, None))(positions, directions)
    for k in range(3):
        bound = field.bind(turned(device, [VALUES[k] if i == k else 0.0 for i in range(3)]))
        output, inside = bound(positions, directions), bound.reach(positions)[k] != 0
        assert 20 < inside.sum() < 250
        changed = (output.sigmas != neutral.sigmas) & (output.rgbs != neutral.rgbs).any(1)
        assert changed[inside].float().mean() > 0.9
        assert torch.equal(output.sigmas[~inside], neutral.sigmas[~inside])
        assert torch.equal(output.rgbs[~inside], neutral.rgbs[~inside])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradients_reach_the_gates_and_the_values(attention, device):
    field, at = make(device, attention=attention), turned(device)
    at.dials.requires_grad_(True)
    output = field.bind(at)(*points(100, device))
    (output.rgbs.sum() + output.sigmas.log().sum()).backward()
    assert (at.dials.grad != 0).all()
    for name, parameter in field.named_parameters():
        if "uncertainty" not in name:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert field.density_net.first_weight.grad[:, -3:].abs().amax(0).min() > 0


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_all_ways_to_evaluate_agree(attention, device):
    field = make(device, attention=attention)
    positions, directions = points(301, device)
    for values in (VALUES, None):
        bound = field.bind(turned(device, values), with_uncertainty=False)
        expected = rows(bound(positions, directions)).detach()
        with torch.no_grad():
            torch.testing.assert_close(rows(bound(positions, directions)), expected)
            features = field.position_encoder(positions)
            harmonics = tk.spherical_harmonics(directions, field.config.direction_degree)
            folded = bound.folded(True)(features, harmonics, reach=bound.reach(positions))
        torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bound.densities(positions).detach(), expected[0])


def test_neutral_is_zero(device):
    field = make(device)
    at = points(50, device)
    neutral, zeros = (rows(field.bind(turned(device, values))(*at)) for values in (None, (0.0, 0.0, 0.0)))
    torch.testing.assert_close(zeros, neutral)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision(precision, device):
    field = make(device)
    positions, directions = points(301, device)
    bound = field.bind(turned(device), with_uncertainty=False)
    exact = rows(bound(positions, directions)).detach()
    field.precision = precision
    with torch.no_grad():
        plain = rows(bound(positions, directions))
        features = field.position_encoder(positions)
        harmonics = tk.spherical_harmonics(directions, field.config.direction_degree)
        folded = bound.folded(True)(features, harmonics, reach=bound.reach(positions))
    with_gradients = rows(bound(positions, directions)).detach()
    for values in (plain, with_gradients, folded):
        assert values.dtype == torch.float32
        torch.testing.assert_close(values[1:4], exact[1:4], rtol=0.1, atol=0.05)


def test_a_portrait_without_dials_is_as_before(device):
    """The same entries of the state, and the same bits as those of a neutral portrait that has dials."""
    field = make(device)
    without = HeadField(dataclasses.replace(field.config, dials=()), 5, 3).to(device)
    state = {name: value for name, value in field.state_dict().items() if not name.startswith("dials.")}
    assert list(without.state_dict()) == list(state)
    first = "density_net.layers.0.weight"
    without.load_state_dict({**state, first: state[first][:, :-3]})
    at, (positions, directions) = turned(device, None), points(64, device)
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            ours, theirs = (f.bind(at)(positions, directions) for f in (without, field))
            for name, value in vars(ours).items():
                assert torch.equal(value, getattr(theirs, name)), name


@pytest.mark.parametrize("with_gradients", [True, False])
def test_operations_wait_for_nothing(with_gradients, device):
    field, at = make(device), turned(device)
    positions, directions = points(64, device)
    with torch.set_grad_enabled(with_gradients), recorded_operations() as counted:
        output = field.bind(at)(positions, directions)
        if with_gradients:
            sum(value.sum() for value in vars(output).values()).backward()
    assert counted.waits == []


def test_the_number_of_dials_is_checked(device):
    with pytest.raises(ValueError, match=r"dials: expected shape \[3\], got \[2\]; pass a value for each dial of the"):
        make(device).bind(turned(device, (1.0, 2.0)))
    without = HeadField(HeadFieldConfig(position_encoder=ENCODER), 5, 3).to(device)
    with pytest.raises(ValueError, match=r"dials: expected shape \[0\], got \[3\]"):
        without.bind(turned(device))
