"""The kernels in plain torch: slow, short, differentiable by autograd to any order.

Each op of :mod:`taichi_kernels` has a twin of the same name here, in a module of the same name. It takes the same
arguments and returns the same values up to rounding. Use the twins to check a kernel, to compare speed, or as a
readable definition of what an op computes. They run on every device, in float32 and float64, check no arguments, and
never start Taichi.
"""

from taichi_kernels.reference.baked_grid import composite_baked, march_baked_grid
from taichi_kernels.reference.compositing import accumulate_, composite
from taichi_kernels.reference.frequency_encoding import frequency_encode
from taichi_kernels.reference.grid_encoding import grid_encode
from taichi_kernels.reference.inference import render_rays
from taichi_kernels.reference.layers import show_layers
from taichi_kernels.reference.morton import morton_decode, morton_encode
from taichi_kernels.reference.occupancy_grid import cell_centers, dilate_density, pack_bits
from taichi_kernels.reference.plane_tiles import encode_tiles
from taichi_kernels.reference.ray_aabb import intersect_aabb
from taichi_kernels.reference.ray_marching import march_rays
from taichi_kernels.reference.ray_passes import RayMarch, blend_samples_, empty_blocks
from taichi_kernels.reference.spherical_harmonics import spherical_harmonics
from taichi_kernels.reference.triplane_encoding import triplane_encode

__all__ = [
    "RayMarch",
    "accumulate_",
    "blend_samples_",
    "cell_centers",
    "composite",
    "composite_baked",
    "dilate_density",
    "empty_blocks",
    "encode_tiles",
    "frequency_encode",
    "grid_encode",
    "intersect_aabb",
    "march_baked_grid",
    "march_rays",
    "morton_decode",
    "morton_encode",
    "pack_bits",
    "render_rays",
    "show_layers",
    "spherical_harmonics",
    "triplane_encode",
]
