"""Probabilities of rare frames."""

import numpy as np
import pytest

from ernerf_ti.train.rare_frames import capped, inverse_frequency, rare_frame_probabilities


def poses_seen_from(degrees) -> np.ndarray:
    """[n, 4, 4] cameras that many degrees to the right of the face."""
    poses = np.tile(np.eye(4), (len(degrees), 1, 1))
    angles = np.radians(degrees)
    poses[:, 0, 3], poses[:, 2, 3] = 0.8 * np.sin(angles), 0.8 * np.cos(angles)
    return poses


def faces(openings) -> np.ndarray:
    """[n, 68, 2] landmarks of mouths that are open by these fractions of the distance between the eyes."""
    points = np.zeros((len(openings), 68, 2), np.float32)
    points[:, 36:42, 0], points[:, 42:48, 0] = -30, 30
    points[:, 65:68, 1] = 60 * np.array(openings)[:, None]
    return points


def test_groups_have_equal_shares():
    np.testing.assert_allclose(inverse_frequency(np.array([0, 0, 3, 0, 5, 5])), np.array([2, 2, 6, 2, 3, 3]) / 18)


def test_a_third_for_the_eyes_the_mouth_and_the_pose():
    n = 60
    closures, openings, degrees = np.zeros(n), np.full(n, 0.2), np.zeros(n)
    closures[[0, 1]] = 0.9, 0.6  # two groups beside the open eyes
    openings[:10], openings[50:] = 0, 0.4
    degrees[20:30] = -12
    expected = np.full(n, 1 / 58)
    expected[:2] = 1
    expected /= 3
    mouth = np.full(n, 1 / 40)
    mouth[:10] = mouth[50:] = 1 / 10
    pose = np.full(n, 1 / 50)
    pose[20:30] = 1 / 10
    expected = (expected + mouth / 3 + pose / 2) / 3
    found = rare_frame_probabilities(closures, faces(openings), poses_seen_from(degrees))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.sum() == pytest.approx(1)


def test_one_mistracked_frame_does_not_take_over():
    n = 400
    closures, openings, degrees = np.zeros(n), np.linspace(0, 0.3, n), np.zeros(n)
    closures[5], openings[5], degrees[5] = 1, 9, 80
    found = rare_frame_probabilities(closures, faces(openings), poses_seen_from(degrees))
    assert found[5] == found.max() == pytest.approx(10 / n)
    assert found.sum() == pytest.approx(1)
    # It does not change which mouths are wide: those above 0.6 of the usual range.
    first_wide = 100 + np.flatnonzero(np.diff(found[100:]) > 1e-6) + 1
    assert len(first_wide) == 1 and first_wide[0] == pytest.approx(0.6 * n, abs=4)


def test_what_is_cut_off_goes_to_the_others():
    np.testing.assert_allclose(capped(np.array([0.7, 0.2, 0.05, 0.05]), 0.4), [0.4, 0.4, 0.1, 0.1])
    np.testing.assert_allclose(capped(np.array([0.1, 0.2, 0.7]), 0.8), [0.1, 0.2, 0.7])
    np.testing.assert_allclose(capped(np.array([1.0, 0.0, 0.0, 0.0]), 0.25)[0], 0.25)


def test_faces_that_are_a_point():
    found = rare_frame_probabilities(np.zeros(3), np.zeros((3, 68, 2)), poses_seen_from([0, 0, 0]))
    np.testing.assert_allclose(found, 1 / 3)
