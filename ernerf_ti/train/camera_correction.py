"""Corrections of tracked camera poses, learned along with the head."""

import torch
from torch import Tensor, nn


class CameraCorrection(nn.Module):
    """A small learned rotation and translation of the camera of each training frame.

    The camera rotates about its center: d -> exp([w]x) d, o -> o + t, in scene axes.

    Args:
        n_frames: number of training frames.
    """

    def __init__(self, n_frames: int):
        super().__init__()
        self.rotations = nn.Parameter(torch.zeros(n_frames, 3))
        """[n, 3] axis times angle, radians."""
        self.translations = nn.Parameter(torch.zeros(n_frames, 3))
        """[n, 3] scene units."""

    def forward(self, rays_o: Tensor, rays_d: Tensor, frame: int) -> tuple[Tensor, Tensor]:
        """[N, 3] rays of a frame -> corrected rays, differentiable in the corrections and the rays."""
        x, y, z = self.rotations[frame].unbind()
        zero = torch.zeros_like(x)
        skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero)).view(3, 3)
        # The matrix exponential is smooth at zero, where every correction starts.
        rotation = torch.linalg.matrix_exp(skew)
        return (rays_o + self.translations[frame]).contiguous(), (rays_d @ rotation.t()).contiguous()
