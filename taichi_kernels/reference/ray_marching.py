"""Ray marching in plain torch: all rays advance together, one lattice point at a time."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels.reference.morton import morton_encode
from taichi_kernels.reference.occupancy_grid import unpack_bits


class RaySamples(NamedTuple):
    """Twin of :class:`taichi_kernels.RaySamples`."""

    positions: Tensor
    directions: Tensor
    ts: Tensor
    deltas: Tensor
    packed_info: Tensor
    n_found: Tensor


def march_rays(
    rays_o: Tensor,
    rays_d: Tensor,
    t_near: Tensor,
    t_far: Tensor,
    bitfield: Tensor,
    bound: float = 1.0,
    max_steps: int = 1024,
    max_samples: int | None = None,
    dt_gamma: float = 0.0,
    noise: Tensor | None = None,
    capacity: int | None = None,
) -> RaySamples:
    """Twin of :func:`taichi_kernels.march_rays`."""
    occupied = unpack_bits(bitfield)
    n_cascades = max(1, 1 + math.ceil(math.log2(bound)))
    resolution = round((len(occupied) / n_cascades) ** (1 / 3))
    max_samples = max_samples or max_steps
    dt_max = 2 * math.sqrt(3) * 2 ** (n_cascades - 1) / resolution
    dt_min = min(dt_max, 2 * math.sqrt(3) / max_steps)

    def step(t: Tensor) -> Tensor:
        return (t * dt_gamma).clamp(dt_min, dt_max)

    t_far = torch.where(rays_d.norm(dim=-1) >= 1e-3, t_far, -torch.inf)
    t = t_near + step(t_near) * (0 if noise is None else noise)
    t_empty = t.clone()
    count = torch.zeros_like(t, dtype=torch.long)
    ray_ids = torch.arange(len(t), device=t.device)
    found = []
    while True:
        active = (t < t_far) & (count < max_samples)
        if not active.any():
            break
        i = ray_ids[active & (t >= t_empty)]
        dt = step(t)
        x = (rays_o[i] + t[i, None] * rays_d[i]).clamp(-bound, bound)
        exponents = torch.maximum(torch.frexp(x.abs().amax(-1))[1], torch.frexp(dt[i] * resolution / 2)[1])
        cascade = exponents.clamp(0, n_cascades - 1).long()
        half_side = (2.0**cascade).clamp(max=bound).to(t.dtype)[:, None]
        cell = (0.5 * (x / half_side + 1) * resolution).clamp(0, resolution - 1).long()
        is_hit = occupied[cascade * resolution**3 + morton_encode(cell)]
        face = cell + (rays_d[i] > 0)
        to_face = ((face * 2 / resolution - 1) * half_side - x) / rays_d[i]
        to_face = torch.where(rays_d[i] == 0, torch.inf, to_face).amin(-1).clamp(min=0)
        t_empty[i] = torch.where(is_hit, t_empty[i], t[i] + to_face)
        hit = i[is_hit]
        found.append((hit, t[hit], dt[hit]))
        count[hit] += 1
        t = torch.where(active, t + dt, t)
    ray, ts, deltas = (torch.cat(parts) for parts in zip(*found, strict=True)) if found else (ray_ids[:0], t[:0], t[:0])
    order = torch.argsort(ray, stable=True)
    ray, ts, deltas = ray[order], ts[order], deltas[order]
    positions = (rays_o[ray] + ts[:, None] * rays_d[ray]).clamp(-bound, bound)
    ends, n_found = count.cumsum(0), count.sum()
    begins = ends - count
    samples = [positions, rays_d[ray], ts[:, None], deltas[:, None]]
    if capacity is not None:
        begins, count = begins.clamp(max=capacity), torch.where(ends <= capacity, count, 0)
        n_kept = int(count.sum())
        samples = [F.pad(x[:n_kept], (0, 0, 0, capacity - n_kept)) for x in samples]
    positions, directions, ts, deltas = samples
    packed_info = torch.stack((begins, count), -1).int()
    return RaySamples(positions, directions, ts[:, 0], deltas[:, 0], packed_info, n_found)
