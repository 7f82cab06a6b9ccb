"""`raymarching` of torch-ngp: marching with steps in `deltas`, compositing without ambient terms.

Depth is measured from where the marching began in training, and from the ray's origin in inference. Arguments and
errors of the compositing functions are described at
:func:`~taichi_kernels.compat.torch_ngp.blending.blend_training_rays` and
:func:`~taichi_kernels.compat.torch_ngp.blending.blend_alive_rays_`.
"""

from torch import Tensor

from taichi_kernels.compat.torch_ngp.blending import blend_training_rays, plain_blending_function
from taichi_kernels.compat.torch_ngp.depth_column import EndSteps
from taichi_kernels.compat.torch_ngp.marching import marching_functions
from taichi_kernels.compat.torch_ngp.ray_utilities import (
    morton3D,
    morton3D_dilation,
    morton3D_invert,
    near_far_from_aabb,
    packbits,
    sph_from_ray,
)

__all__ = [
    "composite_rays",
    "composite_rays_train",
    "march_rays",
    "march_rays_train",
    "morton3D",
    "morton3D_dilation",
    "morton3D_invert",
    "near_far_from_aabb",
    "packbits",
    "sph_from_ray",
]

march_rays_train, march_rays = marching_functions(EndSteps)
composite_rays = plain_blending_function(EndSteps)


def composite_rays_train(
    sigmas: Tensor, rgbs: Tensor, deltas: Tensor, rays: Tensor, T_thresh: float = 1e-4
) -> tuple[Tensor, ...]:
    """Samples [M] -> weights_sum, depth [N], image [N, 3]."""
    blended = blend_training_rays(EndSteps, sigmas, rgbs, deltas, rays, T_thresh)
    return blended.weights_sum, blended.depth, blended.image
