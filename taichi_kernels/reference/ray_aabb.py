"""The slab test in plain torch: IEEE infinities take care of rays parallel to a face."""

from collections.abc import Sequence

import torch
from torch import Tensor


def intersect_aabb(
    rays_o: Tensor, rays_d: Tensor, aabb: Sequence[float] | Tensor, min_near: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Twin of :func:`taichi_kernels.intersect_aabb`: t_near, t_far [N].

    A ray that lies exactly in a face gets NaN.
    """
    low, high = torch.as_tensor(aabb, dtype=rays_o.dtype, device=rays_o.device).view(2, 3)
    t_low, t_high = (low - rays_o) / rays_d, (high - rays_o) / rays_d
    near = torch.minimum(t_low, t_high).amax(-1)
    far = torch.maximum(t_low, t_high).amin(-1)
    miss = (near > far) | (low > high).any()
    largest = torch.full_like(near, torch.finfo(near.dtype).max)
    return torch.where(miss, largest, near.clamp(min=min_near)), torch.where(miss, largest, far)
