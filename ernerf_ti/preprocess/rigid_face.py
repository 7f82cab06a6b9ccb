"""The rigid part of a face: mesh points that move with the skull, and the surface through them.

Indices are those of MediaPipe's Face Mesh. Lips, jaw, brows, eyelids, the wings of the nose and the skin below the
cheekbones are left out. "Right" is the person's right, on the left of the image.
"""

from dataclasses import dataclass

import cv2
import numpy as np

NOSE_TIP, FOREHEAD_TOP, CHIN = 4, 10, 152
RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS = (33, 133), (263, 362)  # outer, inner

_MIDLINE = {10: 0.5, 151: 0.5, 9: 0.5, 8: 0.7, 168: 1, 6: 1, 197: 1, 195: 1, 5: 1, 4: 1, 1: 1}
# (right, left) with a weight, the inverse of how much the point moves relative to the skull. Brows pull at the
# forehead, and points at the rim of the face follow the hairline and the visible outline.
_PAIRS = (
    *((right, left, 0.4) for right, left in ((109, 338), (67, 297), (103, 332), (54, 284), (21, 251))),
    *((right, left, 0.5) for right, left in ((108, 337), (69, 299), (104, 333), (68, 298))),
    *((right, left, 0.5) for right, left in ((71, 301), (162, 389), (139, 368), (127, 356), (34, 264), (156, 383))),
    *((right, left, 1.0) for right, left in ((33, 263), (133, 362), (130, 359), (243, 463), (143, 372))),
    *((right, left, 1.0) for right, left in ((193, 417), (122, 351), (245, 465), (188, 412), (196, 419), (3, 248))),
    *((right, left, 1.0) for right, left in ((174, 399), (217, 437), (236, 456), (51, 281), (198, 420), (134, 363))),
    *((right, left, 0.8) for right, left in ((45, 275), (220, 440), (126, 355), (100, 329), (119, 348))),
    *((right, left, 0.7) for right, left in ((111, 340), (116, 345), (117, 346), (118, 347), (101, 330), (50, 280))),
    *((right, left, 0.4) for right, left in ((234, 454), (227, 447), (123, 352), (137, 366))),
)
PAIRS = np.array([pair[:2] for pair in _PAIRS])
RIGID_POINTS = np.concatenate((list(_MIDLINE), PAIRS[:, 0], PAIRS[:, 1]))
RIGID_WEIGHTS = np.concatenate((list(_MIDLINE.values()), np.tile([pair[2] for pair in _PAIRS], 2)))

# Outlines of the patches whose texture is matched.
REGIONS = {
    "forehead": ((103, 67, 109, 10, 338, 297, 332, 333, 299, 337, 9, 108, 69, 104),),
    "nose": ((168, 417, 351, 412, 399, 437, 420, 360, 440, 275, 1, 45, 220, 131, 198, 217, 174, 188, 122, 193),),
    "cheeks": (
        (116, 117, 118, 119, 100, 142, 36, 50, 123),
        (345, 346, 347, 348, 329, 371, 266, 280, 352),
    ),
}
# Mesh points that define the surface: the rigid ones and the corners of the patches.
_SURFACE_POINTS = np.union1d(
    RIGID_POINTS, [point for outlines in REGIONS.values() for outline in outlines for point in outline]
)
_STIFFNESS = 1e-4  # of the spline, which misses points by about half a millimeter
_MARGIN = 4  # grid points around the patches


@dataclass(frozen=True)
class FaceSurface:
    """The texture patches of a face in the reference view, an orthographic frontal view."""

    step: float
    """Meters between neighboring grid points of the view."""
    grid: tuple[int, int]
    """Rows and columns of the view. x grows to the right, y downwards."""
    regions: dict[str, np.ndarray]
    """For each name in REGIONS a [rows, columns] bool mask."""
    points: np.ndarray
    """[rows, columns, 3] float64 meters in the head frame. Outside the patches the surface is extrapolated."""
    normals: np.ndarray
    """[rows, columns, 3] float64, unit length, out of the face."""


def face_surface(shape: np.ndarray, step: float) -> FaceSurface:
    """Sample the rigid surface of a face on the grid of its frontal view.

    The depth is a smoothing thin-plate spline of the mesh points. [Duchon 1977; Wahba 1990 for the smoothing]

    Args:
        shape: [478, 3] meters in the head frame (x right, y up, z out of the face).
        step: meters between grid points.
    """
    outlines = np.concatenate([shape[list(outline), :2] for patches in REGIONS.values() for outline in patches])
    left, top = outlines[:, 0].min() - _MARGIN * step, outlines[:, 1].max() + _MARGIN * step
    columns, rows = (np.ceil(np.ptp(outlines, axis=0) / step) + 2 * _MARGIN + 1).astype(int)
    regions = {}
    for name, patches in REGIONS.items():
        mask = np.zeros((rows, columns), np.uint8)
        for outline in patches:
            corners = (shape[list(outline), :2] - (left, top)) / (step, -step)
            cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], (1,))
        regions[name] = mask.astype(bool)
    x, y = np.meshgrid(left + step * np.arange(columns), top - step * np.arange(rows))
    z = _spline(shape[_SURFACE_POINTS], np.column_stack((x.ravel(), y.ravel()))).reshape(x.shape)
    z_y, z_x = np.gradient(z, -step, step)
    normals = np.stack((-z_x, -z_y, np.ones_like(z)), -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return FaceSurface(step, (int(rows), int(columns)), regions, np.stack((x, y, z), -1), normals)


def _spline(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values at [N, 2] of the smoothing thin-plate spline of nodes [P, 3]."""
    center, scale = nodes[:, :2].mean(0), np.ptp(nodes[:, 0])

    def kernel(points: np.ndarray) -> np.ndarray:
        squares = ((points[:, None] - flat[None]) ** 2).sum(-1)
        return 0.5 * squares * np.log(np.maximum(squares, 1e-20))

    def plane(points: np.ndarray) -> np.ndarray:
        return np.column_stack((np.ones(len(points)), points))

    flat = (nodes[:, :2] - center) / scale
    n = len(flat)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = kernel(flat) + _STIFFNESS * np.eye(n)
    system[:n, n:] = plane(flat)
    system[n:, :n] = system[:n, n:].T
    weights = np.linalg.solve(system, np.append(nodes[:, 2], np.zeros(3)))
    at = (at - center) / scale
    return kernel(at) @ weights[:n] + plane(at) @ weights[n:]
