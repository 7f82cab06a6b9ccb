import numpy as np

from ernerf_ti.preprocess.rigid_face import PAIRS, REGIONS, RIGID_POINTS, RIGID_WEIGHTS, face_surface
from tests.preprocess.synthetic_face import face_shape


def test_points_are_unique():
    assert len(np.unique(RIGID_POINTS)) == len(RIGID_POINTS) == len(RIGID_WEIGHTS)
    assert RIGID_POINTS.max() < 468
    assert (RIGID_WEIGHTS > 0).all() and (RIGID_WEIGHTS <= 1).all()
    shape = face_shape()
    assert (shape[PAIRS[:, 0], 0] < shape[PAIRS[:, 1], 0]).all()


def test_surface_goes_through_the_points():
    shape, surface = face_shape(), face_surface(face_shape(), 0.001)
    assert surface.points.shape == surface.normals.shape == (*surface.grid, 3)
    flat = surface.points.reshape(-1, 3)
    for point in (151, 168, 195, 4, 117, 346, 50):
        nearest = np.linalg.norm(flat[:, :2] - shape[point, :2], axis=-1).argmin()
        assert abs(flat[nearest, 2] - shape[point, 2]) < 0.003, point


def test_grid_is_a_view_of_the_face():
    surface = face_surface(face_shape(), 0.002)
    assert (np.diff(surface.points[..., 0], axis=1) > 0).all() and (np.diff(surface.points[..., 1], axis=0) < 0).all()
    np.testing.assert_allclose(np.diff(surface.points[0, :, 0]), 0.002)
    rows = {name: np.nonzero(mask)[0].mean() for name, mask in surface.regions.items()}
    assert rows["forehead"] < rows["nose"] < rows["cheeks"] + 3
    assert set(surface.regions) == set(REGIONS)
    counts = np.sum(list(surface.regions.values()), axis=0)
    assert counts.max() == 1, "regions overlap"
    assert not (counts[0].any() or counts[-1].any() or counts[:, 0].any() or counts[:, -1].any())


def test_normals_point_out_of_a_sphere():
    shape = face_shape()
    shape[:, 2] = np.sqrt(0.15**2 - shape[:, 0] ** 2 - shape[:, 1] ** 2)
    surface = face_surface(shape, 0.002)
    patches = np.logical_or.reduce(list(surface.regions.values()))
    along = (surface.normals * surface.points).sum(-1)[patches] / 0.15
    assert along.min() > 0.995


def test_step_sets_the_size():
    coarse, fine = face_surface(face_shape(), 0.002), face_surface(face_shape(), 0.001)
    for name in REGIONS:
        np.testing.assert_allclose(fine.regions[name].sum() / coarse.regions[name].sum(), 4, rtol=0.25)
