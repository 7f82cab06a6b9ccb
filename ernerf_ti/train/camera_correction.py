"""Corrections of tracked camera poses, learned along with the head."""

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.frame_index import FrameIndex, row

_SMALL = 1e-2  # squared angle below which power series replace the quotients: they differ by 3e-14 there


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

    def forward(self, rays_o: Tensor, rays_d: Tensor, frame: FrameIndex) -> tuple[Tensor, Tensor]:
        """[N, 3] rays of a frame -> corrected rays, differentiable in the corrections and the rays."""
        rotation = _rotation_minus_identity(row(self.rotations, frame))
        return (rays_o + row(self.translations, frame)).contiguous(), (rays_d + rays_d @ rotation.t()).contiguous()


def _rotation_minus_identity(w: Tensor) -> Tensor:
    """[3] axis times angle -> [3, 3] exp([w]x) - 1, by Rodrigues' formula, smooth at zero, where corrections start.

    `torch.linalg.matrix_exp` would wait for the device, since it chooses its series by the norm.
    """
    x, y, z = w.unbind()
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero)).view(3, 3)
    square = w.square().sum()
    is_small = square < _SMALL
    large = square.masked_fill(is_small, 1.0)  # what is not chosen must have finite gradients, too
    angle = large.sqrt()
    a = torch.where(is_small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), angle.sin() / angle)
    b = torch.where(is_small, (1 - square / 12 * (1 - square / 30 * (1 - square / 56))) / 2, (1 - angle.cos()) / large)
    return a * skew + b * (skew @ skew)
