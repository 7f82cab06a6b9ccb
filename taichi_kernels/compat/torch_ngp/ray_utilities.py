"""The functions of `raymarching` that all of the torch-ngp family share: boxes, spheres, Morton codes, bitfields."""

import math

import torch
from torch import Tensor

from taichi_kernels import morton, occupancy_grid
from taichi_kernels.checks import expect
from taichi_kernels.compat.torch_ngp.arguments import Arguments
from taichi_kernels.ray_aabb import intersect_aabb


@torch.no_grad()
def near_far_from_aabb(rays_o: Tensor, rays_d: Tensor, aabb: Tensor, min_near: float = 0.2) -> tuple[Tensor, Tensor]:
    """See :func:`taichi_kernels.intersect_aabb`.

    Args:
        rays_o, rays_d: [..., 3] origins and unit directions, world units.
        aabb: [6] xmin, ymin, zmin, xmax, ymax, zmax. All rays miss a box with min > max.
        min_near: lower limit of the entry distance.

    Returns:
        nears, fars: [N], the largest number of the dtype for a ray that misses the box. No gradients.

    Raises ValueError if an argument is not as above.
    """
    arguments = Arguments()
    rays_o, rays_d = arguments.floats("rays_o", rays_o, ("N", 3)), arguments.floats("rays_d", rays_d, ("N", 3))
    box = arguments.floats("aabb", aabb, (6,)) if isinstance(aabb, Tensor) else aabb
    return intersect_aabb(rays_o, rays_d, box, min_near)


@torch.no_grad()
def sph_from_ray(rays_o: Tensor, rays_d: Tensor, radius: float) -> Tensor:
    """Where rays from inside a sphere around the origin leave it.

    Args:
        rays_o, rays_d: [..., 3] origins and directions, world units.
        radius: of the sphere.

    Returns:
        [N, 2] in [-1, 1]: polar angle from the y axis, 0 to pi, and azimuth in the xz plane from the x axis,
        -pi to pi. NaN for a ray that does not meet the sphere. No gradients.

    Raises ValueError if an argument is not as above.
    """
    rays_o, rays_d = _rays(rays_o, rays_d)
    # |o + t d|^2 = radius^2, the larger solution.
    a, b = (rays_d * rays_d).sum(1), (rays_o * rays_d).sum(1)
    c = (rays_o * rays_o).sum(1) - radius**2
    t = ((b * b - a * c).sqrt() - b) / a
    x, y, z = (rays_o + t[:, None] * rays_d).unbind(1)
    polar, azimuth = torch.atan2(torch.hypot(x, z), y), torch.atan2(z, x)
    return torch.stack((2 * polar / math.pi - 1, azimuth / math.pi), 1)


def morton3D(coords: Tensor) -> Tensor:
    """Morton codes [N] int32 of cells [N, 3], any integer dtype; see :func:`taichi_kernels.morton_encode`."""
    return morton.morton_encode(Arguments().integers("coords", coords, ("N", 3)))


def morton3D_invert(indices: Tensor) -> Tensor:
    """Cells [N, 3] int32 of Morton codes [N], any integer dtype; see :func:`taichi_kernels.morton_decode`."""
    return morton.morton_decode(Arguments().integers("indices", indices, ("N",)))


@torch.no_grad()
def packbits(grid: Tensor, thresh: float, bitfield: Tensor | None = None) -> Tensor:
    """See :func:`taichi_kernels.pack_bits`.

    Args:
        grid: [C, H^3] densities in Morton order.
        thresh: a cell is occupied if its density is above this.
        bitfield: [C H^3 / 8] uint8, overwritten if given.

    Returns:
        [C H^3 / 8] uint8: `bitfield`, or a new tensor. Raises ValueError if an argument is not as above.
    """
    packed = occupancy_grid.pack_bits(Arguments().floats("grid", grid, ("C", "H^3")), float(thresh))
    if bitfield is None:
        return packed
    Arguments().tensor("bitfield", bitfield, (len(packed),), torch.uint8)
    return bitfield.copy_(packed)


@torch.no_grad()
def morton3D_dilation(grid: Tensor) -> Tensor:
    """Maximum over each cell of [C, H^3] and its six neighbours; see :func:`taichi_kernels.dilate_density`."""
    return occupancy_grid.dilate_density(Arguments().floats("grid", grid, ("C", "H^3")))


def check_grid(density_bitfield: Tensor, bound: float, C: int, H: int) -> None:
    """Raise ValueError unless the bitfield has C cascades of H^3 cells, as many as `bound` needs."""
    cascades = 1 + max(0, math.ceil(math.log2(bound))) if bound > 0 else 0
    expect(
        cascades == C, "C", f"{cascades} cascades for bound = {bound}", C, "use C = 1 + ceil(log2(bound)), at least 1"
    )
    Arguments().tensor("density_bitfield", density_bitfield, (C * H**3 // 8,), torch.uint8)


def _rays(rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor]:
    arguments = Arguments()
    return arguments.floats("rays_o", rays_o, ("N", 3)), arguments.floats("rays_d", rays_d, ("N", 3))
