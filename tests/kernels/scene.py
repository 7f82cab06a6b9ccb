"""Rays and an occupancy grid for the tests of marching and rendering."""

import math

import torch
import torch.nn.functional as F

from taichi_kernels import cell_centers, intersect_aabb, pack_bits


def shell_bitfield(device, resolution=32, bound=1.0, inner=0.35, outer=0.6):
    """Cells between two spheres, per cascade; 8 to 15 % of the innermost."""
    n_cascades = 1 + max(0, math.ceil(math.log2(bound)))
    radii = torch.stack([cell_centers(resolution, c, bound, device).norm(dim=1) for c in range(n_cascades)])
    return pack_bits(((radii > inner * bound) & (radii < outer * bound)).float(), 0.5)


def random_rays(n, device, dtype=torch.float32, bound=1.0):
    """Rays from outside the box, most of them through it; with their distances to it. The same on all devices."""
    rays_o = F.normalize(torch.randn(n, 3, dtype=dtype), dim=-1) * 3 * bound
    target = (torch.rand(n, 3, dtype=dtype) - 0.5) * 2.4 * bound
    rays_d = F.normalize(target - rays_o, dim=-1)
    rays_o, rays_d = rays_o.to(device), rays_d.to(device)
    t_near, t_far = intersect_aabb(rays_o, rays_d, (-bound,) * 3 + (bound,) * 3)
    return rays_o, rays_d, t_near, t_far
