"""The torso at fixed pixels, with what does not change from frame to frame multiplied out. Without gradients.

Of the inputs of both networks of :mod:`ernerf_ti.portrait.model.torso_field` the encoded pixel coordinates are those of
the camera, and pose and appearance are the same for all pixels. So the first layers are products that are stored once
per camera, plus a vector per frame; the color network adds the features of the grid. The results are those of the
field, up to rounding.
"""

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.portrait.model import activations
from ernerf_ti.portrait.model.mlp import in_precision
from ernerf_ti.portrait.model.torso_field import TorsoField
from ernerf_ti.process.parts import in_parts

_PIXELS_PER_PART = 2048  # their values stay in the cache of a CPU


class FoldedTorso:
    """Color and alpha of the same pixels in any number of frames.

    Args:
        field: whose weights are read here, and must not change afterwards.
        pixel_coords: [K, 2] in [-1, 1], see :func:`ernerf_ti.portrait.camera.pixel_coords`.
    """

    @torch.no_grad()
    def __init__(self, field: TorsoField, pixel_coords: Tensor):
        config, self._field = field.config, field
        x = (pixel_coords * config.shrink).contiguous()
        features = tk.frequency_encode(x, config.pixel_octaves).t()
        first, *later = field.deformation_net.weights
        of_pixels, self._of_shared = first.tensor_split((len(features),), 1)
        self._places, self._deformation = x.t().contiguous(), later
        self._of_deformation = of_pixels @ features  # [H, K]
        first, *later = field.color_net.weights
        n_grid = field.encoding.config.n_outputs
        of_grid, of_pixels, self._of_shared_in_color = first.tensor_split((n_grid, n_grid + len(features)), 1)
        self._of_color = in_precision(of_pixels @ features, field.precision)  # [H, K]
        self._of_grid, *self._color = (in_precision(weight, field.precision) for weight in (of_grid, *later))
        self._encode = field.grid_images() or (lambda positions: field.encoding(positions.contiguous()))

    @torch.no_grad()
    def __call__(self, head_pose: Tensor, appearance: Tensor, n_threads: int = 1) -> Tensor:
        """Evaluate the pixels.

        Args:
            head_pose: [4, 4] pose_world_from_camera in the scene.
            appearance: [appearance_size] embedding.
            n_threads: see :func:`ernerf_ti.process.parts.in_parts`.

        Returns:
            [4, K] alpha and straight color in [-0.001, 1.001].
        """
        shared = self._field.shared_inputs(head_pose, appearance)
        of_deformation = (self._of_shared @ shared)[:, None]
        of_color = (self._of_shared_in_color @ shared)[:, None].to(self._of_color.dtype)
        values = self._places.new_empty(4, self._places.shape[1])

        def evaluate(part: slice) -> None:
            h = self._of_deformation[:, part] + of_deformation
            for weight in self._deformation:
                h = weight @ h.relu_()
            moved = h.add_(self._places[:, part]).clamp_(-1, 1)
            h = self._of_color[:, part] + of_color
            h.addmm_(self._of_grid, self._encode(moved.t()).t().to(h.dtype))
            for weight in self._color:
                h = weight @ h.relu_()
            activations.unit_interval_(values[:, part].copy_(h))

        in_parts(lambda: evaluate, values.shape[1], _PIXELS_PER_PART, n_threads)
        return values
