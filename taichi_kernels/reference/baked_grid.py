"""Marching and blending a baked grid in plain torch, ray by ray and sample by sample."""

import math
from typing import Any

import torch
from torch import Tensor

EMPTY, UNKNOWN, FIRST_ROW = 0, 2, 3


def march_baked_grid(
    pose: Tensor,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    cells: Tensor,
    log_densities: Tensor,
    colors: Tensor,
    color_weights: Tensor,
    color_offset: Tensor,
    bound: float,
    aabb: Tensor,
    blocks: Tensor,
    max_steps: int = 1024,
    dt_gamma: float = 0.0,
    min_near: float = 0.05,
    T_threshold: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Twin of :func:`taichi_kernels.march_baked_grid`: the fields of BakedSamples. It walks through the whole scene:
    the blocks are not used."""
    fx, fy, cx, cy = intrinsics
    resolution, n_steps = cells.shape[0], log_densities.shape[1] - 1
    dt_max = 2 * math.sqrt(3) / resolution
    dt_min = min(dt_max, 2 * math.sqrt(3) / max_steps)
    origin = pose[:3, 3]
    found: list[tuple[Any, ...]] = []
    info, before = [], []
    for i in range(size[0] * size[1]):
        x, y = (i % size[0] + 0.5 - cx) / fx, (i // size[0] + 0.5 - cy) / fy
        direction = pose.new_tensor([x, y, 1.0])
        direction = pose[:3, :3] @ (direction / direction.norm())
        low, high = aabb.view(2, 3)
        sides = torch.stack(((low - origin) / direction, (high - origin) / direction))
        near, far = float(sides.amin(0).amax()), float(sides.amax(0).amin())
        t, T_bound, n_samples, begin = max(near, min_near), 1.0, 0, len(found)
        runs = [_new_run(pose)]
        while near <= far and t < far and n_samples < max_steps and T_bound >= T_threshold:
            dt = min(dt_max, max(dt_min, t * dt_gamma))
            position = (origin + t * direction).clamp(-bound, bound)
            places = ((position / bound + 1) * (resolution / 2)).clamp(min=0)
            cell = places.long().clamp(max=resolution - 1)
            code = int(cells[tuple(cell)])
            n_samples += code > EMPTY
            alpha = 0.0
            if code >= FIRST_ROW:
                row = (code - FIRST_ROW) // 2
                inner = (places - cell) * n_steps
                value = _interpolate(log_densities[row], inner, n_steps)
                alpha = 1 - math.exp(-math.exp(float(value)) * dt)
                if (code - FIRST_ROW) % 2 == 0 and alpha * T_bound > 1 / 1024:
                    stored = _interpolate(colors[row].to(pose.dtype), inner, n_steps)
                    rgb = color_offset + (color_weights * stored).sum(0)
                    T = runs[-1][3].clone()
                    runs[-1][:3] += T * alpha * rgb
                    runs[-1][4] += T * alpha * (t + dt)
                    runs[-1][3] = T * (1 - alpha)
                    T_bound *= 1 - alpha
            if code == UNKNOWN or (code >= FIRST_ROW and (code - FIRST_ROW) % 2):
                found.append((position, direction, t, dt))
                runs.append(_new_run(pose))
                T_bound *= 1 - alpha
            t += dt
        info.append((begin, len(found) - begin))
        before.append(runs[0])
        found[begin:] = [(*sample, run) for sample, run in zip(found[begin:], runs[1:], strict=True)]
    columns = list(zip(*found, strict=True)) if found else [(), (), (), (), ()]
    positions, directions, after = (
        torch.stack(columns[k]) if found else pose.new_empty(0, n) for k, n in ((0, 3), (1, 3), (4, 5))
    )
    ts, deltas = (pose.new_tensor(columns[k]) for k in (2, 3))
    packed_info = torch.tensor(info, dtype=torch.int32, device=pose.device)
    return positions, directions, ts, deltas, packed_info, torch.stack(before), after


def composite_baked(
    values: Tensor,
    deltas: Tensor,
    packed_info: Tensor,
    before: Tensor,
    after: Tensor,
    ts: Tensor | None = None,
    T_threshold: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Twin of :func:`taichi_kernels.composite_baked`: color [N, 3], opacity [N], depth [N]."""
    deltas, before, after = (value.to(values.dtype) for value in (deltas, before, after))
    colors, opacities, depths = [], [], []
    for (begin, count), run in zip(packed_info.tolist(), before, strict=True):
        color, T, depth = run[:3], run[3], run[4:]
        for j in range(begin, begin + count):
            if T < T_threshold:
                break
            alpha = 1 - torch.exp(-values[0, j] * deltas[j])
            rest = T * (1 - alpha)
            color = color + T * alpha * values[1:, j] + rest * after[j, :3]
            if ts is not None:
                depth = depth + T * alpha * (ts[j] + deltas[j]) + rest * after[j, 4:]
            T = rest * after[j, 3]
        colors.append(color)
        opacities.append(1 - T)
        depths.append(depth)
    return torch.stack(colors), torch.stack(opacities), None if ts is None else torch.cat(depths)


def _new_run(like: Tensor) -> Tensor:
    return like.new_tensor([0.0, 0.0, 0.0, 1.0, 0.0])


def _interpolate(corners: Tensor, inner: Tensor, n_steps: int) -> Tensor:
    """[S, S, S, ...] corners -> [...] at a place in [0, S - 1]^3, trilinearly."""
    first = inner.long().clamp(max=n_steps - 1)
    for share, begin in zip(inner - first, first.tolist(), strict=True):
        corners = torch.lerp(corners[begin], corners[begin + 1], share)
    return corners
