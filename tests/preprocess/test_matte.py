import cv2
import numpy as np
import pytest

from ernerf_ti.preprocess.background import Background
from ernerf_ti.preprocess.matte import refine_matte

SIDE, RADIUS = 256, 77  # the band is 4 px wide on each side


def scene(width, offset, person=(230, 180, 150), wall=(50, 70, 90), texture=1.0, seen=True):
    """A disc with a soft edge of `width` px; a mask that is `offset` px too large, as soft as that of a network.

    Returns frame, mask, estimated background, true alpha, true background, and distance to the edge in px.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    distance = np.hypot(rows - SIDE / 2, columns - SIDE / 2) - RADIUS
    alpha = np.clip(0.5 - distance / width, 0, 1)
    foreground = np.array(person) + texture * rng.normal(0, 4, (SIDE, SIDE, 3))
    stains = cv2.GaussianBlur(rng.normal(0, 50, (SIDE, SIDE, 3)), (0, 0), 2) + 20 * np.sin(columns / 9)[..., None]
    background = np.clip(np.array(wall) + texture * stains, 0, 255)
    mixed = alpha[..., None] * foreground + (1 - alpha[..., None]) * background
    frame = np.round(np.clip(mixed, 0, 255)).astype(np.uint8)
    mask = np.round(255 * np.clip(0.5 - (distance - offset) / 6, 0, 1)).astype(np.uint8)
    image = np.round(background) if seen else np.zeros((SIDE, SIDE, 3))
    estimate = Background(image.astype(np.uint8), np.full((SIDE, SIDE), seen), np.zeros((SIDE, SIDE), np.float32))
    return frame, mask, estimate, alpha, background, distance


# The background nearby is smoother than the textured wall, and so a worse estimate.
@pytest.mark.parametrize(("seen", "mean", "most"), [(True, 0.02, 0.12), (False, 0.04, 0.2)])
@pytest.mark.parametrize("offset", [-1, 1])
@pytest.mark.parametrize("width", [1.5, 3])
def test_alpha_of_a_known_edge(width, offset, seen, mean, most):
    frame, mask, estimate, expected, _, distance = scene(width, offset, seen=seen)
    alpha, background = refine_matte(frame, mask, estimate)
    assert alpha.dtype == background.dtype == np.float32
    assert alpha.shape == (SIDE, SIDE) and background.shape == (SIDE, SIDE, 3)
    edge = np.abs(distance) < 4
    error = np.abs(alpha - expected)
    assert error[edge].mean() < mean and error.max() < most
    assert error[edge].mean() < 0.3 * np.abs(mask / 255 - expected)[edge].mean()


def test_far_from_the_edge_alpha_is_certain():
    frame, mask, estimate, _, _, distance = scene(3, 0)
    alpha, _ = refine_matte(frame, mask, estimate)
    assert (alpha[distance < -6] == 1).all()
    assert (alpha[distance > 6] == 0).all()


def test_uncertain_mask_far_from_its_edge_is_rounded():
    frame, mask, estimate, _, _, distance = scene(3, 0)
    mask[distance < -20], mask[distance > 20] = 180, 60
    alpha, _ = refine_matte(frame, mask, estimate)
    assert (alpha[distance < -22] == 1).all()
    assert (alpha[distance > 22] == 0).all()


def test_visible_background_is_the_estimate():
    frame, mask, estimate, *_ = scene(3, 0)
    _, found = refine_matte(frame, mask, estimate)
    assert np.array_equal(found, estimate.image)


def test_hidden_background_at_the_edge_is_that_of_the_frame_nearby():
    # The wall is dark on the left and light on the right: the mean over all of it would be off by 50.
    frame, mask, unseen, alpha, background, distance = scene(3, 0, seen=False, texture=0)
    wall = background + np.linspace(0, 100, SIDE)[:, None]
    frame = np.round(alpha[..., None] * frame + (1 - alpha[..., None]) * wall).astype(np.uint8)
    _, found = refine_matte(frame, mask, unseen)
    edge = np.abs(distance) < 2
    assert np.abs(found - wall)[edge].max() < 8
    assert np.array_equal(found[distance > 8], unseen.image[distance > 8])


def test_hidden_background_without_any_nearby():
    # The person covers the image up to its right border, and the mask is uncertain at the left one.
    frame = np.full((64, 64, 3), 200, np.uint8)
    frame[:, 56:] = 40
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, 56:] = mask[30:32, :1] = 0
    estimate = Background(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool), np.zeros((64, 64), np.float32))
    alpha, background = refine_matte(frame, mask, estimate)
    np.testing.assert_allclose(background[30, 0], 40, atol=0.01)
    assert alpha[30, 0] > 0.4 and np.isfinite(alpha).all()


def test_similar_colors_fall_back_to_the_mask():
    frame, mask, estimate, _, _, distance = scene(3, 1, person=(60, 75, 95), wall=(55, 70, 90), texture=0)
    alpha, _ = refine_matte(frame, mask, estimate)
    near = np.abs(distance - 1) < 3
    np.testing.assert_allclose(alpha[near], mask[near] / 255, atol=1e-6)
    assert (alpha[distance < -6] == 1).all() and (alpha[distance > 8] == 0).all()


def test_alpha_blends_between_mask_and_colors():
    # At 3 gray levels of separation the mask is used, at 90 the colors, at 40 half of each.
    errors = []
    for gray in (3, 40, 90):
        scenery = scene(1.5, 2, person=(90 + gray / 3**0.5,) * 3, wall=(90,) * 3, texture=0)
        frame, mask, estimate, expected, _, distance = scenery
        alpha, _ = refine_matte(frame, mask, estimate)
        errors.append(np.abs(alpha - expected)[np.abs(distance) < 3].mean())
    assert errors[2] < 0.2 * errors[0]
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (255, 1)])
def test_no_person_and_only_the_person(value, expected):
    frame, mask, estimate, *_ = scene(3, 0)
    alpha, background = refine_matte(frame, np.full_like(mask, value), estimate)
    assert (alpha == expected).all()
    assert np.isfinite(background).all()
