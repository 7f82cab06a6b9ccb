"""The head's surface as a mesh with colors."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.media.whole_files import replacing
from ernerf_ti.portrait.camera import SCENE_SCALE
from ernerf_ti.portrait.model.head_field import BoundHeadField
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.viewer.occupancy_boxes import occupied_cells

_POINTS_AT_ONCE = 2**16
_FROM_THE_FRONT = (0.0, -1.0, 0.0)
MESH_SUFFIXES = (".ply", ".obj", ".glb", ".stl")


@torch.no_grad()
def export_mesh(
    field: BoundHeadField, grid: OccupancyGrid, path: Path, resolution: int = 192, density: float = 10.0
) -> tuple[int, int]:
    """Write the surface of constant density by marching cubes: its largest connected component, without floaters.

    Args:
        field: the head field of one frame.
        grid: its occupancy grid; empty cells are skipped.
        path: a .ply, .obj or .glb with vertex colors as seen from the front, or an .stl without.
        resolution: points along the width of the scene.
        density: of the surface, per scene unit; ER-NeRF counts cells from 10 as occupied.

    Returns:
        Numbers of vertices and triangles. Axes and units are those of the capture: x right, y up, z out of the
        face.

    Raises:
        ImportError: scikit-image or trimesh is missing.
        ValueError: another kind of file, or no surface of that density.
    """
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise ValueError(f"{path}: expected {', '.join(MESH_SUFFIXES)}, got {path.suffix!r}; choose one of these")
    try:
        import trimesh
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise ImportError(
            f"mesh: expected scikit-image and trimesh, got {error}; pip install 'ernerf-ti[viewer]'"
        ) from None
    low, high = (torch.tensor(corner) for corner in (grid.aabb[:3], grid.aabb[3:]))
    spacing = float(high[0] - low[0]) / (resolution - 1)
    counts = ((high - low) / spacing).round().int() + 1
    densities = _densities(field, grid, low, spacing, counts.tolist())
    if not (densities > density).any():
        raise ValueError(f"mesh: expected a surface of density {density:g}, got none in the portrait; train it longer")
    vertices, faces, _, _ = marching_cubes(densities, density, spacing=(spacing,) * 3, gradient_direction="ascent")
    vertices, faces = _largest_component(vertices.astype(np.float32) + low.numpy(), faces)
    colors = _colors(field, torch.from_numpy(vertices).to(grid.bitfield.device))
    mesh = trimesh.Trimesh(vertices[:, [2, 0, 1]] / SCENE_SCALE, faces, vertex_colors=colors, process=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        mesh.export(temporary)
    return len(vertices), len(faces)


def _densities(
    field: BoundHeadField, grid: OccupancyGrid, low: Tensor, spacing: float, counts: list[int]
) -> np.ndarray:
    """[X, Y, Z] densities at lattice points; 0 in empty cells and on the lattice's sides, which closes the mesh."""
    device, bound, n = grid.bitfield.device, grid.config.bound, grid.config.resolution
    occupied = torch.from_numpy(occupied_cells(grid, 0)).to(device)
    half_side = min(1.0, bound)
    result = torch.zeros(counts, device=device)
    flat = result.view(-1)
    for begin in range(0, flat.numel(), _POINTS_AT_ONCE * 16):
        index = torch.arange(begin, min(begin + _POINTS_AT_ONCE * 16, flat.numel()), device=device)
        lattice = torch.stack((index // (counts[1] * counts[2]), index // counts[2] % counts[1], index % counts[2]), 1)
        points = (low.to(device) + lattice * spacing).clamp(-bound, bound)
        cells = ((points + half_side) * (n / (2 * half_side))).long()
        inside = ((cells >= 0) & (cells < n)).all(1)
        inside &= occupied[tuple(cells.clamp(0, n - 1).unbind(1))]
        inside &= (lattice > 0).all(1) & (lattice < lattice.new_tensor(counts) - 1).all(1)
        for chunk in inside.nonzero()[:, 0].split(_POINTS_AT_ONCE):
            flat[begin + chunk] = field.densities(points[chunk].contiguous())
    return result.cpu().numpy()


def _largest_component(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse import coo_matrix  # a dependency of scikit-image
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate((faces[:, :2], faces[:, 1:]))
    edges = coo_matrix((np.ones(len(ends), bool), ends.T), (len(vertices), len(vertices)))
    _, component = connected_components(edges, directed=False)
    kept = component == np.bincount(component).argmax()
    new_index = np.cumsum(kept) - 1
    return vertices[kept], new_index[faces[kept[faces[:, 0]]]]


def _colors(field: BoundHeadField, vertices: Tensor) -> np.ndarray:
    """[V, 3] uint8."""
    directions = vertices.new_tensor(_FROM_THE_FRONT)
    colors = [
        field(chunk, directions.repeat(len(chunk), 1)).rgbs for chunk in vertices.contiguous().split(_POINTS_AT_ONCE)
    ]
    return (torch.cat(colors).clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
