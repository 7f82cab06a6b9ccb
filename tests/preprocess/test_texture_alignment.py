import numpy as np
import pytest

from ernerf_ti.preprocess.bundle_adjustment import camera_from_world
from ernerf_ti.preprocess.texture_alignment import FaceCrops, measure_alignment, texture_shift
from tests.preprocess.synthetic_face import Portrait, face_shape, head_poses, move


@pytest.fixture(scope="module")
def portrait():
    return Portrait()


def waves(shift: np.ndarray) -> np.ndarray:
    """[60, 80] smooth noise, moved by a shift [2]."""
    generator = np.random.default_rng(0)
    columns, rows = np.meshgrid(np.arange(80) - shift[0], np.arange(60) - shift[1])
    return sum(
        np.sin(a * columns + b * rows + c) for a, b, c in generator.uniform((-0.5, -0.5, 0), (0.5, 0.5, 6), (20, 3))
    )


def test_texture_shift():
    mask = np.zeros((60, 80), bool)
    mask[12:-12, 12:-12] = True
    for shift in ((0, 0), (0.31, -0.2), (-1.4, 1.1), (2.0, 0.5)):
        found = texture_shift(1.7 * waves(np.array(shift)), waves(np.zeros(2)), mask)
        np.testing.assert_allclose(found, shift, atol=0.02)
    np.testing.assert_array_equal(texture_shift(np.zeros((60, 80)), np.zeros((60, 80)), mask), 0)


def test_correct_poses_have_no_residual_motion(portrait):
    poses = head_poses(8)
    images = [portrait.render(pose) for pose in poses]
    fit = portrait.fit(poses)
    alignment = measure_alignment(FaceCrops(images.__getitem__, fit), fit)
    for region in alignment.regions.values():
        assert max(region.deviation) < 0.07
    assert alignment.residual < 0.2


def test_injected_jitter_is_measured(portrait):
    # The poses are constant, but the head alternates by 0.4 px in x, and by 0.2 px in y every other time.
    still = np.repeat(head_poses(1), 8, axis=0)
    rotations, translations = camera_from_world(still)
    metres_per_px = -(rotations[0] @ face_shape()[195] + translations[0])[2] / portrait.focal
    jitter = np.zeros((8, 3))
    jitter[:, 0] = np.tile((0.4, -0.4), 4) * metres_per_px
    jitter[:, 1] = np.tile((-0.2, -0.2, 0.2, 0.2), 2) * metres_per_px
    images = [portrait.render(pose) for pose in move(still, np.zeros((8, 3)), jitter)]
    fit = portrait.fit(still)
    alignment = measure_alignment(FaceCrops(images.__getitem__, fit), fit)
    for name, region in alignment.regions.items():
        np.testing.assert_allclose(region.shifts[:, 0], np.tile((0.4, -0.4), 4), atol=0.06, err_msg=name)
        np.testing.assert_allclose(region.shifts[:, 1], np.tile((0.2, 0.2, -0.2, -0.2), 2), atol=0.06, err_msg=name)
        np.testing.assert_allclose(region.deviation, (0.4, 0.2), atol=0.04, err_msg=name)
        # Steps: 0.8 px each time; 0.4 px three times out of seven.
        np.testing.assert_allclose(region.step, (0.8, 0.4 * np.sqrt(3 / 7)), atol=0.05, err_msg=name)


def test_gaps(portrait):
    poses = head_poses(5)
    poses[2] = np.nan
    images = [portrait.render(pose) if np.isfinite(pose).all() else None for pose in poses]
    fit = portrait.fit(poses)
    alignment = measure_alignment(FaceCrops(images.__getitem__, fit), fit)
    assert np.isnan(alignment.regions["nose"].shifts[2]).all()
    assert np.isfinite(alignment.regions["nose"].shifts[[0, 1, 3, 4]]).all()
    # A single frame has no step.
    poses[1:] = np.nan
    single = portrait.fit(poses)
    assert np.isnan(measure_alignment(FaceCrops(images.__getitem__, single), single).regions["nose"].step).all()


def test_face_outside_the_image_is_not_measured(portrait):
    poses = head_poses(4)
    images = [portrait.render(pose) for pose in poses]
    away = move(poses, np.zeros((4, 3)), np.array([[0, 0, 0]] * 3 + [[1.0, 0, 0]]))
    fit = portrait.fit(away)
    regions = measure_alignment(FaceCrops(images.__getitem__, fit), fit).regions
    assert all(np.isnan(region.shifts[3]).all() and np.isfinite(region.shifts[:3]).all() for region in regions.values())


def test_frames_of_two_sizes(portrait):
    fit = portrait.fit(head_poses(2))
    images = [np.zeros((144, 144, 3), np.uint8), np.zeros((100, 144, 3), np.uint8)]
    with pytest.raises(ValueError) as error:
        FaceCrops(images.__getitem__, fit)
    assert str(error.value) == (
        "frame 1: expected [144, 144, 3] uint8 RGB like the first, got (100, 144, 3) uint8; "
        "pass the frames that were fitted"
    )
