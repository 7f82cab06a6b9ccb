"""A frame as the public ER-NeRF code computes it, in plain torch, from tensors by that code's names.

Where samples lie is float32 arithmetic, as there: a step is added after the other, and in another precision samples
would lie elsewhere. What is computed at them is in the dtype of the tensors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels import GridConfig
from taichi_kernels.reference.compositing import composite
from taichi_kernels.reference.frequency_encoding import frequency_encode
from taichi_kernels.reference.grid_encoding import grid_encode
from taichi_kernels.reference.ray_marching import march_rays
from taichi_kernels.reference.spherical_harmonics import spherical_harmonics

PLANE = GridConfig(2, 12, 64, 512, 14, 1)
TORSO = GridConfig(2, 16, 16, 2048, 16, 2, kind="tiled")
MAX_STEPS, DT_GAMMA, THRESHOLD, MIN_NEAR = 16, 1 / 256, 1e-4, 0.05


def network(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    layer = 0
    while (weight := tensors.get(f"{name}.net.{layer}.weight")) is not None:
        x = F.linear(F.relu(x) if layer else x, weight)
        layer += 1
    return x


def encode_audio(tensors: dict[str, Tensor], auds: Tensor) -> Tensor:
    """[8, C, steps] -> [32]."""

    def leaky(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.02)

    def of(name: str) -> tuple[Tensor, Tensor]:
        return tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    x = auds
    for layer in (0, 2, 4, 6):
        x = leaky(F.conv1d(x, *of(f"audio_net.encoder_conv.{layer}"), stride=2, padding=1))
    codes = F.linear(leaky(F.linear(x[..., 0], *of("audio_net.encoder_fc1.0"))), *of("audio_net.encoder_fc1.2"))
    x = codes.t()[None]
    for layer in (0, 2, 4, 6, 8):
        x = leaky(F.conv1d(x, *of(f"audio_att_net.attentionConvNet.{layer}"), padding=1))
    return torch.softmax(F.linear(x.flatten(), *of("audio_att_net.attentionNet.0")), 0) @ codes


def head(tensors, positions, directions, audio, eye, code) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """sigmas [M], rgbs [M, 3], audio_attention, eye_attention, uncertainty [M]."""
    dtype = audio.dtype
    x, y, z = positions.to(dtype).unbind(1)
    pairs = {"xy": (x, y), "yz": (y, z), "xz": (x, z)}
    features = torch.cat(
        [grid_encode(torch.stack(p, 1), tensors[f"encoder_{name}.embeddings"], PLANE) for name, p in pairs.items()], 1
    )
    weights = network(tensors, "aud_ch_att_net", features)
    eye_weights = torch.sigmoid(network(tensors, "eye_att_net", features))
    h = network(tensors, "sigma_net", torch.cat((features, audio * weights, eye * eye_weights), 1))
    harmonics = spherical_harmonics(directions.to(dtype), 4)
    h_color = torch.cat((harmonics, h[:, 1:], code.expand(len(h), -1)), 1)
    rgbs = torch.sigmoid(network(tensors, "color_net", h_color)) * 1.002 - 0.001
    uncertainty = torch.log(1 + torch.exp(network(tensors, "unc_net", features.detach())))
    return torch.exp(h[:, 0]), rgbs, weights.norm(dim=1), eye_weights[:, 0], uncertainty[:, 0]


def torso(tensors: dict[str, Tensor], coords: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha [K], color [K, 3] of pixels, with the code of row 0."""
    x = coords * 0.8
    anchors = tensors["anchor_points"] @ torch.linalg.inv(pose).t()
    anchors = (anchors[:, :2] / anchors[:, 3:] / anchors[:, 2:3]).flatten()
    shared = torch.cat((frequency_encode(anchors[None], 3)[0], tensors["individual_codes_torso"][0]))
    h = torch.cat((frequency_encode(x, 8), shared.expand(len(x), -1)), 1)
    moved = (x + network(tensors, "torso_deform_net", h)).clamp(-1, 1)
    features = grid_encode(moved, tensors["torso_encoder.embeddings"], TORSO)
    o = torch.sigmoid(network(tensors, "torso_net", torch.cat((features, h), 1))) * 1.002 - 0.001
    return o[:, 0], o[:, 1:]


def box_distances(rays_o: Tensor, rays_d: Tensor, aabb: Tensor) -> tuple[Tensor, Tensor]:
    """Entry and exit of each ray, by the reciprocals of the directions, as there."""
    inverse = 1 / rays_d
    low, high = (aabb[:3] - rays_o) * inverse, (aabb[3:] - rays_o) * inverse
    near, far = torch.minimum(low, high).amax(1), torch.maximum(low, high).amin(1)
    miss = near > far
    largest = torch.finfo(near.dtype).max
    return near.clamp(min=MIN_NEAR).masked_fill(miss, largest), far.masked_fill(miss, largest)


