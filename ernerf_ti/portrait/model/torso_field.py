"""Field of the torso: color and alpha of pixels in a 2-D layer that follows the head [ER-NeRF, section 3.4].

The pose enters as the image coordinates of three learned key points that are fixed to the head (adaptive pose
encoding). The pixel coordinates are deformed by a small learned offset, and a 2-D hash grid is interpolated there.
"""

import torch
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.portrait.config import TorsoFieldConfig
from ernerf_ti.portrait.frame_index import FrameIndex
from ernerf_ti.portrait.model import activations
from ernerf_ti.portrait.model.appearance_embedding import AppearanceEmbedding
from ernerf_ti.portrait.model.calls import Call, call_plainly
from ernerf_ti.portrait.model.mlp import MLP, in_precision
from ernerf_ti.portrait.records import TorsoLayer


class TorsoField(nn.Module):
    """Color and alpha of pixels.

    Args:
        config: shape of the field.
        n_embeddings: number of appearance embeddings, one per training frame, at least 1.
    """

    _frequencies: Tensor

    def __init__(self, config: TorsoFieldConfig, n_embeddings: int):
        super().__init__()
        self.config = config
        self.anchors = nn.Parameter(torch.tensor([[*anchor, 1.0] for anchor in config.anchors]))
        """[3, 4] homogeneous scene positions. Training keeps the last column near 1."""
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
        self._images = tk.ImagesOfTables(grid, ((0, 1),))
        n_pixel = 2 * (1 + 2 * config.pixel_octaves)
        n_pose = 2 * len(config.anchors) * (1 + 2 * config.anchor_octaves)
        n_inputs = n_pixel + n_pose + config.appearance_size
        self.deformation_net = MLP(n_inputs, config.deformation_width, 2, config.deformation_layers)
        self.color_net = MLP(grid.n_outputs + n_inputs, config.color_width, 4, config.color_layers)
        self.appearance = AppearanceEmbedding(n_embeddings, config.appearance_size, config.appearance_smoothing)
        self.register_buffer("_frequencies", 2.0 ** torch.arange(config.anchor_octaves)[:, None], persistent=False)
        self.precision = torch.float32
        """Of the color network; see :attr:`ernerf_ti.portrait.model.head_field.HeadField.precision`. The deformation
        network yields positions and is evaluated in their dtype."""

    def encode_pose(self, head_pose: Tensor) -> Tensor:
        """[4, 4] pose_world_from_camera -> [6] image coordinates u, v of the anchors.

        An anchor (x, y, z, w) in camera axes is at (x, y) / w / z: the depth is not divided by w, as in
        ER-NeRF.
        """
        # The inverse of the rotation by Cramer's rule: linalg.inv waits for the device, and the transpose would not do,
        # because captured rotations are orthonormal to 1e-3 only.
        columns = head_pose[:3, :3].t()
        cofactors = torch.linalg.cross(columns.roll(-1, 0), columns.roll(-2, 0))
        inverse = cofactors / (columns[0] * cofactors[0]).sum()
        points, w = self.anchors[:, :3], self.anchors[:, 3:]
        camera = (points - w * head_pose[:3, 3]) @ inverse.t()
        return (camera[:, :2] / w / camera[:, 2:]).flatten()

    def forward(
        self,
        pixel_coords: Tensor,
        head_pose: Tensor,
        appearance: FrameIndex | None = None,
        call: Call = call_plainly,
        for_image: bool = False,
    ) -> TorsoLayer:
        """Evaluate K pixels.

        Args:
            pixel_coords: [K, 2] in [-1, 1], see :func:`ernerf_ti.portrait.camera.pixel_coords`.
            head_pose: [4, 4] pose_world_from_camera in the scene.
            appearance: index of a training frame, or an embedding [appearance_size], float; None for the mean
                embedding.
            call: calls the parts between the encodings.
            for_image: without gradients, and equal up to rounding, as fast as it can be had.

        Raises ValueError if the index is out of range.
        """
        x = (pixel_coords * self.config.shrink).contiguous()
        is_embedding = isinstance(appearance, Tensor) and appearance.is_floating_point()
        embedding = appearance if is_embedding else self.appearance(appearance)
        pixel_features = tk.frequency_encode(x, self.config.pixel_octaves)
        moved, offset, shared = call(self._deform, x, pixel_features, head_pose, embedding)
        images = self.grid_images() if for_image else None
        features = self.encoding(moved) if images is None else images(moved)
        output = call(self._colors, features, pixel_features, shared, precision=self.precision)
        return TorsoLayer(output[:, 0], output[:, 1:], offset)

    def grid_images(self) -> tk.GridImages | None:
        """What interpolates the grid as it is now, without gradients, faster than its kernel; None if nothing does."""
        return self._images.of(self.encoding.table[None])

    def shared_inputs(self, head_pose: Tensor, embedding: Tensor) -> Tensor:
        """[S] the last inputs of both networks, which all pixels share: encoded pose and appearance embedding."""
        return torch.cat((self._pose_features(head_pose), embedding))

    def _deform(
        self, x: Tensor, pixel_features: Tensor, head_pose: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[K, 2] coordinates -> deformed ones and the offset [K, 2], and the inputs that all pixels share."""
        shared = self.shared_inputs(head_pose, embedding)
        offset = self.deformation_net(pixel_features, shared=shared).to(x.dtype)
        return (x + offset).clamp(-1, 1).contiguous(), offset, shared

    def _colors(self, features: Tensor, pixel_features: Tensor, shared: Tensor, precision: torch.dtype) -> Tensor:
        """[K, F] encoded deformed coordinates, [K, P] encoded coordinates -> [K, 4] alpha and color."""
        inputs = (in_precision(x, precision) for x in (features, pixel_features))
        return activations.unit_interval(self.color_net(*inputs, shared=shared).to(features.dtype))

    def _pose_features(self, head_pose: Tensor) -> Tensor:
        """[4, 4] -> [6 (1 + 2 K)] frequency encoding of the encoded pose. It is too short for a kernel's launch."""
        coordinates = self.encode_pose(head_pose)
        angles = coordinates * self._frequencies
        return torch.cat((coordinates, torch.stack((angles.sin(), angles.cos()), 1).flatten()))
