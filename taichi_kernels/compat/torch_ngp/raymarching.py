"""`raymarching` of ER-NeRF and RAD-NeRF: marching with distances in `deltas`, compositing with ambient terms.

The variants of compositing differ in their channels beside color and depth:

    plain                 nothing (inference only)
    ambient               one plain sum; in training this is the variant without a name
    sigma                 one sum with the weights
    uncertainty           one plain sum, one with the weights
    triplane              two plain sums (audio, eye), one with the weights (uncertainty)

Training functions take the samples of `march_rays_train` and give gradients to densities, colors and channels,
none through depth. Inference functions add the samples of `march_rays` to sums, in place, and return ().
Arguments and errors are described at :func:`~taichi_kernels.compat.torch_ngp.blending.blend_training_rays` and
:func:`~taichi_kernels.compat.torch_ngp.blending.blend_alive_rays_`.
"""

from torch import Tensor

from taichi_kernels.compat.torch_ngp.blending import blend_alive_rays_, blend_training_rays, plain_blending_function
from taichi_kernels.compat.torch_ngp.depth_column import EndDistances
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
    "composite_rays_ambient",
    "composite_rays_ambient_sigma",
    "composite_rays_train",
    "composite_rays_train_sigma",
    "composite_rays_train_triplane",
    "composite_rays_train_uncertainty",
    "composite_rays_triplane",
    "composite_rays_uncertainty",
    "march_rays",
    "march_rays_train",
    "morton3D",
    "morton3D_dilation",
    "morton3D_invert",
    "near_far_from_aabb",
    "packbits",
    "sph_from_ray",
]

march_rays_train, march_rays = marching_functions(EndDistances)
composite_rays = plain_blending_function(EndDistances)


def composite_rays_train(
    sigmas: Tensor, rgbs: Tensor, ambient: Tensor, deltas: Tensor, rays: Tensor, T_thresh: float = 1e-4
) -> tuple[Tensor, ...]:
    """Samples [M] -> weights_sum, ambient_sum, depth [N], image [N, 3]."""
    blended = blend_training_rays(EndDistances, sigmas, rgbs, deltas, rays, T_thresh, summed={"ambient": ambient})
    return blended.weights_sum, *blended.summed, blended.depth, blended.image


def composite_rays_train_sigma(
    sigmas: Tensor, rgbs: Tensor, ambient: Tensor, deltas: Tensor, rays: Tensor, T_thresh: float = 1e-4
) -> tuple[Tensor, ...]:
    """Samples [M] -> weights_sum, ambient_sum, depth [N], image [N, 3]; the ambient sum has the weights."""
    blended = blend_training_rays(EndDistances, sigmas, rgbs, deltas, rays, T_thresh, weighted={"ambient": ambient})
    return blended.weights_sum, *blended.weighted, blended.depth, blended.image


def composite_rays_train_uncertainty(
    sigmas: Tensor,
    rgbs: Tensor,
    ambient: Tensor,
    uncertainty: Tensor,
    deltas: Tensor,
    rays: Tensor,
    T_thresh: float = 1e-4,
) -> tuple[Tensor, ...]:
    """Samples [M] -> weights_sum, ambient_sum, uncertainty_sum, depth [N], image [N, 3]."""
    blended = blend_training_rays(
        *(EndDistances, sigmas, rgbs, deltas, rays, T_thresh),
        weighted={"uncertainty": uncertainty},
        summed={"ambient": ambient},
    )
    return blended.weights_sum, *blended.summed, *blended.weighted, blended.depth, blended.image


def composite_rays_train_triplane(
    sigmas: Tensor,
    rgbs: Tensor,
    amb_aud: Tensor,
    amb_eye: Tensor,
    uncertainty: Tensor,
    deltas: Tensor,
    rays: Tensor,
    T_thresh: float = 1e-4,
) -> tuple[Tensor, ...]:
    """Samples [M] -> weights_sum, amb_aud_sum, amb_eye_sum, uncertainty_sum, depth [N], image [N, 3]."""
    blended = blend_training_rays(
        *(EndDistances, sigmas, rgbs, deltas, rays, T_thresh),
        weighted={"uncertainty": uncertainty},
        summed={"amb_aud": amb_aud, "amb_eye": amb_eye},
    )
    return blended.weights_sum, *blended.summed, *blended.weighted, blended.depth, blended.image


