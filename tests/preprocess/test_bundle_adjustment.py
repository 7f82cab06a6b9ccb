import numpy as np
import pytest

from ernerf_ti.preprocess.bundle_adjustment import (
    OUTER_EYE_CORNERS,
    camera_from_world,
    fit_head,
    head_frame,
    project,
    rotation,
    world_from_camera,
)
from ernerf_ti.preprocess.rigid_face import RIGID_POINTS
from tests.preprocess.synthetic_face import face_shape, head_poses

SIZE, FOCAL = 512, 1500.0


def mesh_of(poses: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    """[F, 478, 3] points as Face Mesh would return them, with errors in px."""
    shape = face_shape()
    rotations, translations = camera_from_world(poses)
    depth = -(shape @ np.swapaxes(rotations, -1, -2) + translations[:, None])[..., 2]
    z = (depth - depth.mean(1, keepdims=True)) * FOCAL / depth.mean(1, keepdims=True)
    mesh = np.concatenate((project(shape, poses, FOCAL, SIZE, SIZE), z[..., None]), -1)
    return mesh + np.random.default_rng(seed).normal(0, noise, mesh.shape) * (1, 1, 5)


def turned_by(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Degrees between rotations [F, 3, 3]."""
    cos = (np.einsum("fij,fij->f", first, second) - 1) / 2
    return np.degrees(np.arccos(np.clip(cos, -1, 1)))


def test_rotation_by_hand():
    # A quarter turn about z takes x to y.
    np.testing.assert_allclose(rotation(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    matrices = rotation(np.random.default_rng(0).normal(size=(50, 3)))
    np.testing.assert_allclose(
        matrices @ np.swapaxes(matrices, 1, 2), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    np.testing.assert_array_equal(rotation(np.zeros(3)), np.eye(3))


def test_projection_by_hand():
    # A camera 2 m in front of the face: f 100, image 40 x 20, so that 0.1 m are 5 px.
    pose = np.eye(4)
    pose[2, 3] = 2
    pixels = project(np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]]), pose, 100, 40, 20)
    np.testing.assert_allclose(pixels, [[20, 10], [25, 10], [20, 5]])


def test_pose_round_trip():
    poses = head_poses(5)
    np.testing.assert_allclose(world_from_camera(*camera_from_world(poses)), poses, atol=1e-15)
    rotations, translations = camera_from_world(poses)
    # The camera sits where X_camera = 0.
    np.testing.assert_allclose(np.einsum("fij,fj->fi", rotations, poses[:, :3, 3]) + translations, 0, atol=1e-12)


def test_head_frame_is_invariant():
    shape = face_shape()
    moved = 37 * (shape @ rotation(np.array([0.3, -2, 1])).T + (4, -5, 6))
    scale, turn, origin = head_frame(moved)
    np.testing.assert_allclose(scale * (moved - origin) @ turn.T, shape, atol=1e-12)
    assert np.linalg.norm(shape[33] - shape[263]) == pytest.approx(OUTER_EYE_CORNERS)
    assert shape[4, 2] == pytest.approx(0.08)
    assert shape[[33, 133, 263, 362], 1].mean() == pytest.approx(0.03)
    assert shape[263, 0] > 0 and shape[10, 1] > 0


def test_recovers_poses_with_outliers_and_gaps():
    poses = head_poses(60, distance=1.1)
    mesh, valid = mesh_of(poses, 0.25), np.ones(60, bool)
    generator = np.random.default_rng(5)
    wrong = generator.random(mesh.shape[:2]) < 0.04
    mesh[wrong, :2] += generator.normal(0, 15, (wrong.sum(), 2))
    valid[20:24] = False
    mesh[40] = np.nan
    fit = fit_head(mesh.astype(np.float32), valid, SIZE, SIZE)

    used = valid.copy()
    used[40] = False
    assert np.isnan(fit.poses[~used]).all()
    assert turned_by(fit.poses[used, :3, :3], poses[used, :3, :3]).max() < 0.5
    assert fit.focal == pytest.approx(FOCAL, rel=0.15)
    # The camera position up to the distance, which is coupled to the focal length.
    ratio = np.linalg.norm(fit.poses[used, :3, 3], axis=-1) / np.linalg.norm(poses[used, :3, 3], axis=-1)
    assert ratio.mean() == pytest.approx(fit.focal / FOCAL, rel=0.02)
    assert ratio.std() < 0.01
    truth = face_shape()
    assert np.linalg.norm(fit.shape - truth, axis=-1)[RIGID_POINTS].mean() < 0.0015
    assert np.median(np.linalg.norm(fit.shape - truth, axis=-1)) < 0.002
    clean = project(truth, poses[used], FOCAL, SIZE, SIZE) - project(fit.shape, fit.poses[used], fit.focal, SIZE, SIZE)
    assert np.abs(clean[:, RIGID_POINTS]).mean() < 0.2
    # 4 % of outliers of about 19 px, and the noise.
    assert 0.3 < fit.error_mean < 1.5 and fit.error_95 < 3


def test_deterministic():
    mesh, valid = mesh_of(head_poses(12), 0.3), np.ones(12, bool)
    first, second = (fit_head(mesh, valid, SIZE, SIZE) for _ in range(2))
    np.testing.assert_array_equal(first.poses, second.poses)
    np.testing.assert_array_equal(first.shape, second.shape)


@pytest.mark.parametrize("size", [256, 512])
def test_invariance_to_the_image_size(size):
    poses = head_poses(15)
    mesh = mesh_of(poses, 0.2) * size / SIZE
    fit = fit_head(mesh, np.ones(15, bool), size, size)
    assert fit.focal == pytest.approx(FOCAL * size / SIZE, rel=0.15)
    assert turned_by(fit.poses[:, :3, :3], poses[:, :3, :3]).max() < 0.7


@pytest.mark.parametrize("noise", [0, 0.3])
@pytest.mark.parametrize("n_frames", [1, 10])
def test_motionless_head(n_frames, noise):
    poses = np.repeat(head_poses(1), n_frames, axis=0)
    fit = fit_head(mesh_of(poses, noise), np.ones(n_frames, bool), SIZE, SIZE)
    assert np.isfinite(fit.poses).all() and np.isfinite(fit.shape).all()
    # Nothing constrains the focal length but the prior distance of one meter.
    assert fit.poses[0, :3, 3] == pytest.approx(poses[0, :3, 3], abs=0.15)
    assert fit.error_mean < 0.01 + 2 * noise


def test_initial_focal_length_of_a_motionless_head():
    mesh = mesh_of(np.repeat(head_poses(1), 5, axis=0), 0.3)
    near, far = (fit_head(mesh, np.ones(5, bool), SIZE, SIZE, focal).focal for focal in (800, 3000))
    assert near < 1100 and far > 2200


def test_messages():
    mesh, valid = mesh_of(head_poses(3), 0), np.ones(3, bool)
    with pytest.raises(ValueError) as error:
        fit_head(mesh[:, :468], valid, SIZE, SIZE)
    assert str(error.value) == "points: expected shape [F, 478, 3], got (3, 468, 3); pass the points of track_face"
    with pytest.raises(ValueError) as error:
        fit_head(mesh, valid[:2], SIZE, SIZE)
    assert str(error.value) == "valid: expected [3] bool, got (2,) bool; pass FaceTrack.valid"
    with pytest.raises(ValueError) as error:
        fit_head(mesh * np.nan, valid, SIZE, SIZE)
    assert str(error.value) == ("valid: none of 3 frames is valid; use a video that shows the face from the front")
