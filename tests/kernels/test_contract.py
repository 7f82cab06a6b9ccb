"""Every public function refuses bad tensors with one message: name, expected, got, remedy."""

import pytest
import torch

import taichi_kernels as tk
from tests.kernels.scene import random_rays, shell_bitfield

CONFIG = tk.GridConfig(2, 2, 4, 8, 8, 2)


def calls(device):
    """Of each op: the function and its valid tensor arguments by name, in order."""
    table = torch.randn(CONFIG.n_entries, 2, device=device)
    rays = dict(zip(("rays_o", "rays_d", "t_near", "t_far"), random_rays(6, device), strict=True))
    samples = {
        "sigmas": torch.rand(6, device=device),
        "deltas": torch.rand(6, device=device),
        "weighted": torch.rand(6, 3, device=device),
        "summed": torch.rand(6, 2, device=device),
        "packed_info": torch.tensor([[0, 4], [4, 2]], dtype=torch.int32, device=device),
    }
    sums = tk.CompositedRays(*(torch.zeros(4, *s, device=device) for s in ((3,), (2,), ())))
    box = torch.tensor([-1.0, -1, -1, 1, 1, 1], device=device)
    ids = torch.arange(2, dtype=torch.int32, device=device)
    forwards = torch.tensor([[0.0, 0, 1]] * 2, device=device)
    cells = torch.zeros(64, dtype=torch.uint8, device=device)
    taken = tk.RayMarch(-3 * forwards, forwards, box.tolist(), box, cells).take(ids, 2)
    return {
        "grid_encode": (
            lambda positions, table: tk.grid_encode(positions, table, CONFIG),
            {"positions": torch.rand(5, 2, device=device), "table": table},
        ),
        "triplane_encode": (
            lambda positions, tables: tk.triplane_encode(positions, tables, CONFIG),
            {"positions": torch.rand(5, 3, device=device), "tables": table.repeat(3, 1, 1)},
        ),
        "frequency_encode": (lambda x: tk.frequency_encode(x, 2), {"x": torch.rand(4, 3, device=device)}),
        "spherical_harmonics": (
            lambda directions: tk.spherical_harmonics(directions, 4),
            {"directions": torch.rand(4, 3, device=device)},
        ),
        "morton_encode": (tk.morton_encode, {"cells": torch.zeros(4, 3, dtype=torch.int32, device=device)}),
        "morton_decode": (tk.morton_decode, {"codes": torch.zeros(4, dtype=torch.int32, device=device)}),
        "intersect_aabb": (
            tk.intersect_aabb,
            {k: rays[k] for k in ("rays_o", "rays_d")} | {"aabb": torch.tensor([-1.0, -1, -1, 1, 1, 1], device=device)},
        ),
        "dilate_density": (tk.dilate_density, {"density_grid": torch.rand(2, 64, device=device)}),
        "pack_bits": (
            tk.pack_bits,
            {"density_grid": torch.rand(2, 64, device=device), "threshold": torch.tensor(0.5, device=device)},
        ),
        "march_rays": (
            lambda rays_o, rays_d, t_near, t_far, bitfield, noise: tk.march_rays(
                rays_o, rays_d, t_near, t_far, bitfield, noise=noise
            ),
            rays | {"bitfield": shell_bitfield(device), "noise": torch.rand(6, device=device)},
        ),
        "composite": (tk.composite, samples),
        "render_rays": (
            lambda rays_o, rays_d, t_near, t_far, bitfield: tk.render_rays(
                lambda s: (s.ts, s.positions, None), rays_o, rays_d, t_near, t_far, bitfield
            ),
            rays | {"bitfield": shell_bitfield(device)},
        ),
        "blend_samples_": (
            lambda values: tk.blend_samples_(tk.RaySums.begin(forwards), values, taken),
            {"values": torch.rand(4, len(taken.directions), device=device)},
        ),
        "march_baked_grid": (
            lambda pose, cells, densities, colors, weights, offset, aabb, blocks: tk.march_baked_grid(
                pose, (4, 4, 2, 2), (4, 3), cells, densities, colors, weights, offset, 1.0, aabb, blocks
            ),
            {
                "pose": torch.eye(4, device=device),
                "cells": torch.zeros(4, 4, 4, dtype=torch.int32, device=device),
                "log_densities": torch.zeros(2, 3, 3, 3, device=device),
                "colors": torch.zeros(2, 3, 3, 3, 2, 3, dtype=torch.uint8, device=device),
                "color_weights": torch.rand(2, 3, device=device),
                "color_offset": torch.rand(3, device=device),
                "aabb": box,
                "blocks": torch.zeros(3, 3, dtype=torch.int32, device=device),
            },
        ),
        "composite_baked": (
            tk.composite_baked,
            {
                "values": torch.rand(4, 6, device=device),
                **{name: samples[name] for name in ("deltas", "packed_info")},
                "before": torch.rand(2, 5, device=device),
                "after": torch.rand(6, 5, device=device),
                "ts": torch.rand(6, device=device),
            },
        ),
        "encode_tiles": (
            lambda positions, numbers, values: tk.encode_tiles(positions, tk.PlaneTiles(numbers, values), 1.0),
            {
                "positions": torch.rand(4, 3, device=device),
                "tiles.numbers": torch.zeros(3, 5, 5, dtype=torch.int32, device=device),
                "tiles.values": torch.rand(2, 3, 3, 4, device=device),
            },
        ),
        "show_layers": (
            tk.show_layers,
            {
                "layer": torch.zeros(4, 4, dtype=torch.uint8, device=device),
                "background": torch.rand(4, 3, device=device),
                "pixels": torch.arange(2, dtype=torch.int32, device=device),
                "rgb": torch.rand(2, 3, device=device),
                "opacity": torch.rand(2, device=device),
            },
        ),
        "empty_blocks": (tk.empty_blocks, {"bitfield": shell_bitfield(device)}),
        "accumulate_": (lambda ray_ids, **kwargs: tk.accumulate_(sums, ray_ids, **kwargs), {"ray_ids": ids} | samples),
    }


