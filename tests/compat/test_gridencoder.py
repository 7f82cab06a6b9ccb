"""`gridencoder`: function and module against a twin, the layout of checkpoints, regularisers."""

import itertools
import math

import pytest
import torch
from torch import nn

from taichi_kernels import GridConfig, grid_encode
from taichi_kernels.compat.torch_ngp import gridencoder
from taichi_kernels.compat.torch_ngp.gridencoder import GridEncoder
from tests.compare import assert_gradient_close, assert_matches_twin
from tests.compat import twins

# Levels with fewer corners than entries and levels with more, in either number of dimensions.
SHAPE = {"num_levels": 4, "level_dim": 2, "base_resolution": 5, "log2_hashmap_size": 8}


def arguments_of(encoder):
    return (
        *(encoder.offsets, encoder.per_level_scale, encoder.base_resolution),
        *(encoder.gridtype_id, encoder.align_corners, encoder.interp_id),
    )


def strong(encoder, device):
    """With entries that are not too small to tell."""
    encoder = encoder.to(device).double()
    nn.init.normal_(encoder.embeddings)
    return encoder


def random_inputs(n, n_dims, device):
    """In [0, 1], a tenth of them outside, some on the faces."""
    inputs = torch.rand(n, n_dims, device=device, dtype=torch.float64) * 1.05 - 0.02
    inputs[:4] = torch.tensor([0.0, 1.0, 0.0, 1.0], device=device)[:, None]
    return inputs


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("gridtype", ["hash", "tiled"])
@pytest.mark.parametrize("input_dim", [2, 3])
def test_matches_the_twin(input_dim, gridtype, align_corners, interpolation, device):
    encoder = GridEncoder(
        input_dim,
        per_level_scale=1.7,
        gridtype=gridtype,
        align_corners=align_corners,
        interpolation=interpolation,
        **SHAPE,
    )
    encoder = strong(encoder, device)
    offsets, scale, base, *options = arguments_of(encoder)
    inputs = random_inputs(301, input_dim, device)
    assert_matches_twin(
        lambda x, e: gridencoder.grid_encode(x, e, offsets, scale, base, True, *options),
        lambda x, e: twins.grid_encode(x, e, offsets.tolist(), scale, base, *options),
        # The gradient on the faces is that of either side.
        [inputs[4:].clone().requires_grad_(), encoder.embeddings.detach().requires_grad_()],
        value_scale=1e2,
    )
    torch.testing.assert_close(
        gridencoder.grid_encode(inputs, encoder.embeddings, offsets, scale, base, False, *options),
        twins.grid_encode(inputs, encoder.embeddings, offsets.tolist(), scale, base, *options),
    )


@pytest.mark.parametrize("gridtype", ["hash", "tiled"])
@pytest.mark.parametrize("input_dim", [1, 4])
def test_other_numbers_of_dimensions_match_the_twin(input_dim, gridtype, device):
    encoder = GridEncoder(input_dim, 4, 1, 1.7, 5, 8 if input_dim > 1 else 4, gridtype=gridtype)
    encoder = strong(encoder, device)
    offsets, scale, base, *options = arguments_of(encoder)
    inputs = random_inputs(77, input_dim, device)[4:]
    assert_matches_twin(
        lambda x, e: gridencoder.grid_encode(x, e, offsets, scale, base, True, *options),
        lambda x, e: twins.grid_encode(x, e, offsets.tolist(), scale, base, *options),
        [inputs.requires_grad_(), encoder.embeddings.detach().requires_grad_()],
        value_scale=1e2,
    )


@pytest.mark.parametrize("level_dim", [1, 2])
@pytest.mark.parametrize("bound", [1, 2.5])
def test_module_maps_the_box(level_dim, bound, device):
    encoder = strong(GridEncoder(3, **{**SHAPE, "level_dim": level_dim}), device)
    positions = (random_inputs(120, 3, device)[4:] * 2 - 1) * bound
    offsets, scale, base, *options = arguments_of(encoder)
    assert_matches_twin(
        lambda x, e: torch.func.functional_call(encoder, {"embeddings": e}, (x.view(4, 29, 3), bound)).view(116, -1),
        lambda x, e: twins.grid_encode((x + bound) / (2 * bound), e, offsets.tolist(), scale, base, *options),
        [positions.requires_grad_(), encoder.embeddings.detach().requires_grad_()],
        value_scale=1e2,
    )
    assert encoder(positions.view(4, 29, 3), bound).shape == (4, 29, 4 * level_dim)
    assert encoder(positions, bound).is_contiguous()


def test_growth_is_the_number_that_was_passed(device):
    # 1.5 to the 15th and back by a logarithm is above 1.5, and a level of 24 cells would get 25.
    encoder = GridEncoder(3, num_levels=16, per_level_scale=1.5, base_resolution=16)
    resolutions = [math.ceil(16 * 1.5**level) for level in range(16)]
    sizes = [min(2**19, math.ceil((r + 1) ** 3 / 8) * 8) for r in resolutions]
    assert (encoder.offsets[1:] - encoder.offsets[:-1]).tolist() == sizes
    assert encoder._grid().level_resolutions[1] == 24


