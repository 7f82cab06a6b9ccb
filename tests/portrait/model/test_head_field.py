import dataclasses

import pytest
import torch

from ernerf_ti.experiments.operations import recorded_operations
from ernerf_ti.portrait.config import (
    FrequencyConfig,
    HashGridConfig,
    HeadFieldConfig,
    PlainTriplaneConfig,
    TriplaneHashConfig,
)
from ernerf_ti.portrait.model.head_field import HeadField
from ernerf_ti.portrait.model.region_attention import ATTENTIONS
from ernerf_ti.portrait.records import FrameInputs

ENCODERS = [
    TriplaneHashConfig(n_levels=3, base_resolution=4, finest_resolution=16, log2_table_size=6),
    HashGridConfig(n_levels=3, base_resolution=4, finest_resolution=12, log2_table_size=7),
    PlainTriplaneConfig(resolution=6, n_features=8),
    FrequencyConfig(n_octaves=3, width=8, n_layers=2, n_features=5),
]


def make(device, encoder=ENCODERS[0], **changes):
    return HeadField(HeadFieldConfig(position_encoder=encoder, **changes), 5, 3).to(device)


def inputs(device, appearance=1, eye=0.7):
    torch.manual_seed(4)
    eye_closure = None if eye is None else torch.tensor([eye], device=device)
    return FrameInputs(torch.randn(8, 5, 16).to(device), eye_closure, appearance, torch.eye(4, device=device))


def points(n, device):
    positions = torch.rand(n, 3) * 2 - 1
    return positions.to(device), torch.nn.functional.normalize(torch.randn(n, 3), dim=1).to(device)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_shapes_and_gradients(encoder, attention, device):
    field = make(device, encoder, attention=attention)
    output = field.bind(inputs(device))(*points(64, device))
    values = list(vars(output).values())
    assert [tuple(v.shape) for v in values] == [(64,), (64, 3), (64,), (64,), (64,)]
    assert (output.sigmas > 0).all() and (output.uncertainty >= 0).all()
    sum((v * torch.randn_like(v)).sum() for v in values).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert (field.appearance.embeddings.grad[[0, 2]] == 0).all()


def test_partial_evaluations_agree_with_the_whole(device):
    field, at = make(device), inputs(device)
    positions, directions = points(40, device)
    whole = field.bind(at)(positions, directions)
    without = field.bind(at, with_uncertainty=False)(positions, directions)
    assert without.uncertainty is None
    torch.testing.assert_close(without.rgbs, whole.rgbs)
    torch.testing.assert_close(field.bind(at).densities(positions), whole.sigmas)
    for value, name in zip(
        field.regularized(positions), ("audio_attention", "eye_attention", "uncertainty"), strict=True
    ):
        torch.testing.assert_close(value, getattr(whole, name))


def test_uncertainty_shapes_only_its_own_network(device):
    field = make(device)
    field.bind(inputs(device))(*points(30, device)).uncertainty.sum().backward()
    reached = {name.split(".")[0] for name, p in field.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"uncertainty_net"}


def test_what_depends_on_what(device):
    field, at = make(device), inputs(device)
    torch.nn.init.normal_(field.position_encoder.encoding.tables)
    positions, directions = points(30, device)
    output = field.bind(at)(positions, directions)
    turned = field.bind(at)(positions, -directions)
    torch.testing.assert_close(turned.sigmas, output.sigmas)
    assert (turned.rgbs - output.rgbs).abs().max() > 1e-4
    other_person = field.bind(dataclasses.replace(at, appearance_index=2))(positions, directions)
    torch.testing.assert_close(other_person.sigmas, output.sigmas)
    assert (other_person.rgbs - output.rgbs).abs().max() > 1e-4
    loud = torch.randn(8, 5, 16).to(device) * 9
    for change in ({"eye_closure": torch.zeros(1, device=device)}, {"audio_window": loud}):
        changed = field.bind(dataclasses.replace(at, **change))(positions, directions)
        assert (changed.sigmas - output.sigmas).abs().max() > 1e-4
    open_eyes = field.bind(dataclasses.replace(at, eye_closure=torch.zeros(1, device=device)))(positions, directions)
    no_eyes = field.bind(dataclasses.replace(at, eye_closure=None))(positions, directions)
    torch.testing.assert_close(no_eyes.sigmas, open_eyes.sigmas)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("with_gradients", [True, False])
