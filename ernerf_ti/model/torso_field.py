"""The torso as a 2-D layer that moves with the head: colour and alpha of a pixel [ER-NeRF, section 3.4].

The pose enters as the picture coordinates of three learned points that are fixed to the head (adaptive
pose encoding), the pixel is moved by a small learned offset, and a grid is looked up where it lands.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.batch import TorsoLayer
from ernerf_ti.model import activations
from ernerf_ti.model.identity_codes import IdentityCodes
from ernerf_ti.model.mlp import MLP, concatenate


@dataclass(frozen=True)
class TorsoFieldConfig:
    """Shape of the torso's field; the defaults are the paper's."""

    shrink: float = 0.8
    """Pixel coordinates are multiplied by this, so that moved ones stay on the grid."""
    anchors: tuple[tuple[float, float, float], ...] = ((0.01, 0.01, 0.1), (-0.1, -0.1, 0.1), (0.1, -0.1, 0.1))
    """Where the learned points start, scene units."""
    anchor_octaves: int = 3
    pixel_octaves: int = 8
    n_levels: int = 16
    base_resolution: int = 16
    finest_resolution: int = 2048
    log2_table_size: int = 16
    n_features: int = 2
    """Per level."""
    deformation_width: int = 32
    deformation_layers: int = 3
    colour_width: int = 32
    colour_layers: int = 3
    identity_size: int = 8
    """Numbers in the code of a training frame."""
    identity_smoothing: int = 1
    """Frames in the weighted mean that is a frame's code, odd. With 1, as published, a code learns from its own frame
    alone, which a short training meets once or twice: not enough to tell where the shoulders are."""


class TorsoField(nn.Module):
    """Colour and alpha of pixels.

    Args:
        config: shape of the field.
        n_identities: codes, one per training frame, at least 1.
    """

    def __init__(self, config: TorsoFieldConfig, n_identities: int):
        super().__init__()
        self.config = config
        self.anchors = nn.Parameter(torch.tensor([[*anchor, 1.0] for anchor in config.anchors]))
        """[3, 4] homogeneous scene positions. The trainer keeps the last column near 1."""
        grid = tk.GridConfig(
            2,
            config.n_levels,
            config.base_resolution,
            config.finest_resolution if config.n_levels > 1 else config.base_resolution,
            config.log2_table_size,
            config.n_features,
            kind="tiled",
        )
        self.encoding = tk.GridEncoding(grid)
        n_pixel = 2 * (1 + 2 * config.pixel_octaves)
        n_pose = 2 * len(config.anchors) * (1 + 2 * config.anchor_octaves)
        n_inputs = n_pixel + n_pose + config.identity_size
        self.deformation_net = MLP(n_inputs, config.deformation_width, 2, config.deformation_layers)
        self.colour_net = MLP(grid.n_outputs + n_inputs, config.colour_width, 4, config.colour_layers)
        self.identity_codes = IdentityCodes(n_identities, config.identity_size, config.identity_smoothing)

    def encode_pose(self, head_pose: Tensor) -> Tensor:
        """[4, 4] pose_world_from_camera -> [6] picture coordinates of the anchors, u and v of each.

        An anchor (x, y, z, w) in camera axes is at (x, y) / w / z: the depth is not divided by w, as in
        ER-NeRF.
        """
        camera = self.anchors @ torch.linalg.inv(head_pose).t()
        return (camera[:, :2] / camera[:, 3:] / camera[:, 2:3]).flatten()

    def forward(self, pixel_coords: Tensor, head_pose: Tensor, identity: int | Tensor | None = None) -> TorsoLayer:
        """Evaluate K pixels.

        Args:
            pixel_coords: [K, 2] in [-1, 1], see :func:`ernerf_ti.camera.pixel_coords`.
            head_pose: [4, 4] pose_world_from_camera in the scene.
            identity: the place of the frame among those that were trained on, or a code [identity_size]; None for the
                mean of all codes.

        Raises ValueError if the place is not of a code.
        """
        x = (pixel_coords * self.config.shrink).contiguous()
        pose_features = tk.frequency_encode(self.encode_pose(head_pose)[None].contiguous(), self.config.anchor_octaves)
        code = identity if isinstance(identity, Tensor) else self.identity_codes(identity)
        shared = torch.cat((pose_features[0], code))
        pixel_features = tk.frequency_encode(x, self.config.pixel_octaves)
        offset = self.deformation_net(pixel_features, shared).to(x.dtype)
        moved = (x + offset).clamp(-1, 1).contiguous()
        output = self.colour_net(concatenate([self.encoding(moved), pixel_features]), shared).to(x.dtype)
        output = activations.unit_interval(output)
        return TorsoLayer(output[:, 0], output[:, 1:], offset)