def composite_rays_ambient(
    n_alive: int,
    n_step: int,
    rays_alive: Tensor,
    rays_t: Tensor,
    sigmas: Tensor,
    rgbs: Tensor,
    deltas: Tensor,
    ambients: Tensor,
    weights_sum: Tensor,
    depth: Tensor,
    image: Tensor,
    ambient_sum: Tensor,
    T_thresh: float = 1e-2,
) -> tuple[()]:
    """Adds to weights_sum, depth [N], image [N, 3], ambient_sum [N]."""
    return blend_alive_rays_(
        *(EndDistances, n_alive, n_step, rays_alive, rays_t, sigmas, rgbs, deltas),
        *(weights_sum, depth, image, T_thresh),
        summed=({"ambients": ambients}, {"ambient_sum": ambient_sum}),
    )


def composite_rays_ambient_sigma(
    n_alive: int,
    n_step: int,
    rays_alive: Tensor,
    rays_t: Tensor,
    sigmas: Tensor,
    rgbs: Tensor,
    deltas: Tensor,
    ambients: Tensor,
    weights_sum: Tensor,
    depth: Tensor,
    image: Tensor,
    ambient_sum: Tensor,
    T_thresh: float = 1e-2,
) -> tuple[()]:
    """Adds to weights_sum, depth [N], image [N, 3], ambient_sum [N]; the last with the weights."""
    return blend_alive_rays_(
        *(EndDistances, n_alive, n_step, rays_alive, rays_t, sigmas, rgbs, deltas),
        *(weights_sum, depth, image, T_thresh),
        weighted=({"ambients": ambients}, {"ambient_sum": ambient_sum}),
    )


def composite_rays_uncertainty(
    n_alive: int,
    n_step: int,
    rays_alive: Tensor,
    rays_t: Tensor,
    sigmas: Tensor,
    rgbs: Tensor,
    deltas: Tensor,
    ambients: Tensor,
    uncertainties: Tensor,
    weights_sum: Tensor,
    depth: Tensor,
    image: Tensor,
    ambient_sum: Tensor,
    uncertainty_sum: Tensor,
    T_thresh: float = 1e-2,
) -> tuple[()]:
    """Adds to weights_sum, depth [N], image [N, 3], ambient_sum, uncertainty_sum [N]."""
    return blend_alive_rays_(
        *(EndDistances, n_alive, n_step, rays_alive, rays_t, sigmas, rgbs, deltas),
        *(weights_sum, depth, image, T_thresh),
        weighted=({"uncertainties": _first_column(uncertainties)}, {"uncertainty_sum": uncertainty_sum}),
        summed=({"ambients": ambients}, {"ambient_sum": ambient_sum}),
    )


def composite_rays_triplane(
    n_alive: int,
    n_step: int,
    rays_alive: Tensor,
    rays_t: Tensor,
    sigmas: Tensor,
    rgbs: Tensor,
    deltas: Tensor,
    ambs_aud: Tensor,
    ambs_eye: Tensor,
    uncertainties: Tensor,
    weights_sum: Tensor,
    depth: Tensor,
    image: Tensor,
    amb_aud_sum: Tensor,
    amb_eye_sum: Tensor,
    uncertainty_sum: Tensor,
    T_thresh: float = 1e-2,
) -> tuple[()]:
    """Adds to weights_sum, depth [N], image [N, 3], amb_aud_sum, amb_eye_sum, uncertainty_sum [N]."""
    return blend_alive_rays_(
        *(EndDistances, n_alive, n_step, rays_alive, rays_t, sigmas, rgbs, deltas),
        *(weights_sum, depth, image, T_thresh),
        weighted=({"uncertainties": _first_column(uncertainties)}, {"uncertainty_sum": uncertainty_sum}),
        summed=(
            {"ambs_aud": ambs_aud, "ambs_eye": ambs_eye},
            {"amb_aud_sum": amb_aud_sum, "amb_eye_sum": amb_eye_sum},
        ),
    )


def _first_column(uncertainties: Tensor) -> Tensor:
    # In test mode ER-NeRF passes a constant with a column for each position feature in place of one number.
    return uncertainties[:, 0] if isinstance(uncertainties, Tensor) and uncertainties.dim() == 2 else uncertainties
