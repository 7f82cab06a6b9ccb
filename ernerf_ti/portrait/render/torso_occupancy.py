"""Which parts of the picture the torso ever covers, kept up with a field that is being trained."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernerf_ti.portrait.config import TorsoGridConfig

_NEIGHBOURHOOD = 5  # cells on a side whose largest alpha a cell takes


class TorsoGrid(nn.Module):
    """A running maximum of the torso's alpha over the picture.

    Args:
        config: shape and schedule.
    """

    def __init__(self, config: TorsoGridConfig):
        super().__init__()
        self.config = config
        self.register_buffer("alpha_grid", torch.zeros(config.resolution, config.resolution))
        """[R, R], indexed by the horizontal coordinate, then the vertical one, as in ER-NeRF's files."""
        self.register_buffer("mean_alpha", torch.zeros(()))

    @torch.no_grad()
    def update(self, alpha_fn: Callable[[Tensor], Tensor], generator: torch.Generator | None = None) -> None:
        """Look at the field once more, in one random place of each cell.

        Args:
            alpha_fn: [K, 2] pixel coordinates, vertical first -> [K] alpha.
            generator: of the random places.
        """
        n, device = self.config.resolution, self.alpha_grid.device
        centers = (torch.arange(n, device=device) * (2 / (n - 1)) - 1) * (1 - 1 / n)
        horizontal, vertical = torch.meshgrid(centers, centers, indexing="ij")
        coords = torch.stack((vertical.flatten(), horizontal.flatten()), 1)
        coords = coords + (torch.rand(n * n, 2, device=device, generator=generator) * 2 - 1) / n
        alpha = alpha_fn(coords).view(1, 1, n, n)
        largest = F.max_pool2d(alpha, _NEIGHBOURHOOD, stride=1, padding=_NEIGHBOURHOOD // 2)[0, 0]
        self.alpha_grid.copy_(torch.maximum(self.alpha_grid * self.config.decay, largest))
        self.mean_alpha.copy_(self.alpha_grid.mean())

    @torch.no_grad()
    def occupied(self, pixel_coords: Tensor) -> Tensor:
        """[N, 2] pixel coordinates in [-1, 1], vertical first -> [N] bool."""
        alpha = F.grid_sample(self.alpha_grid[None, None], pixel_coords[None, None], align_corners=True).flatten()
        return alpha > self.mean_alpha.clamp(max=self.config.alpha_threshold)
