import numpy as np
import pytest

from ernerf_ti.preprocess.bundle_adjustment import project
from ernerf_ti.preprocess.photometric_refinement import refine_poses
from ernerf_ti.preprocess.rigid_face import RIGID_POINTS
from ernerf_ti.preprocess.texture_alignment import FaceCrops, measure_alignment
from tests.preprocess.synthetic_face import Portrait, face_shape, head_poses, move

N = 16


def perturbed(poses: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(2)
    return move(poses, generator.normal(0, 0.5, (N, 3)), generator.normal(0, (0.001, 0.001, 0.004), (N, 3)))


def pixel_errors(portrait: Portrait, poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[F, P, 2] px errors of rigid points, without what is common to all frames."""
    points = face_shape()[RIGID_POINTS]
    off = project(points, poses, portrait.focal, portrait.size, portrait.size)
    off = off - project(points, truth, portrait.focal, portrait.size, portrait.size)
    return off - np.median(off, axis=0)


@pytest.mark.parametrize("size", [112, 192])
def test_perturbed_poses_are_recovered(size):
    portrait, truth = Portrait(size), head_poses(N)
    images = [portrait.render(pose) for pose in truth]
    start = portrait.fit(perturbed(truth))
    crops = FaceCrops(images.__getitem__, start)
    fit, refined = refine_poses(crops, start)
    assert refined.all()
    before = np.sqrt((pixel_errors(portrait, start.poses, truth) ** 2).mean())
    after = np.sqrt((pixel_errors(portrait, fit.poses, truth) ** 2).mean())
    assert before > 0.004 * size and after < 0.25 * before, (before, after)
    steps = [max(measure_alignment(crops, either).regions["nose"].step) for either in (start, fit)]
    assert steps[1] < 0.2 * steps[0], steps
    assert fit.focal == start.focal and fit.shape is start.shape


def test_hidden_cheek_dark_frame_and_gap():
    portrait, truth = Portrait(), head_poses(N)
    images = [portrait.render(pose) for pose in truth]
    start = portrait.fit(perturbed(truth))
    cheek = project(face_shape()[[101]], truth[3], portrait.focal, portrait.size, portrait.size)[0].astype(int)
    images[3][cheek[1] - 5 : cheek[1] + 9, cheek[0] - 9 : cheek[0] + 5] = 200  # an occluded cheek
    images[7][:] = 0
    start.poses[11] = np.nan
    fit, refined = refine_poses(FaceCrops(images.__getitem__, start), start)
    np.testing.assert_array_equal(np.flatnonzero(~refined), [7, 11])
    np.testing.assert_array_equal(fit.poses[7], start.poses[7])
    assert np.isnan(fit.poses[11]).all()
    known = refined.copy()
    off = pixel_errors(portrait, fit.poses[known], truth[known])
    assert np.sqrt((off**2).mean((1, 2))).max() < 0.25  # including frame 3


def test_deterministic_and_independent_of_the_order():
    # The pose of a frame depends on the texture of the clip, not on neighboring frames.
    portrait, truth = Portrait(112), head_poses(N)
    images = [portrait.render(pose) for pose in truth]
    start = perturbed(truth)
    order = np.random.default_rng(0).permutation(N)

    def refine(order):
        fit = portrait.fit(start[order])
        return refine_poses(FaceCrops(lambda k: images[order[k]], fit), fit)[0].poses

    first = refine(np.arange(N))
    np.testing.assert_array_equal(first, refine(np.arange(N)))
    np.testing.assert_allclose(refine(order), first[order], atol=1e-5)
