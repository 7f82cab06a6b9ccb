"""Our fields and renderer, filled from official checkpoints, reproduce the results of the public code.

On its own files where they are (set ERNERF_TI_DATA to the folder that holds official_parity/), and on files that are
made here, whose numbers come from a float64 twin.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.interop.kinks import ReluTrace, choose_sides, find_kinks
from ernerf_ti.interop.ngp_files import read_official_file
from ernerf_ti.interop.parity import GRADIENTS, VALUES, check_frame, read_frame
from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays
from ernerf_ti.portrait.model.mlp import MLP
from tests.interop.making import frame_inputs, official_frame, random_tensors, save

ROOT = Path(os.environ.get("ERNERF_TI_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
ORACLE = ROOT / "official_parity"
needs_oracle = pytest.mark.skipif(not (ORACLE / "frame.npz").exists(), reason=f"no oracle files in {ORACLE}")


# The public code's own numbers


@needs_oracle
@pytest.mark.parametrize(("name", "n"), [("head_ngp.pth", 3 + 3 + 1 + 39), ("torso_ngp.pth", 3)])
def test_oracle(name, n, device):
    source = read_official_file(ORACLE / name)
    differences = check_frame(source.portrait(device), source.has_torso, read_frame(ORACLE / "frame.npz"))
    assert len(differences) == n
    assert [difference for difference in differences if not difference.fits] == []
    # On the CPU no unit has to be flipped: the samples are those of the public code.
    assert device.type != "cpu" or not any(difference.kinks for difference in differences)


@needs_oracle
def test_oracle_rays_audio_code_and_depth(device):
    frame = {name: array.to(device) for name, array in read_frame(ORACLE / "frame.npz").items()}
    pixels = all_pixels(64, 64, device)
    rays_o, rays_d = pixel_rays(frame["pose"][0], tuple(frame["intrinsics"].tolist()), pixels)
    torch.testing.assert_close(rays_o, frame["rays_o"][0], atol=0, rtol=0)
    torch.testing.assert_close(rays_d, frame["rays_d"][0], atol=1e-6, rtol=0)
    torch.testing.assert_close(pixel_coords(pixels, 64, 64), frame["bg_coords"][0], atol=1e-6, rtol=0)
    portrait = read_official_file(ORACLE / "head_ngp.pth").portrait(device)
    code = portrait.head.audio_encoder(frame["auds"])
    torch.testing.assert_close(code[None], frame["head_enc_a"], atol=1e-5, rtol=1e-5)
    t_near, t_far = tk.intersect_aabb(rays_o, rays_d, portrait.head_grid.aabb)
    hit = t_near < t_far
    assert hit.any() and torch.equal(hit, frame["head_depth"].flatten().isfinite())


# Generated files


@pytest.fixture(scope="module")
def head_case(tmp_path_factory):
    """Portrait and arrays of a head with Esperanto features; the frame comes from the torch twin."""
    tensors = random_tensors(3, 44, torso=False)
    path = save(tmp_path_factory.mktemp("head") / "ngp.pth", tensors)
    return read_official_file(path).portrait(), official_frame(tensors, frame_inputs(3, 44, 16))


def as_tensors(arrays):
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def past_tolerance(portrait, arrays, torso=False) -> list[str]:
    return [d.name for d in check_frame(portrait, torso, as_tensors(arrays)) if not d.fits]


def test_head(head_case):
    portrait, arrays = head_case
    differences = check_frame(portrait, False, as_tensors(arrays))
    assert len(differences) == 46
    assert [difference for difference in differences if not difference.fits] == []
    assert arrays["train_weights_sum"].mean() > 0.1 and arrays["head_image"].std() > 0.1  # the head is visible


@pytest.mark.parametrize(("features", "steps"), [(29, 16), (1024, 2)])
def test_head_and_torso(features, steps, tmp_path):
    tensors, inputs = random_tensors(8, features), frame_inputs(8, features, steps)
    arrays = official_frame(tensors, inputs)
    source = read_official_file(save(tmp_path / "ngp.pth", tensors))
    assert past_tolerance(source.portrait(), arrays, torso=True) == []
    assert np.abs(arrays["torso_image"] - arrays["bg"]).mean() > 0.1
    without = {name: array for name, array in arrays.items() if name != "torso_amb_eye"}
    with pytest.raises(ValueError, match="frame: expected the arrays torso_amb_eye, got none of these names"):
        check_frame(source.portrait(), True, as_tensors(without))
    # The image depends on the anchors, on the torso's appearance embedding 0 and on the occupancy threshold.
    for name in ("anchor_points", "individual_codes_torso", "torso_encoder.embeddings"):
        other = dict(tensors)
        other[name] = tensors[name] + 0.05
        portrait = read_official_file(save(tmp_path / "other.pth", other)).portrait()
        assert past_tolerance(portrait, arrays, torso=True) == ["torso_image"]
    portrait = read_official_file(save(tmp_path / "other.pth", tensors, mean_density_torso=0.5)).portrait()
    portrait.torso_grid.alpha_grid.clamp_(max=0.009)
    assert past_tolerance(portrait, arrays, torso=True) == ["torso_image"]


@pytest.mark.parametrize("name", ["encoder_yz.embeddings", "audio_net.encoder_fc1.2.bias"])
def test_scaled_gradient_fails(head_case, name):
    portrait, arrays = head_case
    changed = arrays | {f"grad/{name}": arrays[f"grad/{name}"] * np.float32(1.01)}
    assert past_tolerance(portrait, changed) == [f"grad/{name}"]


def test_one_wrong_row_of_a_gradient_fails(head_case):
    portrait, arrays = head_case
    gradient = arrays["grad/color_net.net.0.weight"].copy()
    gradient[np.linalg.norm(gradient, axis=1).argmax()] *= 1.01
    assert past_tolerance(portrait, arrays | {"grad/color_net.net.0.weight": gradient}) == [
        "grad/color_net.net.0.weight"
    ]


@pytest.mark.parametrize(
    ("name", "change", "failing"),
    [
        ("head_image", 2e-4, "head_image"),
        ("head_amb_aud", 2e-4, "head_amb_aud"),
        ("train_unc", -2e-4, "train_unc"),
        ("train_loss", 1e-4, "train_loss"),
        ("train_image", np.nan, "train_image"),
    ],
)
def test_a_wrong_value_fails(head_case, name, change, failing):
    portrait, arrays = head_case
    changed = np.array(arrays[name])
    changed.flat[changed.size // 2] += change
    assert past_tolerance(portrait, arrays | {name: changed}) == [failing]


def test_another_weight_fails(tmp_path, head_case):
    _, arrays = head_case
    tensors = random_tensors(3, 44, torso=False)
    tensors["color_net.net.1.weight"][1] *= 1.2
    failing = past_tolerance(read_official_file(save(tmp_path / "ngp.pth", tensors)).portrait(), arrays)
    assert "head_image" in failing and "train_image" in failing


def test_missing_and_unexpected_arrays_are_named(head_case):
    portrait, arrays = head_case
    without = {name: array for name, array in arrays.items() if name not in ("eye", "grad/unc_net.net.1.weight")}
    with pytest.raises(ValueError, match="expected the arrays eye, got none of these names"):
        check_frame(portrait, False, as_tensors(without))
    with pytest.raises(ValueError, match=r"expected the arrays grad/unc_net.net.1.weight, got none"):
        check_frame(portrait, False, as_tensors(without | {"eye": arrays["eye"]}))
    with pytest.raises(ValueError, match=r"got others too \(grad/embedding.weight\)"):
        check_frame(portrait, False, as_tensors(arrays | {"grad/embedding.weight": arrays["eye"]}))
    with pytest.raises(ValueError, match="head_image: expected 768 numbers"):
        check_frame(portrait, False, as_tensors(arrays | {"head_image": arrays["head_image"][1:]}))
    short = {"grad/color_net.net.1.weight": arrays["grad/color_net.net.1.weight"][:2]}
    with pytest.raises(ValueError, match=r"grad/color_net.net.1.weight: expected shape \[3, 64\], got \[2, 64\]"):
        check_frame(portrait, False, as_tensors(arrays | short))


# Kinks


class OneHiddenLayer(torch.nn.Module):
    """y = sum(relu(W x)); unit 2 is at its kink, within rounding, at sample 1."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 6))
        self.x = torch.randn(6, 5)
        with torch.no_grad():
            at_kink = self.x[:, 1]
            self.weight[2] -= (self.weight[2] @ at_kink) / (at_kink @ at_kink) * at_kink

    def trace(self, samples=slice(None), backward=False) -> ReluTrace:
        with ReluTrace() as trace:
            y = torch.nn.functional.relu(torch.mm(self.weight, self.x[:, samples]))
        if backward:
            (y * torch.arange(1.0, 6.0)).sum().backward()
        return trace