def test_layout_of_er_nerfs_checkpoints():
    plane = GridEncoder(2, num_levels=12, level_dim=1, base_resolution=64, log2_hashmap_size=14, desired_resolution=512)
    state = plane.state_dict()
    assert list(state) == ["embeddings", "offsets"]
    assert state["offsets"].dtype == torch.int32
    assert state["offsets"].tolist() == [
        *(0, 4232, 10480, 19512, 32512, 48896, 65280, 81664, 98048, 114432, 130816, 147200, 163584)
    ]
    assert state["embeddings"].shape == (163584, 1)
    assert plane.output_dim == 12 and plane.n_params == 163584
    assert plane.embeddings.abs().max() <= 1e-4 and plane.embeddings.std() > 1e-5
    torso = GridEncoder(
        2,
        num_levels=16,
        level_dim=2,
        base_resolution=16,
        log2_hashmap_size=16,
        desired_resolution=2048,
        gridtype="tiled",
    )
    assert torso.offsets[-1] == 555520 and torso.offsets[7:10].tolist() == [26936, 50968, 96768]


def test_a_checkpoint_gives_the_features_of_the_native_grid(device):
    options = {"num_levels": 6, "level_dim": 2, "base_resolution": 16, "log2_hashmap_size": 12}
    source = GridEncoder(3, desired_resolution=200, **options).to(device)
    nn.init.normal_(source.embeddings)
    encoder = GridEncoder(3, desired_resolution=200, **options).to(device)
    encoder.load_state_dict(source.state_dict())
    positions = torch.rand(1000, 3, device=device) * 4 - 2
    config = GridConfig(3, 6, 16, 200, 12, 2)
    assert torch.equal(encoder(positions, 2), grid_encode(positions, source.embeddings, config, 2))


def test_offsets_of_a_checkpoint_count(device):
    # Older members of the family do not round the entries of a level up to a multiple of eight.
    encoder = strong(GridEncoder(2, **SHAPE), device)
    inputs = random_inputs(50, 2, device)
    encoder(inputs)
    state = encoder.state_dict()
    state["offsets"] = torch.tensor([0, 36, 157, 413, 669], dtype=torch.int32)
    encoder.embeddings = nn.Parameter(encoder.embeddings[:669].detach().clone())
    state["embeddings"] = encoder.embeddings.detach()
    encoder.load_state_dict(state)
    expected = twins.grid_encode(inputs, encoder.embeddings, [0, 36, 157, 413, 669], 2.0, 5, 0, False, 0)
    torch.testing.assert_close(encoder(inputs * 2 - 1), expected)


def test_module_made_in_inference_mode(device):
    with torch.inference_mode():
        encoder = GridEncoder(2, **SHAPE).to(device)
        assert encoder(torch.zeros(3, 2, device=device)).shape == (3, 8)


def test_inputs_without_gradient_get_none(device):
    encoder = GridEncoder(2, **SHAPE).to(device)
    inputs = torch.rand(5, 2, device=device, requires_grad=True)
    offsets, scale, base, *_ = arguments_of(encoder)
    features = gridencoder.grid_encode(inputs, encoder.embeddings, offsets, scale, base)
    assert torch.autograd.grad(features.sum(), inputs, allow_unused=True) == (None,)
    assert torch.autograd.grad(encoder(inputs).sum(), inputs)[0].shape == (5, 2)


def test_points_a_hair_outside_have_nothing(device):
    encoder = GridEncoder(2, **SHAPE).to(device)
    nn.init.constant_(encoder.embeddings, 1.0)
    offsets, scale, base, *_ = arguments_of(encoder)
    inputs = torch.tensor([[0.5, -1e-12], [0.5, 0.0], [0.5, 1.0], [0.5, 1 + 2e-7], [0.5, torch.nan]], device=device)
    inputs.requires_grad_()
    features = gridencoder.grid_encode(inputs, encoder.embeddings, offsets, scale, base, True)
    assert features[:, 0].tolist() == pytest.approx([0, 1, 1, 0, 0])
    (gradient,) = torch.autograd.grad(features.sum(), inputs)
    assert (gradient[[0, 3, 4]] == 0).all()


