"""Radiance-field kernels in Taichi, on torch tensors, with gradients.

Importing this package starts nothing; the first call starts Taichi on the device of its tensors.
"""

from taichi_kernels.baked_grid import BakedSamples, composite_baked, march_baked_grid
from taichi_kernels.compositing import CompositedRays, accumulate_, composite
from taichi_kernels.frequency_encoding import frequency_encode
from taichi_kernels.grid_config import GridConfig
from taichi_kernels.grid_encoding import GridEncoding, grid_encode
from taichi_kernels.grid_images import GridImages, ImagesOfTables
from taichi_kernels.inference import render_rays
from taichi_kernels.lattice import empty_blocks
from taichi_kernels.layers import show_layers
from taichi_kernels.morton import morton_decode, morton_encode
from taichi_kernels.occupancy_grid import cell_centers, dilate_density, pack_bits
from taichi_kernels.plane_tiles import PlaneTiles, encode_tiles
from taichi_kernels.ray_aabb import intersect_aabb
from taichi_kernels.ray_marching import RaySamples, march_rays
from taichi_kernels.ray_passes import PassSamples, RayMarch, RaySums, blend_samples_
from taichi_kernels.spherical_harmonics import spherical_harmonics
from taichi_kernels.triplane_encoding import PLANES, TriplaneEncoding, triplane_encode

__version__ = "0.1.0"
"""Version of the distribution ernerf-ti; the same as `ernerf_ti.__version__`."""
__all__ = [
    "PLANES",
    "BakedSamples",
    "CompositedRays",
    "GridConfig",
    "GridEncoding",
    "GridImages",
    "ImagesOfTables",
    "PassSamples",
    "PlaneTiles",
    "RayMarch",
    "RaySamples",
    "RaySums",
    "TriplaneEncoding",
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
