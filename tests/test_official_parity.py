"""The kernels under a whole ER-NeRF network give the numbers that the public code computed.

The network is spelled out here in plain torch on the keys of an official checkpoint. Needs the oracle
files: set ERNERF_TI_DATA to the folder that holds official_parity/. Skipped without them.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import taichi_kernels as tk

ROOT = Path(os.environ.get("ERNERF_TI_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ORACLE = ROOT / "official_parity"

pytestmark = pytest.mark.skipif(not (ORACLE / "frame.npz").exists(), reason=f"no oracle files in {ORACLE}")

AABB = (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)
MAX_STEPS = 16
PLANE_GRID = tk.GridConfig(2, 12, 64, 512, log2_table_size=14, n_features=1)
TORSO_GRID = tk.GridConfig(2, 16, 16, 2048, log2_table_size=16, n_features=2, kind="tiled")


@pytest.fixture(scope="module")
def frame(device):
    with np.load(ORACLE / "frame.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]).to(device) for key in arrays.files}


def load_model(name: str, device) -> dict[str, Tensor]:
    return torch.load(ORACLE / name, weights_only=True, map_location=device)["model"]


def mlp(model, name: str, x: Tensor) -> Tensor:
    weights = [model[k] for k in sorted(k for k in model if k.startswith(f"{name}.net."))]
    for weight in weights[:-1]:
        x = F.relu(F.linear(x, weight))
    return F.linear(x, weights[-1])


def encode_audio(model, windows: Tensor) -> Tensor:
    def conv(name, x, stride):
        x = F.conv1d(x, model[f"{name}.weight"], model[f"{name}.bias"], stride=stride, padding=1)
        return F.leaky_relu(x, 0.02)

    def linear(name, x):
        return F.linear(x, model[f"{name}.weight"], model[f"{name}.bias"])

    x = windows
    for i in (0, 2, 4, 6):
        x = conv(f"audio_net.encoder_conv.{i}", x, 2)
    codes = linear("audio_net.encoder_fc1.2", F.leaky_relu(linear("audio_net.encoder_fc1.0", x.squeeze(-1)), 0.02))
    x = codes.t()[None]
    for i in (0, 2, 4, 6, 8):
        x = conv(f"audio_att_net.attentionConvNet.{i}", x, 1)
    attention = torch.softmax(linear("audio_att_net.attentionNet.0", x.reshape(1, 8)), -1)
    return attention @ codes


def head_field(model, samples: tk.RaySamples, audio: Tensor, eye: Tensor, code: Tensor):
    """sigmas [M], weighted [M, 5] (colour, end of step, uncertainty), summed [M, 2] (ambients)."""
    tables = torch.stack([model[f"encoder_{plane}.embeddings"] for plane in ("xy", "yz", "xz")])
    x = tk.triplane_encode(samples.positions, tables, PLANE_GRID)
    audio_gate = mlp(model, "aud_ch_att_net", x)
    eye_gate = torch.sigmoid(mlp(model, "eye_att_net", x))
    h = mlp(model, "sigma_net", torch.cat([x, audio * audio_gate, eye * eye_gate], 1))
    directions = tk.spherical_harmonics(samples.directions, 4)
    rgbs = mlp(model, "color_net", torch.cat([directions, h[:, 1:], code.expand(len(x), -1)], 1))
    rgbs = torch.sigmoid(rgbs) * 1.002 - 0.001
    uncertainty = torch.log(1 + torch.exp(mlp(model, "unc_net", x.detach())))
    ends = (samples.ts + samples.deltas)[:, None]
    summed = torch.cat([audio_gate.norm(dim=1, keepdim=True), eye_gate], 1)
    return torch.exp(h[:, 0]), torch.cat([rgbs, ends, uncertainty], 1), summed


def infer_head(model, frame):
    rays_o, rays_d = frame["rays_o"][0], frame["rays_d"][0]
    t_near, t_far = tk.intersect_aabb(rays_o, rays_d, AABB)
    audio = encode_audio(model, frame["auds"])
    rays = tk.render_rays(
        lambda samples: head_field(model, samples, audio, frame["eye"], model["individual_codes"][:1]),
        *(rays_o, rays_d, t_near, t_far, model["density_bitfield"]),
        max_steps=MAX_STEPS,
        dt_gamma=1 / 256,
    )
    depth = (rays.weighted[:, 3] - t_near).clamp(min=0) / (t_far - t_near)
    return rays, depth, audio


def assert_frame(frame, prefix, rays, depth, audio, background, atol=1e-4):
    image = (rays.weighted[:, :3] + (1 - rays.opacity)[:, None] * background).clamp(0, 1)
    hit = depth.isfinite() & frame[f"{prefix}_depth"].flatten().isfinite()
    assert hit.any()
    torch.testing.assert_close(audio, frame[f"{prefix}_enc_a"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(image, frame[f"{prefix}_image"].reshape(-1, 3), atol=atol, rtol=0)
    torch.testing.assert_close(depth[hit], frame[f"{prefix}_depth"].flatten()[hit], atol=atol, rtol=0)
    torch.testing.assert_close(rays.summed[:, 0], frame[f"{prefix}_amb_aud"].flatten(), atol=atol, rtol=0)
    torch.testing.assert_close(rays.summed[:, 1], frame[f"{prefix}_amb_eye"].flatten(), atol=atol, rtol=0)


def test_head_inference(frame, device):
    model = load_model("head_ngp.pth", device)
    rays, depth, audio = infer_head(model, frame)
    assert_frame(frame, "head", rays, depth, audio, frame["bg"].reshape(-1, 3))


def test_head_training_pass(frame, device):
    model = load_model("head_ngp.pth", device)
    oracle_gradients = {key[5:]: frame[key] for key in frame if key.startswith("grad/")}
    assert len(oracle_gradients) == 39
    for name in oracle_gradients:
        model[name].requires_grad_()
    rays_o, rays_d = frame["rays_o"][0], frame["rays_d"][0]
    t_near, t_far = tk.intersect_aabb(rays_o, rays_d, AABB)
    bitfield = model["density_bitfield"]
    samples = tk.march_rays(rays_o, rays_d, t_near, t_far, bitfield, max_steps=MAX_STEPS, dt_gamma=1 / 256)
    assert len(samples.ts) == int(frame["train_n_samples"])

    code = model["individual_codes"][int(frame["index"])][None]
    sigmas, weighted, summed = head_field(model, samples, encode_audio(model, frame["auds"]), frame["eye"], code)
    rays = tk.composite(sigmas, samples.deltas, weighted, summed, samples.packed_info)
    image = rays.weighted[:, :3] + (1 - rays.opacity)[:, None] * frame["bg"].reshape(-1, 3)
    image = image.clamp(0, 1)
    uncertainty = rays.weighted[:, 4]
    loss = (
        ((image - frame["train_gt"][0]) ** 2).mean()
        + 1e-3 * rays.summed[:, 0].mean()
        + 2e-3 * rays.summed[:, 1].mean()
        + 3e-3 * uncertainty.mean()
        + 0.01 * rays.opacity.mean()
    )
    loss.backward()

    torch.testing.assert_close(image, frame["train_image"].reshape(-1, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(rays.opacity, frame["train_weights_sum"], atol=1e-4, rtol=0)
    torch.testing.assert_close(uncertainty, frame["train_unc"], atol=1e-4, rtol=0)
    assert abs(loss.item() / frame["train_loss"].item() - 1) < 1e-5
    for name, expected in oracle_gradients.items():
        error = model[name].grad[: len(expected)] - expected
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


def test_torso_inference(frame, device):
    model = load_model("torso_ngp.pth", device)
    mean_density = torch.load(ORACLE / "torso_ngp.pth", weights_only=True, map_location=device)["mean_density_torso"]
    coords = frame["bg_coords"][0]
    grid = model["density_grid_torso"].view(1, 1, 128, 128)
    occupancy = F.grid_sample(grid, coords[None, None], align_corners=True).flatten()
    inside = occupancy > min(0.01, mean_density)
    x = (coords[inside] * 0.8).contiguous()

    camera = model["anchor_points"] @ frame["pose"][0].inverse().t()
    anchors = (camera[:, :2] / camera[:, 3:] / camera[:, 2:3]).reshape(1, -1)
    code = model["individual_codes_torso"][:1].expand(len(x), -1)
    anchor_features = tk.frequency_encode(anchors.contiguous(), 3).expand(len(x), -1)
    h = torch.cat([tk.frequency_encode(x, 8), anchor_features, code], 1)
    moved = (x + mlp(model, "torso_deform_net", h)).clamp(-1, 1)
    features = tk.grid_encode(moved, model["torso_encoder.embeddings"], TORSO_GRID)
    output = torch.sigmoid(mlp(model, "torso_net", torch.cat([features, h], 1))) * 1.002 - 0.001

    background = frame["bg"].reshape(-1, 3).clone()
    alpha, rgb = output[:, :1], output[:, 1:]
    background[inside] = rgb * alpha + background[inside] * (1 - alpha)
    rays, depth, audio = infer_head(model, frame)
    assert_frame(frame, "torso", rays, depth, audio, background)