@pytest.mark.parametrize(("level_dim", "dtype"), [(2, torch.float16), (1, torch.float32)])
def test_autocast_reads_even_features_in_half_precision(level_dim, dtype, device):
    encoder = GridEncoder(2, **{**SHAPE, "level_dim": level_dim}).to(device)
    nn.init.normal_(encoder.embeddings)
    inputs = torch.rand(300, 2, device=device) * 2 - 1
    expected = encoder(inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        features = encoder(inputs)
        assert encoder(inputs.half()).dtype == dtype
    assert features.dtype == dtype
    torch.testing.assert_close(features.float(), expected, rtol=2e-3, atol=2e-3)
    upstream = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(features, encoder.embeddings, upstream.to(dtype))
    (wanted,) = torch.autograd.grad(expected, encoder.embeddings, upstream)
    assert gradient.dtype == torch.float32
    assert_gradient_close(gradient, wanted, "embeddings", tolerance={"rtol": 5e-3, "atol": 5e-2})


def test_no_points(device):
    encoder = GridEncoder(3, **SHAPE).to(device)
    assert encoder(torch.zeros(0, 3, device=device)).shape == (0, 8)
    assert encoder(torch.zeros(2, 0, 3, device=device)).shape == (2, 0, 8)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("gridtype", ["hash", "tiled"])
@pytest.mark.parametrize("input_dim", [2, 3])
def test_total_variation_matches_the_twin(input_dim, gridtype, align_corners, device):
    encoder = strong(GridEncoder(input_dim, gridtype=gridtype, align_corners=align_corners, **SHAPE), device)
    offsets, scale, base, gridtype_id, *_ = arguments_of(encoder)
    inputs = random_inputs(40, input_dim, device)
    before = torch.randn_like(encoder.embeddings)
    encoder.embeddings.grad = before.clone()
    encoder.grad_total_variation(0.3, (inputs * 2 - 1) * 3, bound=3)
    expected = twins.total_variation_gradient(
        *((inputs * 6 - 3 + 3) / 6, encoder.embeddings.detach(), offsets.tolist(), scale, base, gridtype_id),
        *(align_corners, 0.3),
    )
    torch.testing.assert_close(encoder.embeddings.grad - before, expected)
    assert (expected != 0).any()


def test_total_variation_evens_a_grid_out(device):
    encoder = GridEncoder(2, 1, 1, base_resolution=16).to(device)
    nn.init.normal_(encoder.embeddings)
    roughness = encoder.embeddings.std().item()
    for _ in range(50):
        encoder.embeddings.grad = torch.zeros_like(encoder.embeddings)
        encoder.grad_total_variation(0.05, B=300)
        encoder.embeddings.data -= encoder.embeddings.grad
    # The corners of the row behind the last cell are not in reach.
    assert encoder.embeddings.std().item() < 0.75 * roughness


def test_weight_decay_is_the_mean_of_each_level(device):
    encoder = strong(GridEncoder(2, **SHAPE), device)
    encoder.embeddings.grad = torch.ones_like(encoder.embeddings)
    encoder.grad_weight_decay(0.5)
    offsets = encoder.offsets.tolist()
    table = encoder.embeddings.detach().requires_grad_()
    loss = sum(0.5 * table[a:b].square().sum() / (b - a) for a, b in itertools.pairwise(offsets))
    (expected,) = torch.autograd.grad(loss, table)
    torch.testing.assert_close(encoder.embeddings.grad, expected + 1)


def test_regularisers_need_a_gradient(device):
    encoder = GridEncoder(2, **SHAPE).to(device)
    for function in (encoder.grad_total_variation, encoder.grad_weight_decay):
        with pytest.raises(ValueError) as error:
            function()
        assert str(error.value) == (
            "embeddings.grad: expected a gradient, got None; "
            "call this after loss.backward() and before optimizer.step()"
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_dim": 5}, "GridConfig.n_dims: expected 1 or 2 or 3 or 4, got 5"),
        ({"level_dim": 3}, "GridConfig.n_features: expected 1, 2, 4 or 8, got 3"),
        ({"gridtype": "dense"}, 'gridtype: expected "hash" or "tiled", got dense; choose one'),
        ({"interpolation": "cubic"}, 'interpolation: expected "linear" or "smoothstep", got cubic; choose one'),
        (
            {"per_level_scale": 0.5},
            "per_level_scale: expected at least 1, got 0.5; order the levels from coarse to fine",
        ),
    ],
)
def test_wrong_options(change, message):
    with pytest.raises(ValueError) as error:
        GridEncoder(**{"input_dim": 2, **SHAPE, **change})
    assert message in str(error.value)


def test_wrong_tensors(device):
    encoder = GridEncoder(3, **SHAPE).to(device)
    offsets, scale, base, *_ = arguments_of(encoder)
    inputs = torch.rand(5, 3, device=device)
    with pytest.raises(ValueError, match=r"embeddings: expected shape \[\d+, 2\], got \[\d+, 2\]; "):
        gridencoder.grid_encode(inputs, encoder.embeddings[:-1], offsets, scale, base)
    with pytest.raises(ValueError, match=r"inputs: expected shape \[B, 3\], got \[1, 5, 3\]; "):
        gridencoder.grid_encode(inputs[None], encoder.embeddings, offsets, scale, base)
