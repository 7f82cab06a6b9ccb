"""Tiles of planes in plain torch."""

import torch
from torch import Tensor


def encode_tiles(positions: Tensor, tiles: tuple[Tensor, Tensor], bound: float) -> Tensor:
    """Twin of :func:`taichi_kernels.encode_tiles`."""
    numbers, values = tiles
    resolution, n = numbers.shape[1], values.shape[1] - 1
    places = ((positions + bound) * (resolution / (2 * bound))).clamp(min=0)
    cell = places.long().clamp(max=resolution - 1)
    inner = (places - cell) * n
    corner = inner.long().clamp(max=n - 1)
    share = (inner - corner).clamp(max=1)
    features = []
    for plane, (u, v) in enumerate(((0, 1), (1, 2), (0, 2))):
        tile = values[numbers[plane, cell[:, u], cell[:, v]].long()]
        points = torch.arange(len(positions), device=positions.device)
        corners = [[tile[points, corner[:, u] + i, corner[:, v] + j] for j in range(2)] for i in range(2)]
        rows = [torch.lerp(near, far, share[:, v, None]) for near, far in corners]
        features.append(torch.lerp(rows[0], rows[1], share[:, u, None]))
    return torch.cat(features, 1)
