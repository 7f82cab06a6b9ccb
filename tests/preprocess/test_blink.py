import numpy as np
import pytest

from ernerf_ti.preprocess.blink import eye_closure

EYES = ((33, 160, 158, 133, 144, 153), (362, 385, 387, 263, 380, 373))


def mesh(left, right=None):
    """[F, 478, 3]: eyes of width 30 with lids `left` and `right` times the width apart, one value per frame."""
    left = np.asarray(left, float)
    points = np.zeros((len(left), 478, 3))
    for eye, x, ratio in zip(EYES, (0, 60), (left, left if right is None else np.asarray(right)), strict=True):
        gap = 15 * ratio
        offsets = [(0, 0), (10, -1), (20, -1), (30, 0), (10, 1), (20, 1)]
        for index, (dx, side) in zip(eye, offsets, strict=True):
            points[:, index] = np.stack((np.full(len(left), 100 + x + dx), 80 + side * gap, 0 * gap), -1)
    return points


def test_by_hand():
    # The 90th percentile, 0.4, is open; a quarter of it, 0.1, is closed; 0.25 is half closed.
    ratios = [0.4] * 20 + [0.1, 0.25, 0.05, 0.325]
    closure = eye_closure(mesh(ratios))
    np.testing.assert_allclose(closure, [0] * 20 + [1, 0.5, 1, 0.25], atol=1e-12)


def test_wide_eyes_are_clipped():
    closure = eye_closure(mesh([0.4] * 30 + [0.6]))
    assert closure.min() == 0 and closure[-1] == 0


def test_mean_of_both_eyes():
    closure = eye_closure(mesh([0.4] * 20 + [0.1], [0.3] * 20 + [0.3]))
    assert closure[-1] == pytest.approx(0.5)
    assert closure[:20].max() < 1e-12


def test_invariance_to_pose_and_size():
    rng = np.random.default_rng(0)
    ratios = rng.uniform(0.1, 0.4, 40)
    points = mesh(ratios)
    moved = points.copy()
    for k in range(40):
        q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        moved[k] = rng.uniform(0.5, 2) * points[k] @ q + rng.uniform(-50, 50, 3)
    np.testing.assert_allclose(eye_closure(moved), eye_closure(points), atol=1e-9)


def test_frames_without_a_face():
    points = mesh([0.4] * 10 + [0.1, 0.4] + [0.4] * 10)
    points[[0, 11, 21]] = np.nan
    points[9] = np.nan
    closure = eye_closure(points)
    assert closure.shape == (22,) and np.isfinite(closure).all()
    np.testing.assert_allclose(closure[[0, 8, 9, 10, 11, 12, 21]], [0, 0, 0.5, 1, 0.5, 0, 0], atol=1e-12)


def test_no_face():
    with pytest.raises(ValueError) as error:
        eye_closure(np.full((7, 478, 3), np.nan))
    assert "points: expected a face in at least one frame, got none in 7; track the face first" in str(error.value)
