"""A small head in closed form or from a small network, and rays through it."""

import torch

from ernerf_ti.portrait.config import HeadFieldConfig, OccupancyGridConfig, TriplaneHashConfig
from ernerf_ti.portrait.model.head_field import HeadField
from ernerf_ti.portrait.records import FieldOutput, FrameInputs
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from taichi_kernels import cell_centers, pack_bits

SMALL = HeadFieldConfig(
    position_encoder=TriplaneHashConfig(n_levels=3, base_resolution=4, finest_resolution=16, log2_table_size=6),
    audio_attention_width=8,
    eye_attention_width=8,
    density_width=16,
    geometry_features=8,
    color_width=16,
    uncertainty_width=8,
)


def solid_field(positions, directions):
    """Dense, with colors and attention that vary smoothly."""
    sigmas = 30 + 20 * torch.sin(7 * positions[:, 0])
    rgbs = torch.sigmoid(3 * positions + directions)
    attention = positions.norm(dim=1)
    return FieldOutput(sigmas, rgbs, attention, 0.5 * attention, 1 + attention)


def thin_field(positions, directions):
    """Like :func:`solid_field`, but no ray becomes opaque in it."""
    output = solid_field(positions, directions)
    output.sigmas = output.sigmas * 0.01
    return output


def small_head(device, n_embeddings=3):
    head = HeadField(SMALL, 5, n_embeddings).to(device)
    torch.nn.init.normal_(head.position_encoder.encoding.tables, std=0.5)
    return head


def small_inputs(device, appearance=1):
    window = torch.randn(8, 5, 16).to(device)
    return FrameInputs(window, torch.tensor([0.6], device=device), appearance, torch.eye(4, device=device))


def ball_grid(device, resolution=32, radius=0.45):
    grid = OccupancyGrid(OccupancyGridConfig(resolution=resolution)).to(device)
    inside = cell_centers(resolution, device=device).norm(dim=1) < radius
    grid.set_bitfield(pack_bits(inside.float()[None], 0.5))
    return grid


def random_rays(n, device, dtype=torch.float32):
    """From outside the box, most of them through it."""
    rays_o = torch.nn.functional.normalize(torch.randn(n, 3, dtype=dtype), dim=1).to(device) * 3
    target = (torch.rand(n, 3, dtype=dtype).to(device) - 0.5) * 1.6
    return rays_o, torch.nn.functional.normalize(target - rays_o, dim=1)
