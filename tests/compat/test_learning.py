"""A program in the style of the torch-ngp family learns a coloured ball, and renders it in rounds."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from taichi_kernels.compat.torch_ngp import raymarching, raymarching_torch_ngp
from taichi_kernels.compat.torch_ngp.gridencoder import GridEncoder
from taichi_kernels.compat.torch_ngp.shencoder import SHEncoder

RADIUS = 0.6
AABB = torch.tensor([-1.0, -1, -1, 1, 1, 1])
BACKGROUND = 1.0


def rays_from(origins):
    """A ray from each origin towards the ball or a little past it."""
    targets = F.normalize(torch.randn_like(origins), dim=1) * RADIUS * 1.3 * torch.rand_like(origins[:, :1])
    return origins, F.normalize(targets - origins, dim=1)


def training_rays(n, device):
    """The same on all devices."""
    return [rays.to(device) for rays in rays_from(F.normalize(torch.randn(n, 3), dim=1) * 2.5)]


def truth(rays_o, rays_d):
    """Colours [N, 3] of an opaque ball whose surface has a colour for each direction, on a white background."""
    b = (rays_o * rays_d).sum(1)
    discriminant = b * b - (rays_o * rays_o).sum(1) + RADIUS**2
    t = -b - discriminant.clamp(min=0).sqrt()
    surface = (rays_o + t[:, None] * rays_d) / RADIUS
    return torch.where(discriminant[:, None] > 0, 0.5 + 0.45 * torch.sin(2.5 * surface), BACKGROUND)


class Field(nn.Module):
    """A hash grid and two small networks, with the family's occupancy grid and its two ways to render."""

    def __init__(self, module, grid_size=32, max_steps=64):
        super().__init__()
        self.module, self.grid_size, self.max_steps = module, grid_size, max_steps
        self.encoder = GridEncoder(
            3, num_levels=6, level_dim=2, base_resolution=8, log2_hashmap_size=12, desired_resolution=48
        )
        self.encoder_dir = SHEncoder(3, 2)
        self.sigma_net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16))
        self.color_net = nn.Sequential(nn.Linear(15 + 4, 32), nn.ReLU(), nn.Linear(32, 3))
        self.register_buffer("density_grid", torch.zeros(1, grid_size**3))
        self.register_buffer("density_bitfield", torch.full((grid_size**3 // 8,), 255, dtype=torch.uint8))
        self.register_buffer("step_counter", torch.zeros(16, 2, dtype=torch.int32))
        self.local_step, self.mean_count = 0, 0

    def forward(self, xyzs, dirs):
        h = self.sigma_net(self.encoder(xyzs))
        colours = self.color_net(torch.cat((h[:, 1:], self.encoder_dir(dirs)), 1))
        return torch.exp(h[:, 0].clamp(max=8)), torch.sigmoid(colours)

    def channels(self, sigmas):
        """What the compositing of the family's member wants beside colours."""
        return () if self.module is raymarching_torch_ngp else (0.1 * sigmas.detach(), sigmas * 0, sigmas[:, None] * 0)

    def render_training_rays(self, rays_o, rays_d, perturb=True, force_all_rays=False):
        nears, fars = self.module.near_far_from_aabb(rays_o, rays_d, AABB.to(rays_o.device), 0.05)
        counter = self.step_counter[self.local_step % 16]
        counter.zero_()
        self.local_step += 1
        xyzs, dirs, deltas, rays = self.module.march_rays_train(
            *(rays_o, rays_d, 1, self.density_bitfield, 1, self.grid_size, nears, fars),
            *(counter, self.mean_count, perturb, 128, force_all_rays, 0, self.max_steps),
        )
        sigmas, rgbs = self(xyzs, dirs)
        if self.module is raymarching_torch_ngp:
            weights_sum, depth, image = self.module.composite_rays_train(sigmas, rgbs, deltas, rays)
            depth += weights_sum.detach() * nears  # torch-ngp's training measures from there
        else:
            weights_sum, *_, depth, image = self.module.composite_rays_train_triplane(
                sigmas, rgbs, *self.channels(sigmas), deltas, rays
            )
        return image + (1 - weights_sum)[:, None] * BACKGROUND, depth, weights_sum

    @torch.no_grad()
    def update_extra_state(self):
        """Densities at a random place in each cell, the maximum over neighbours, and the bits from the mean."""
        axis = torch.arange(self.grid_size, dtype=torch.int32, device=self.density_grid.device)
        coords = torch.cartesian_prod(axis, axis, axis)
        indices = self.module.morton3D(coords).long()
        half_cell = 1 / self.grid_size
        xyzs = (2 * coords / (self.grid_size - 1) - 1) * (1 - half_cell)
        xyzs += (torch.rand_like(xyzs) * 2 - 1) * half_cell
        densities = torch.zeros_like(self.density_grid)
        densities[0, indices] = self(xyzs, torch.zeros_like(xyzs))[0]
        densities = self.module.morton3D_dilation(densities)
        self.density_grid = torch.maximum(self.density_grid * 0.8, densities)
        threshold = min(self.density_grid.mean().item(), 5.0)
        self.module.packbits(self.density_grid, threshold, self.density_bitfield)
        steps = min(16, self.local_step)
        if steps:
            self.mean_count = int(self.step_counter[:steps, 0].sum().item() / steps)
        self.local_step = 0

    @torch.no_grad()
    def render(self, rays_o, rays_d, T_thresh=1e-4):
        n, device = len(rays_o), rays_o.device
        nears, fars = self.module.near_far_from_aabb(rays_o, rays_d, AABB.to(rays_o.device), 0.05)
        weights_sum, depth = torch.zeros(n, device=device), torch.zeros(n, device=device)
        image = torch.zeros(n, 3, device=device)
        more_sums = [torch.zeros(n, device=device) for _ in range(3)]
        rays_alive = torch.arange(n, dtype=torch.int32, device=device)
        rays_t = nears.clone()
        step, evaluated = 0, 0
        while step < self.max_steps and len(rays_alive):
            n_alive = len(rays_alive)
            n_step = max(min(n // n_alive, 8), 1)
            xyzs, dirs, deltas = self.module.march_rays(
                *(n_alive, n_step, rays_alive, rays_t, rays_o, rays_d, 1, self.density_bitfield, 1, self.grid_size),
                *(nears, fars, 128, False, 0, self.max_steps),
            )
            evaluated += len(xyzs)
            sigmas, rgbs = self(xyzs, dirs)
            state = n_alive, n_step, rays_alive, rays_t, sigmas, rgbs, deltas
            if self.module is raymarching_torch_ngp:
                self.module.composite_rays(*state, weights_sum, depth, image, T_thresh)
            else:
                self.module.composite_rays_triplane(
                    *state, *self.channels(sigmas), weights_sum, depth, image, *more_sums, T_thresh
                )
            rays_alive = rays_alive[rays_alive >= 0]
            step += n_step
        return image + (1 - weights_sum)[:, None] * BACKGROUND, depth, evaluated


def psnr(image, expected):
    return -10 * math.log10((image - expected).square().mean().item())


@pytest.mark.parametrize("module", [raymarching_torch_ngp, raymarching], ids=["torch-ngp", "er-nerf"])
def test_learns_a_ball(module, device):
    field = Field(module).to(device)
    optimiser = torch.optim.Adam(field.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    for step in range(160):
        if step % 16 == 0:
            field.update_extra_state()
        rays_o, rays_d = training_rays(512, device)
        image, _, weights_sum = field.render_training_rays(rays_o, rays_d)
        opacity = weights_sum.clamp(1e-5, 1 - 1e-5)
        entropy = -(opacity * opacity.log2() + (1 - opacity) * (1 - opacity).log2()).mean()
        loss = F.mse_loss(image, truth(rays_o, rays_d)) + 1e-4 * entropy
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    field.eval()
    torch.manual_seed(5)
    rays_o, rays_d = training_rays(2000, device)
    expected = truth(rays_o, rays_d)
    with torch.no_grad():
        trained, trained_depth, weights_sum = field.render_training_rays(rays_o, rays_d, False, force_all_rays=True)
    image, depth, n_evaluated = field.render(rays_o, rays_d)
    assert psnr(image, expected) > 24
    assert psnr(expected.mean(0).expand_as(expected), expected) < 14  # it is no easy picture
    torch.testing.assert_close(image, trained, rtol=0, atol=1e-3)
    torch.testing.assert_close(depth, trained_depth, rtol=0, atol=5e-3)
    # The field has learned where the ball is: empty space is skipped, and rays end near the surface.
    n_occupied = sum(bin(byte).count("1") for byte in field.density_bitfield.tolist())
    assert n_occupied < 0.3 * field.grid_size**3
    assert n_evaluated < 0.5 * len(rays_o) * field.max_steps
    hit = weights_sum > 0.99
    surface = rays_o + (depth / weights_sum)[:, None] * rays_d
    assert hit.sum() > 800
    assert (surface[hit].norm(dim=1) - RADIUS).abs().mean() < 0.2
