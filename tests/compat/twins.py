"""The kernels of the torch-ngp family in plain torch: ray by ray, sample by sample, gradients by autograd."""

import itertools
import math

import torch
from torch import Tensor

from taichi_kernels.reference import ray_marching

PRIMES = (1, 2654435761, 805459861, 3674653429)


def march_rays_train(ends_as_steps, rays_o, rays_d, bitfield, nears, fars, noise=None, **options):
    """Samples without padding: xyzs, dirs, deltas, and the number of samples of each ray."""
    xyzs, dirs, ts, dts, packed_info, _ = ray_marching.march_rays(
        *(rays_o, rays_d, nears, fars, bitfield), noise=noise, **options
    )
    column = ts + dts
    if ends_as_steps:
        before = column.clone()
        for ray, (begin, count) in enumerate(packed_info.tolist()):
            if count:
                before[begin + 1 : begin + count] = column[begin : begin + count - 1]
                first_step = _first_step(nears[ray], bitfield, **options)
                before[begin] = nears[ray] + (0 if noise is None else noise[ray] * first_step)
        column = column - before
    return xyzs, dirs, torch.stack((dts, column), 1), packed_info[:, 1]


def _first_step(near, bitfield, bound=1.0, max_steps=1024, max_samples=None, dt_gamma=0.0):
    n_cascades = max(1, 1 + math.ceil(math.log2(bound)))
    resolution = round((8 * len(bitfield) / n_cascades) ** (1 / 3))
    longest = 2 * math.sqrt(3) * 2 ** (n_cascades - 1) / resolution
    return (near * dt_gamma).clamp(min(longest, 2 * math.sqrt(3) / max_steps), longest)


def composite_rays_train(ends_as_steps, sigmas, rgbs, deltas, rays, T_thresh, weighted=(), summed=()):
    """weights_sum, depth, image, weighted sums, plain sums; of the ray ids in `rays`."""
    n = len(rays)
    rows = [None] * n
    for ray, begin, count in rays.tolist():
        ws, depth, image = sigmas.new_zeros(()), sigmas.new_zeros(()), rgbs.new_zeros(3)
        w_sums, s_sums = [sigmas.new_zeros(()) for _ in weighted], [sigmas.new_zeros(()) for _ in summed]
        T, t = sigmas.new_ones(()), 0.0
        for k in range(begin, begin + count) if begin + count <= len(sigmas) else ():
            alpha = 1 - torch.exp(-sigmas[k] * deltas[k, 0])
            w = alpha * T
            t = t + deltas[k, 1] if ends_as_steps else deltas[k, 1]
            ws, depth, image = ws + w, depth + w.detach() * t, image + w * rgbs[k]
            w_sums = [x + w * values[k] for x, values in zip(w_sums, weighted, strict=True)]
            s_sums = [x + values[k] for x, values in zip(s_sums, summed, strict=True)]
            T = T * (1 - alpha)
            if T < T_thresh:
                break
        rows[ray] = (ws, depth, image, *w_sums, *s_sums)
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def composite_rays_(ends_as_steps, n_step, alive, rays_t, sigmas, rgbs, deltas, totals, T_thresh, weighted, summed):
    """One round of inference, in place. `totals`: weights_sum, depth, image, weighted sums, plain sums."""
    for slot, ray in enumerate(alive.tolist()):
        t, ended = rays_t[ray].clone(), False
        for k in range(slot * n_step, (slot + 1) * n_step):
            if deltas[k, 0] == 0:
                ended = True
                break
            T = 1 - totals[0][ray]
            w = (1 - torch.exp(-sigmas[k] * deltas[k, 0])) * T
            t = t + deltas[k, 1] if ends_as_steps else deltas[k, 1].clone()
            values = [torch.ones_like(w), t, rgbs[k], *(x[k] for x in weighted)]
            for total, value in zip(totals, values, strict=False):
                total[ray] += w * value
            for total, value in zip(totals[len(values) :], summed, strict=True):
                total[ray] += value[k]
            if T < T_thresh:
                ended = True
                break
        if ended:
            alive[slot] = -1
        else:
            rays_t[ray] = t


def grid_encode(
    inputs: Tensor,
    embeddings: Tensor,
    offsets,
    per_level_scale,
    base_resolution,
    gridtype,
    align_corners,
    interpolation,
) -> Tensor:
    """inputs [B, D] in [0, 1] -> [B, L C]."""
    inside = ((inputs >= 0) & (inputs <= 1)).all(1, keepdim=True)
    u = torch.where(inside, inputs, torch.zeros_like(inputs))
    outputs = []
    for scale, resolution, first, n_slots in _levels(offsets, per_level_scale, base_resolution):
        p = u * scale + (0.0 if align_corners else 0.5)
        lower = p.detach().floor()
        fractions = p - lower
        if interpolation == 1:
            fractions = fractions**2 * (3 - 2 * fractions)
        features = 0
        for corner in range(2 ** inputs.shape[1]):
            bits = torch.tensor([corner >> d & 1 for d in range(inputs.shape[1])], device=inputs.device)
            slots = _slots(lower.long() + bits, resolution, n_slots, gridtype, align_corners)
            weights = torch.where(bits.bool(), fractions, 1 - fractions).prod(1, keepdim=True)
            features = features + weights * embeddings[first + slots]
        outputs.append(torch.where(inside, features, torch.zeros_like(features)))
    return torch.cat(outputs, 1)


def total_variation_gradient(
    points, embeddings, offsets, per_level_scale, base_resolution, gridtype, align_corners, weight
):
    """What torch-ngp adds to the gradient of the embeddings, point by point."""
    gradient = torch.zeros_like(embeddings)
    n_dims = points.shape[1]
    for scale, resolution, first, n_slots in _levels(offsets, per_level_scale, base_resolution):
        for point in points:
            if (point < 0).any() or (point > 1).any():
                continue
            cell = (point * scale + (0.0 if align_corners else 0.5)).floor().long()
            here = first + _slots(cell, resolution, n_slots, gridtype, align_corners)
            differences = []
            for axis in range(n_dims):
                for step in (1, -1):
                    neighbour = cell.clone()
                    neighbour[axis] += step
                    if 0 <= neighbour[axis] <= resolution:
                        slot = first + _slots(neighbour, resolution, n_slots, gridtype, align_corners)
                        differences.append(embeddings[here] - embeddings[slot])
            d = torch.stack(differences)
            gradient[here] += weight / (2 * n_dims) * d.sum(0) / (d.square().sum(0) + 1e-9).sqrt()
    return gradient


def _levels(offsets, per_level_scale, base_resolution):
    for level, (first, end) in enumerate(itertools.pairwise(offsets)):
        exponent = torch.tensor(float(level)) * torch.tensor(math.log2(per_level_scale))  # float32, as the kernels do
        scale = float(torch.exp2(exponent.double()).float() * base_resolution - 1)
        yield scale, math.ceil(scale) + 1, first, end - first


def _slots(cells, resolution, n_slots, gridtype, align_corners):
    row, stride, index = resolution if align_corners else resolution + 1, 1, torch.zeros_like(cells[..., 0])
    for d in range(cells.shape[-1]):
        if stride > n_slots:
            break
        index = (index + cells[..., d] * stride) % 2**32
        stride = stride * row % 2**32
    if gridtype == 0 and stride > n_slots:
        index = torch.zeros_like(index)
        for d in range(cells.shape[-1]):
            index = index ^ cells[..., d] * PRIMES[d] % 2**32
    return index % n_slots