# The tensor arguments of each op in :func:`calls`, written out because collection needs them and may launch nothing.
SAMPLES = ("sigmas", "deltas", "weighted", "summed", "packed_info")
RAYS = ("rays_o", "rays_d", "t_near", "t_far", "bitfield")
ARGUMENTS = {
    "accumulate_": ("ray_ids", *SAMPLES),
    "blend_samples_": ("values",),
    "composite": SAMPLES,
    "composite_baked": ("values", "deltas", "packed_info", "before", "after", "ts"),
    "dilate_density": ("density_grid",),
    "empty_blocks": ("bitfield",),
    "encode_tiles": ("positions", "tiles.numbers", "tiles.values"),
    "frequency_encode": ("x",),
    "grid_encode": ("positions", "table"),
    "intersect_aabb": ("rays_o", "rays_d", "aabb"),
    "march_baked_grid": (
        *("pose", "cells", "log_densities", "colors", "color_weights", "color_offset", "aabb", "blocks"),
    ),
    "march_rays": (*RAYS, "noise"),
    "morton_decode": ("codes",),
    "morton_encode": ("cells",),
    "pack_bits": ("density_grid", "threshold"),
    "render_rays": RAYS,
    "show_layers": ("layer", "background", "pixels", "rgb", "opacity"),
    "spherical_harmonics": ("directions",),
    "triplane_encode": ("positions", "tables"),
}
OPS = tuple(ARGUMENTS)
CASES = [(op, argument) for op, arguments in ARGUMENTS.items() for argument in arguments]
# What is not a float is never differentiable; of the floats these are not.
NOT_DIFFERENTIABLE = {
    *("deltas", "t_near", "t_far", "noise", "density_grid", "threshold", "values"),
    *("pose", "log_densities", "color_weights", "color_offset", "rgbs"),
}
OR_NUMBERS = {"aabb", "threshold"}  # may be passed as numbers too


def call(op, device, **change):
    function, arguments = calls(device)[op]
    arguments = arguments | change
    if op == "composite" or op == "accumulate_":
        return function(**arguments)
    return function(*arguments.values())


def test_every_argument_is_tested(device):
    assert {op: tuple(arguments) for op, (_, arguments) in calls(device).items()} == ARGUMENTS
    functions = {name for name in tk.__all__ if callable(getattr(tk, name)) and name.islower()}
    assert set(ARGUMENTS) == functions - {"cell_centers"}  # takes no tensor


@pytest.mark.parametrize("op", OPS)
def test_valid_arguments_pass(op, device):
    call(op, device)


@pytest.mark.parametrize(("op", "argument"), [case for case in CASES if case[1] not in OR_NUMBERS])
def test_not_a_tensor(op, argument, device):
    with pytest.raises(TypeError) as error:
        call(op, device, **{argument: [1.0, 2.0]})
    assert str(error.value) == f"{argument}: expected a torch.Tensor, got list; use torch.as_tensor"


@pytest.mark.parametrize(("op", "argument"), CASES)
def test_wrong_shape(op, argument, device):
    valid = calls(device)[op][1][argument]
    with pytest.raises(ValueError) as error:
        call(op, device, **{argument: valid[None]})
    message = str(error.value)
    assert message.startswith(f"{argument}: expected shape [")
    assert f"got [{', '.join(map(str, (1, *valid.shape)))}]; reshape it or pass the matching tensor" in message