def render_in_rounds(tensors, rays_o, rays_d, audio, eye, background) -> dict[str, Tensor]:
    """[N] rays of a whole picture without gradients: color, sums of the ambient values, depth in [0, 1]."""
    n, dtype = len(rays_o), audio.dtype
    code, bitfield = tensors["individual_codes"][0], tensors["density_bitfield"]
    near, far = box_distances(rays_o, rays_d, tensors["aabb_infer"].float())
    t, alive, step = near.clone(), torch.arange(n), 0
    opacity, depth, audio_attention, eye_attention = (torch.zeros(n, dtype=dtype) for _ in range(4))
    rgb = torch.zeros(n, 3, dtype=dtype)
    while step < MAX_STEPS and len(alive):
        n_step = max(1, min(8, n // len(alive)))
        positions, directions, ts, deltas, packed_info, _ = march_rays(
            *(rays_o[alive], rays_d[alive], t[alive], far[alive], bitfield),
            max_steps=MAX_STEPS,
            max_samples=n_step,
            dt_gamma=DT_GAMMA,
        )
        sigmas, rgbs, audios, eyes, _ = head(tensors, positions, directions, audio, eye, code)
        begin, count = packed_info.long().unbind(1)
        goes_on = torch.ones(len(alive), dtype=torch.bool)
        for k in range(n_step):
            goes_on &= count > k
            at, ray = (begin + k)[goes_on], alive[goes_on]
            light = 1 - opacity[ray]
            weight = light * (1 - torch.exp(-sigmas[at] * deltas[at]))
            end = ts[at] + deltas[at]
            opacity[ray] += weight
            rgb[ray] += weight[:, None] * rgbs[at]
            depth[ray] += weight * end
            audio_attention[ray] += audios[at]
            eye_attention[ray] += eyes[at]
            t[ray] = end
            goes_on[goes_on.clone()] = light >= THRESHOLD
        alive = alive[goes_on]
        step += n_step
    return {
        "image": (rgb + (1 - opacity)[:, None] * background).clamp(0, 1),
        "depth": (depth - near).clamp(min=0) / (far - near),
        "amb_aud": audio_attention,
        "amb_eye": eye_attention,
    }


def render_frame(tensors: dict[str, Tensor], inputs: dict[str, Tensor], mean_density_torso: float) -> dict[str, Tensor]:
    """The picture of a head, or of head and torso, with its maps; [H, W] each."""
    dtype = tensors["sigma_net.net.0.weight"].dtype
    background = inputs["bg"].to(dtype)
    shape = background.shape[:2]
    background = background.reshape(-1, 3)
    audio = encode_audio(tensors, inputs["auds"].to(dtype))
    if "anchor_points" in tensors:
        coords = inputs["bg_coords"][0]
        grid = tensors["density_grid_torso"].view(1, 1, 128, 128).to(coords)
        occupancy = F.grid_sample(grid, coords[None, None], align_corners=True).flatten()
        at = (occupancy > min(0.01, mean_density_torso)).nonzero()[:, 0]
        alpha, color = torso(tensors, coords[at].to(dtype), inputs["pose"][0].to(dtype))
        background[at] = color * alpha[:, None] + background[at] * (1 - alpha)[:, None]
    eye = inputs["eye"].to(dtype)[0]
    result = render_in_rounds(tensors, inputs["rays_o"][0], inputs["rays_d"][0], audio, eye, background)
    return {name: values.view(*shape, *values.shape[1:]) for name, values in result.items()} | {"enc_a": audio[None]}


def training_pass(tensors: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pixels, sums, loss and gradients of a pass through all rays without jitter; by the names of a frame.npz."""
    parameters = {name: t for name, t in tensors.items() if t.requires_grad}
    dtype = tensors["sigma_net.net.0.weight"].dtype
    rays_o, rays_d = inputs["rays_o"][0], inputs["rays_d"][0]
    near, far = box_distances(rays_o, rays_d, tensors["aabb_train"].float())
    positions, directions, ts, deltas, packed_info, _ = march_rays(
        *(rays_o, rays_d, near, far, tensors["density_bitfield"]), max_steps=MAX_STEPS, dt_gamma=DT_GAMMA
    )
    audio = encode_audio(tensors, inputs["auds"].to(dtype))
    code = tensors["individual_codes"][int(inputs["index"])]
    sigmas, rgbs, audios, eyes, uncertainty = head(
        tensors, positions, directions, audio, inputs["eye"].to(dtype)[0], code
    )
    weighted, summed, opacity = composite(
        *(sigmas, deltas.to(dtype), torch.cat((rgbs, uncertainty[:, None]), 1), torch.stack((audios, eyes), 1)),
        *(packed_info, THRESHOLD),
    )
    background = inputs["bg"].reshape(-1, 3).to(dtype)
    image = (weighted[:, :3] + (1 - opacity)[:, None] * background).clamp(0, 1)
    loss = (image - inputs["train_gt"][0].to(dtype)).square().mean() + 0.01 * opacity.mean()
    loss = loss + 1e-3 * summed[:, 0].mean() + 2e-3 * summed[:, 1].mean() + 3e-3 * weighted[:, 3].mean()
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return {
        "train_image": image.view(inputs["bg"].shape),
        "train_weights_sum": opacity,
        "train_unc": weighted[:, 3],
        "train_n_samples": torch.tensor(len(ts)),
        "train_loss": loss,
        **{f"grad/{name}": gradient for name, gradient in zip(parameters, gradients, strict=True)},
    }
