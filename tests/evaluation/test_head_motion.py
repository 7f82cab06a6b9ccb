import numpy as np
import pytest

from ernerf_ti.evaluation.head_motion import eye_distance, head_position, jitter, rigid_shapes
from ernerf_ti.preprocess.face_mesh import N_POINTS


def head(n, seed=0):
    """[n, 478, 3] a head that moves, turns and comes nearer, in pixels."""
    rng = np.random.default_rng(seed)
    shape = 30 * rng.standard_normal((N_POINTS, 3))
    t = np.linspace(0, 1, n)
    angles = 0.4 * np.sin(5 * t)
    zero, one = np.zeros(n), np.ones(n)
    turns = np.stack((np.cos(angles), zero, np.sin(angles), zero, one, zero, -np.sin(angles), zero, np.cos(angles)), 1)
    points = (1 + 0.2 * t)[:, None, None] * np.einsum("nij,pj->npi", turns.reshape(n, 3, 3), shape)
    return points + np.stack((100 + 40 * np.sin(7 * t), 90 + 20 * t, zero), 1)[:, None]


def test_a_rigid_head_keeps_its_shape():
    shapes = rigid_shapes(head(30))
    np.testing.assert_allclose(shapes, shapes[:1].repeat(30, 0), atol=1e-9)


def test_noise_of_points_is_measured():
    points, deviation = head(200), 0.5
    points = points + deviation * np.random.default_rng(1).standard_normal(points.shape)
    found = jitter(rigid_shapes(points)[..., :2] * eye_distance(points).mean(), np.ones(200, bool))
    # The head comes nearer by a fifth, and the fit takes 7 of the 3 P degrees of freedom.
    assert np.nanmean(found) == pytest.approx(deviation, rel=0.1)
    assert np.isnan(found[[0, -1]]).all()


def test_steady_motion_has_no_jitter():
    points = np.zeros((9, N_POINTS, 3)) + np.arange(9)[:, None, None]
    position = head_position(points)
    np.testing.assert_allclose(position, np.arange(9)[:, None].repeat(2, 1))
    assert np.nanmax(jitter(position[:, None], np.ones(9, bool))) < 1e-12


def test_jitter_by_hand_and_without_a_neighbor():
    positions = np.zeros((7, 1, 2))
    positions[3, 0, 0] = 2
    known = np.ones(7, bool)
    # 2, and -1 beside it, over two coordinates
    expected = np.sqrt(np.array([0, 0.5, 2, 0.5, 0]) / 1.5)
    np.testing.assert_allclose(jitter(positions, known)[1:-1], expected)
    known[5] = False
    np.testing.assert_allclose(jitter(positions, known)[1:4], expected[:3])
    assert np.isnan(jitter(positions, known)[4:]).all()