@pytest.mark.parametrize(("op", "argument"), CASES)
def test_wrong_dtype(op, argument, device):
    valid = calls(device)[op][1][argument]
    with pytest.raises(ValueError) as error:
        call(op, device, **{argument: valid.to(torch.int64)})
    message = str(error.value)
    assert message.startswith(f"{argument}: expected dtype ") and "got int64; convert it with .to(torch." in message


@pytest.mark.parametrize(("op", "argument"), CASES)
def test_wrong_device(op, argument, device):
    if len(ARGUMENTS[op]) == 1:
        pytest.skip("one argument agrees with itself; see test_runtime.py")
    valid = calls(device)[op][1][argument]
    first = "sigmas" if op == "accumulate_" else ARGUMENTS[op][0]  # the ray ids are checked after the samples
    with pytest.raises(ValueError) as error:
        call(op, device, **{argument: valid.to("meta")})
    message = str(error.value)
    if argument != first:
        assert message == f"{argument}: expected device {device} (as {first}), got meta; move it with .to('{device}')"
    else:
        assert ": expected device meta (as " in message


@pytest.mark.parametrize(("op", "argument"), CASES)
def test_not_contiguous(op, argument, device):
    valid = calls(device)[op][1][argument]
    if valid.dim() == 0:
        pytest.skip("a single number is contiguous")
    spread = torch.stack((valid, valid), -1)[..., 0]
    assert spread.shape == valid.shape and not spread.is_contiguous()
    with pytest.raises(ValueError) as error:
        call(op, device, **{argument: spread})
    message = str(error.value)
    assert message.startswith(f"{argument}: expected a contiguous tensor, got strides {tuple(spread.stride())}")
    assert message.endswith("; call .contiguous()")


@pytest.mark.parametrize(("op", "argument"), CASES)
def test_lazily_negated(op, argument, device):
    valid = calls(device)[op][1][argument]
    if valid.dtype == torch.uint8:
        pytest.skip("torch does not negate bytes")
    with pytest.raises(ValueError) as error:
        call(op, device, **{argument: torch._neg_view(valid)})
    assert str(error.value) == (
        f"{argument}: expected a tensor that holds its own values, got a lazily negated view; call .resolve_neg()"
    )


def test_lazily_negated_gradients_are_taken(device):
    x = torch.rand(4, 3, device=device, requires_grad=True)
    (plain,) = torch.autograd.grad(tk.frequency_encode(x, 1), x, -torch.ones(4, 9, device=device))
    (lazy,) = torch.autograd.grad(tk.frequency_encode(x, 1), x, torch._neg_view(torch.ones(4, 9, device=device)))
    assert torch.equal(plain, lazy)


def test_tensors_beyond_32_bit_indices(device):
    if device.type != "cpu":
        pytest.skip("allocates 17 GB of address space that it does not touch")
    n = 2**28 + 2
    info = torch.tensor([[n - 1, 1]], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"expected tensors of at most 2143289344 elements, .* got one of shape"):
        tk.composite(torch.empty(n), torch.empty(n), torch.empty(n, 8), None, info)


@pytest.mark.parametrize(
    ("op", "argument"),
    [(o, a) for o, a in CASES if o != "render_rays" and (a in NOT_DIFFERENTIABLE or o == "intersect_aabb")],
)
def test_a_gradient_that_is_not_computed_is_an_error(op, argument, device):
    valid = calls(device)[op][1][argument].clone().requires_grad_()
    with pytest.raises(ValueError) as error:
        call(op, device, **{argument: valid})
    assert str(error.value) == (
        f"{argument}: expected a tensor that requires no gradient, because none is computed for it, "
        "got requires_grad=True; pass it with .detach()"
    )
    with torch.no_grad():
        call(op, device, **{argument: valid})


def test_sizes_that_disagree_name_their_origin(device):
    with pytest.raises(ValueError) as error:
        call("composite", device, deltas=torch.rand(7, device=device))
    assert str(error.value) == (
        "deltas: expected shape [M] with M = 6 (from sigmas), got [7]; reshape it or pass the matching tensor"
    )


def test_dtypes_must_agree(device):
    with pytest.raises(
        ValueError, match=r"rays_d: expected dtype float32, got float64; convert it with .to\(torch.float32\)"
    ):
        call("march_rays", device, rays_d=torch.rand(6, 3, device=device, dtype=torch.float64))
    with pytest.raises(
        ValueError, match=r"positions: expected the dtype of the table, torch.float32, or float32 for a float16"
    ):
        call("grid_encode", device, positions=torch.rand(5, 2, device=device, dtype=torch.float64))


def test_inputs_are_not_modified(device):
    for op in OPS:
        if op == "accumulate_":
            continue
        _, arguments = calls(device)[op]
        before = {k: v.clone() for k, v in arguments.items()}
        call(op, device, **arguments)
        assert all(torch.equal(arguments[k], before[k]) for k in before), op
