"""Our fields and renderer, filled from official checkpoints, give the numbers that the public code computed.

Needs the oracle files: set ERNERF_TI_DATA to the folder that holds official_parity/. Skipped without them.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.batch import Conditioning, RenderOutput
from ernerf_ti.camera import all_pixels, pixel_coords, pixel_rays
from ernerf_ti.official_checkpoint import read_official_checkpoint
from ernerf_ti.render.head_renderer import MarchConfig, render_rays
from ernerf_ti.render.portrait import render_portrait

ROOT = Path(os.environ.get("ERNERF_TI_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ORACLE = ROOT / "official_parity"

pytestmark = pytest.mark.skipif(not (ORACLE / "frame.npz").exists(), reason=f"no oracle files in {ORACLE}")

# Parameters of ours by the name of the oracle's gradient.
GRADIENTS = {
    "audio_net.encoder_conv": "audio_encoder.convolutions",
    "audio_net.encoder_fc1": "audio_encoder.projection",
    "audio_att_net.attentionConvNet": "audio_encoder.attention.convolutions",
    "audio_att_net.attentionNet.0": "audio_encoder.attention.scores",
    "aud_ch_att_net.net": "conditioning.audio_attention.layers",
    "eye_att_net.net": "conditioning.eye_attention.layers",
    "sigma_net.net": "density_net.layers",
    "color_net.net": "colour_net.layers",
    "unc_net.net": "uncertainty_net.layers",
    "individual_codes": "identity_codes.codes",
}


@pytest.fixture(scope="module")
def frame(device):
    with np.load(ORACLE / "frame.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]).to(device) for key in arrays.files}


def load(name: str, device):
    return [part if part is None else part.to(device) for part in read_official_checkpoint(ORACLE / name)]


def conditioning(frame, index: int = 0) -> Conditioning:
    return Conditioning(frame["auds"], frame["eye"][0], index, frame["pose"][0])


def render_frame(frame, head, grid, torso=None, torso_grid=None, **options) -> RenderOutput:
    at = conditioning(frame)
    return render_portrait(
        head.bind(at, with_uncertainty=False),
        *(grid, frame["pose"][0], tuple(frame["intrinsics"].tolist()), (64, 64), MarchConfig(), frame["bg"]),
        torso and (lambda coords: torso(coords, at.head_pose, at.identity_index)),
        torso_grid,
        **options,
    )


def assert_frame(frame, prefix: str, output: RenderOutput, grid, atol: float = 1e-4) -> None:
    t_near, t_far = tk.intersect_aabb(frame["rays_o"][0], frame["rays_d"][0], grid.aabb)
    depth = (output.depth.flatten() - t_near).clamp(min=0) / (t_far - t_near)
    hit = depth.isfinite() & frame[f"{prefix}_depth"].flatten().isfinite()
    assert hit.any()
    torch.testing.assert_close(output.rgb, frame[f"{prefix}_image"], atol=atol, rtol=0)
    torch.testing.assert_close(depth[hit], frame[f"{prefix}_depth"].flatten()[hit], atol=atol, rtol=0)
    torch.testing.assert_close(output.ambient_audio, frame[f"{prefix}_amb_aud"], atol=atol, rtol=0)
    torch.testing.assert_close(output.ambient_eye, frame[f"{prefix}_amb_eye"], atol=atol, rtol=0)


def test_rays_and_coordinates(frame):
    pixels = all_pixels(64, 64, frame["pose"].device)
    rays_o, rays_d = pixel_rays(frame["pose"][0], tuple(frame["intrinsics"].tolist()), pixels)
    torch.testing.assert_close(rays_o, frame["rays_o"][0], atol=0, rtol=0)
    torch.testing.assert_close(rays_d, frame["rays_d"][0], atol=1e-6, rtol=0)
    torch.testing.assert_close(pixel_coords(pixels, 64, 64), frame["bg_coords"][0], atol=1e-6, rtol=0)


def test_audio_code(frame, device):
    head, *_ = load("head_ngp.pth", device)
    torch.testing.assert_close(head.audio_encoder(frame["auds"])[None], frame["head_enc_a"], atol=1e-5, rtol=1e-5)


def test_head_inference(frame, device):
    head, grid, torso, torso_grid = load("head_ngp.pth", device)
    assert torso is None and torso_grid is None
    assert_frame(frame, "head", render_frame(frame, head, grid, in_rounds=True), grid)


def test_torso_inference(frame, device):
    head, grid, torso, torso_grid = load("torso_ngp.pth", device)
    output = render_frame(frame, head, grid, torso, torso_grid, in_rounds=True)
    assert_frame(frame, "torso", output, grid)


def test_chunks_differ_from_rounds_only_where_rounds_take_more_samples(frame, device):
    head, grid, torso, torso_grid = load("torso_ngp.pth", device)
    rounds = render_frame(frame, head, grid, torso, torso_grid, in_rounds=True)
    chunks = render_frame(frame, head, grid, torso, torso_grid)
    same = rounds.n_samples <= 16
    assert same.float().mean() > 0.5
    torch.testing.assert_close(chunks.rgb[same], rounds.rgb[same], atol=2e-4, rtol=0)


@pytest.mark.parametrize("wave", [4, 16])
def test_head_training_pass(frame, wave, device):
    head, grid, *_ = load("head_ngp.pth", device)
    background = frame["bg"].reshape(-1, 3)
    output = render_rays(
        head.bind(conditioning(frame, int(frame["index"]))),
        *(grid, frame["rays_o"][0], frame["rays_d"][0], MarchConfig(samples_per_wave=wave), background),
    )
    n_evaluated, n_marched = int(output.n_samples.sum()), int(frame["train_n_samples"])
    assert n_evaluated == n_marched if wave == 16 else n_evaluated <= n_marched
    loss = (
        ((output.rgb - frame["train_gt"][0]) ** 2).mean()
        + 1e-3 * output.ambient_audio.mean()
        + 2e-3 * output.ambient_eye.mean()
        + 3e-3 * output.uncertainty.mean()
        + 0.01 * output.opacity.mean()
    )
    loss.backward()

    torch.testing.assert_close(output.rgb, frame["train_image"].reshape(-1, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(output.opacity, frame["train_weights_sum"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.uncertainty, frame["train_unc"], atol=1e-4, rtol=0)
    assert abs(loss.item() / frame["train_loss"].item() - 1) < 1e-5

    gradients = {name: parameter.grad for name, parameter in head.named_parameters()}
    assert len(gradients) == 37  # the oracle's 39, with the three planes in one table
    oracle = {key.removeprefix("grad/"): frame[key] for key in frame if key.startswith("grad/")}
    assert len(oracle) == 39
    for name, expected in oracle.items():
        if name.startswith("encoder_"):
            plane = ("xy", "yz", "xz").index(name[8:10])
            gradient = gradients["position_encoder.encoding.tables"][plane]
        else:
            prefix = next(p for p in GRADIENTS if name.startswith(p))
            gradient = gradients[GRADIENTS[prefix] + name[len(prefix) :]]
        error = gradient[: len(expected)] - expected
        tolerance = 1e-3
        # One sample of the oracle's frame meets one hidden unit of the colour network within rounding
        # of its ReLU's kink, and this product of matrices rounds to the other side (in float64 too).
        # So that unit's row, and what flows through it to the code, is off by the sample's gradient.
        if name == "color_net.net.0.weight":
            assert error[60].norm() <= 3e-3 * expected.norm()
            error[60] = 0
        elif name == "individual_codes":
            tolerance = 5e-3
        assert error.norm() <= tolerance * expected.norm(), name
