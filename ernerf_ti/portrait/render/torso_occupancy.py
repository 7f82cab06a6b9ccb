"""Occupancy grid of the torso: the pixels that it may cover, updated while its field is trained."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernerf_ti.portrait.config import TorsoGridConfig

_NEIGHBORHOOD = 5  # cells along each side of the window of the maximum


class TorsoGrid(nn.Module):
    """Decaying maximum of the torso's alpha on a grid over the image.

    Args:
        config: resolution and update schedule.
    """

    alpha_grid: Tensor
    mean_alpha: Tensor

    def __init__(self, config: TorsoGridConfig):
        super().__init__()
        self.config = config
        self.register_buffer("alpha_grid", torch.zeros(config.resolution, config.resolution))
        """[R, R], indexed by the horizontal coordinate, then the vertical one, as in ER-NeRF's files."""
        self.register_buffer("mean_alpha", torch.zeros(()))

    @torch.no_grad()
    def update(self, alpha_fn: Callable[[Tensor], Tensor], generator: torch.Generator | None = None) -> None:
        """Evaluate the field at one random point per cell and update the decaying maximum.

        Args:
            alpha_fn: [K, 2] pixel coordinates, vertical first -> [K] alpha.
            generator: draws the random points.
        """
        n, device = self.config.resolution, self.alpha_grid.device
        centers = (torch.arange(n, device=device) * (2 / (n - 1)) - 1) * (1 - 1 / n)
        horizontal, vertical = torch.meshgrid(centers, centers, indexing="ij")
        coords = torch.stack((vertical.flatten(), horizontal.flatten()), 1)
        coords = coords + (torch.rand(n * n, 2, device=device, generator=generator) * 2 - 1) / n
        alpha = alpha_fn(coords).view(1, 1, n, n)
        largest = F.max_pool2d(alpha, _NEIGHBORHOOD, stride=1, padding=_NEIGHBORHOOD // 2)[0, 0]
        self.alpha_grid.copy_(torch.maximum(self.alpha_grid * self.config.decay, largest))
        self.mean_alpha.copy_(self.alpha_grid.mean())

    @torch.no_grad()
    def occupied(self, pixel_coords: Tensor) -> Tensor:
        """[N, 2] pixel coordinates in [-1, 1], vertical first -> [N] bool."""
        alpha = F.grid_sample(self.alpha_grid[None, None], pixel_coords[None, None], align_corners=True).flatten()
        return alpha > self.mean_alpha.clamp(max=self.config.alpha_threshold)
