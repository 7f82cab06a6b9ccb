"""The head's training pass in plain torch: the twins of the kernels around networks spelled out in torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels.reference.compositing import composite
from taichi_kernels.reference.ray_aabb import intersect_aabb
from taichi_kernels.reference.ray_marching import march_rays
from taichi_kernels.reference.spherical_harmonics import spherical_harmonics
from taichi_kernels.reference.triplane_encoding import triplane_encode


def perceptron(network, x: Tensor) -> Tensor:
    for i, layer in enumerate(network.layers):
        x = F.linear(F.relu(x) if i else x, layer.weight)
    return x


def encode_audio(encoder, windows: Tensor) -> Tensor:
    x = windows
    for layer in encoder.convolutions[::2]:
        x = F.leaky_relu(F.conv1d(x, layer.weight, layer.bias, stride=2, padding=1), 0.02)
    first, _, last = encoder.projection
    x = F.leaky_relu(F.linear(x.squeeze(2), first.weight, first.bias), 0.02)
    codes = F.linear(x, last.weight, last.bias)
    x = codes.t()[None]
    for layer in encoder.attention.convolutions[::2]:
        x = F.leaky_relu(F.conv1d(x, layer.weight, layer.bias, padding=1), 0.02)
    scores = encoder.attention.scores
    return torch.softmax(F.linear(x.flatten(), scores.weight, scores.bias), 0) @ codes


def render_head(head, conditioning, bitfield, aabb, rays_o, rays_d, config, background, noise) -> dict[str, Tensor]:
    """A head with tri-plane hash encoder and channel attention, along rays."""
    # Distances are held fixed: no gradient flows through them.
    t_near, t_far = intersect_aabb(rays_o.detach(), rays_d.detach(), aabb, config.min_near)
    positions, directions, ts, deltas, packed_info, _ = march_rays(
        *(rays_o, rays_d, t_near, t_far, bitfield),
        max_steps=config.max_steps,
        dt_gamma=config.dt_gamma,
        noise=noise,
    )
    encoding = head.position_encoder.encoding
    x = triplane_encode(positions, encoding.tables, encoding.config)
    weights = perceptron(head.region_attention.audio_attention, x)
    eye_weights = torch.sigmoid(perceptron(head.region_attention.eye_attention, x))
    audio = encode_audio(head.audio_encoder, conditioning.audio_window)
    h = perceptron(head.density_net, torch.cat((x, audio * weights, conditioning.eye_closure * eye_weights), 1))
    code = head.appearance(conditioning.appearance_index).expand(len(x), -1)
    harmonics = spherical_harmonics(directions, head.config.direction_degree)
    rgbs = torch.sigmoid(perceptron(head.color_net, torch.cat((harmonics, h[:, 1:], code), 1))) * 1.002 - 0.001
    uncertainty = torch.log1p(torch.exp(perceptron(head.uncertainty_net, x.detach())))
    weighted, summed, opacity = composite(
        torch.exp(h[:, 0]),
        deltas,
        torch.cat((rgbs, (ts + deltas)[:, None], uncertainty), 1),
        torch.stack((weights.square().sum(1).sqrt(), eye_weights[:, 0]), 1),
        packed_info,
        config.T_threshold,
    )
    rgb = (weighted[:, :3] + (1 - opacity)[:, None] * background).clamp(0, 1)
    return {
        "rgb": rgb,
        "opacity": opacity,
        "depth": weighted[:, 3],
        "audio_attention": summed[:, 0],
        "eye_attention": summed[:, 1],
        "uncertainty": weighted[:, 4],
    }