def test_magnitudes_of_all_products_of_a_layer():
    network, parts = MLP(9, 4, 2, 3), (torch.randn(5, 2), torch.randn(5, 4))
    shared = torch.randn(3)
    with ReluTrace() as trace:
        network(*parts, shared=shared)
    weight = network.first_weight
    bias = (weight[:, 6:] @ shared).abs()
    expected = weight[:, :6].abs() @ torch.cat(parts, 1).t().abs() + bias[:, None]
    assert len(trace.layers) == 2
    torch.testing.assert_close(trace.layers[0].magnitudes, expected.detach())


def test_a_unit_at_its_kink_is_found_and_flipped():
    network = OneHiddenLayer()
    trace = network.trace(backward=True)
    size = float(network.weight.grad.norm())
    (kink,) = find_kinks(trace, trace, network.trace, {"weight": network.weight}, {"weight": size})
    assert (kink.layer, kink.unit, kink.sample) == (0, 2, 1)
    side = -1 if trace.layers[0].inputs[2, 1] > 0 else 1
    expected = torch.zeros(4, 6)
    expected[2] = side * 2 * network.x[:, 1]
    torch.testing.assert_close(kink.changes["weight"], expected)

    change = {"weight": kink.changes["weight"] / size}
    scaled = [kink._replace(changes=change)]
    errors, chosen = choose_sides({"weight": -change["weight"]}, scaled, GRADIENTS)
    assert len(chosen) == 1 and float(errors["weight"].norm()) < 1e-6
    assert choose_sides({"weight": torch.full((4, 6), 1e-5)}, scaled, GRADIENTS)[1] == []  # within the limit
    wrong = torch.zeros(4, 6)
    wrong[1] = 0.01  # of another unit: flipping does not explain it
    errors, chosen = choose_sides({"weight": wrong}, scaled, GRADIENTS)
    assert float(errors["weight"].norm()) > GRADIENTS


def test_units_away_from_their_kinks_are_not_flipped():
    network = OneHiddenLayer()
    with torch.no_grad():
        network.weight[2] += 1e-3 * network.x[:, 1]
    trace = network.trace(backward=True)
    sizes = {"weight": float(network.weight.grad.norm())}
    assert find_kinks(trace, trace, network.trace, {"weight": network.weight}, sizes) == []
    network.x = network.x * 1.001  # samples with so large a rounding error could have it on either side
    assert find_kinks(trace, network.trace(), network.trace, {"weight": network.weight}, sizes) == []
    network.x = network.x * -1.0
    found = find_kinks(trace, network.trace(), network.trace, {"weight": network.weight}, sizes)
    assert (2, 1) in [(kink.unit, kink.sample) for kink in found]


def test_tolerances():
    assert (VALUES, GRADIENTS) == (1e-4, 1e-3)