def test_a_scale_of_the_eye_closure(attention, with_gradients, device):
    plain = make(device, attention=attention)
    scaled = make(device, attention=attention, eye_closure_scale=4.0)
    scaled.load_state_dict(plain.state_dict())
    positions, directions = points(40, device)
    with torch.set_grad_enabled(with_gradients):
        fields = plain.bind(inputs(device, eye=0.8)), scaled.bind(inputs(device, eye=0.2))
        expected, output = (field(positions, directions) for field in fields)
        densities = [field.densities(positions) for field in fields]
    for name, value in vars(output).items():
        torch.testing.assert_close(value, getattr(expected, name), msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(*densities)
    assert (densities[1] - scaled.bind(inputs(device, eye=0.8)).densities(positions)).abs().max() > 1e-4


@pytest.mark.parametrize("scale", [0.0, -1.0, 101.0, float("nan")])
def test_scales_of_the_eye_closure_that_make_no_sense(scale):
    with pytest.raises(ValueError, match=r"^eye_closure_scale: expected more than 0, at most 100, got .*; pass 4$"):
        HeadFieldConfig(eye_closure_scale=scale)


def test_an_audio_code_replaces_the_window(device):
    field, at = make(device), inputs(device)
    positions, directions = points(10, device)
    code = field.audio_encoder(at.audio_window)
    torch.testing.assert_close(
        field.bind(at, audio_code=code)(positions, directions).sigmas, field.bind(at)(positions, directions).sigmas
    )
    assert (field.bind(at, audio_code=code + 9)(positions, directions).sigmas != 0).all()


def test_released_size():
    field = HeadField(HeadFieldConfig(position_encoder=TriplaneHashConfig(n_levels=12)), 29, 10000)
    assert sum(p.numel() for p in field.parameters()) == 587989


def test_appearance_index_is_checked(device):
    with pytest.raises(ValueError, match="n_embeddings: expected at least 1, got 0"):
        HeadField(HeadFieldConfig(), 5, 0)
    with pytest.raises(
        ValueError, match="appearance_index: expected 0 to 2, got 3; pass None for a frame that was not"
    ):
        make(device).bind(inputs(device, appearance=3))


def test_direction_and_position_gradients_by_differences(device):
    """The whole chain against finite differences: a smooth encoder, in float64."""
    field = make(device, ENCODERS[3]).double()
    at = inputs(device)
    bound = field.bind(
        dataclasses.replace(at, audio_window=at.audio_window.double(), eye_closure=at.eye_closure.double())
    )
    positions, directions = (x.double().requires_grad_() for x in points(3, device))

    def function(positions, directions):
        output = bound(positions, directions)
        return output.sigmas, output.rgbs, output.audio_attention, output.eye_attention

    assert torch.autograd.gradcheck(function, (positions, directions))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_frame_has_the_values_of_training(precision, attention, device):
    """Without gradients the inputs of the density network are not concatenated, but written side by side."""
    field, at = make(device, attention=attention), inputs(device)
    torch.nn.init.normal_(field.position_encoder.encoding.tables)
    field.precision = precision
    positions, directions = points(50, device)
    trained = field.bind(at)(positions, directions)
    with torch.no_grad():
        rendered = field.bind(at)(positions, directions)
        densities = field.bind(at).densities(positions)
    for name, value in vars(rendered).items():
        torch.testing.assert_close(value, getattr(trained, name), msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(densities, rendered.sigmas)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_networks_in_half_precision(precision, device):
    field, at = make(device), inputs(device)
    torch.nn.init.normal_(field.position_encoder.encoding.tables)
    positions, directions = points(50, device)
    expected = field.bind(at)(positions, directions)
    smooth = field.regularized(positions)
    field.precision = precision
    output = field.bind(at)(positions, directions)
    for name, value in vars(output).items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(
            value, getattr(expected, name), rtol=0.05, atol=0.02, msg=lambda m, n=name: f"{n}: {m}"
        )
    for value, other in zip(field.regularized(positions), smooth, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, other, rtol=0.05, atol=0.02)
    sum(value.sum() for value in vars(output).values()).backward()
    assert all(p.grad.dtype == torch.float32 for p in field.parameters())


@pytest.mark.parametrize("with_gradients", [True, False])
def test_operations_between_the_kernels(with_gradients, device):
    """What a CUDA graph can hold: nothing waits for the device, and few operations are launched."""
    field = make(device)
    positions, directions = points(64, device)
    at, code = inputs(device), torch.randn(32, device=device, requires_grad=True)
    with torch.set_grad_enabled(with_gradients), recorded_operations() as counted:
        output = field.bind(at, audio_code=code)(positions, directions)
        if with_gradients:
            sum(value.sum() for value in vars(output).values()).backward()
    assert counted.waits == []
    assert with_gradients or counted.count("cat") <= 2  # of weights and of codes
    assert counted.launches <= (130 if with_gradients else 42)


@pytest.mark.parametrize("with_gradients", [True, False])
def test_operations_of_the_audio_encoder(with_gradients, device):
    encoder, window = make(device).audio_encoder, inputs(device).audio_window
    with torch.set_grad_enabled(with_gradients), recorded_operations() as counted:
        code = encoder(window)
        if with_gradients:
            code.sum().backward()
    assert counted.waits == []
    assert counted.launches <= (110 if with_gradients else 48)


def test_networks_under_autocast(device):
    field, at = make(device), inputs(device)
    torch.nn.init.normal_(field.position_encoder.encoding.tables)
    positions, directions = points(50, device)
    expected = field.bind(at)(positions, directions)
    with torch.autocast(device.type, torch.bfloat16):
        output = field.bind(at)(positions, directions)
        densities = field.bind(at).densities(positions)
    for name, value in vars(output).items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(
            value, getattr(expected, name), rtol=0.05, atol=0.02, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(densities, output.sigmas)
    sum(value.sum() for value in vars(output).values()).backward()
    assert all(p.grad.dtype == torch.float32 for p in field.parameters())
