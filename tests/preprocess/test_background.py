import numpy as np
import pytest

from ernerf_ti.preprocess.background import distance_to_person, estimate_background, margin_of

SIDE = 64  # which gives a margin of 2 px


def texture(side=SIDE):
    rng = np.random.default_rng(4)
    return rng.integers(30, 226, (side, side, 3), np.uint8)


def smooth(side=SIDE):
    y, x = np.mgrid[:side, :side] / side
    return np.stack((60 + 120 * x, 180 - 100 * y, 90 + 60 * x), -1).astype(np.uint8)


def disc(x, y=32, radius=10, side=SIDE):
    rows, columns = np.mgrid[:side, :side]
    return np.where(np.hypot(rows - y, columns - x) < radius, 255, 0).astype(np.uint8)


def painted(wall, mask, color=(255, 0, 255)):
    frame = wall.copy()
    frame[mask > 127] = color
    return frame


@pytest.mark.parametrize(("size", "margin"), [((512, 512), 8), ((256, 512), 4), ((64, 64), 2), ((32, 32), 2)])
def test_margin(size, margin):
    assert margin_of(size) == margin


def test_distance_by_hand():
    mask = np.zeros((5, 6), np.uint8)
    mask[1, 2] = 128
    mask[4, 5] = 127  # not the person
    distance = distance_to_person(mask)
    assert distance.dtype == np.float32
    assert distance[1, 2] == 0
    np.testing.assert_allclose(distance[1, [0, 5]], [2, 3], rtol=1e-6)
    assert distance[4, 2] == pytest.approx(3)
    assert distance[4, 5] == pytest.approx(18**0.5, rel=1e-5)
    assert np.isinf(distance_to_person(np.zeros((3, 3), np.uint8))).all()


def test_moving_person():
    wall = texture()
    masks = [disc(x) for x in range(6, 60, 6)]
    background = estimate_background([painted(wall, mask) for mask in masks], masks)
    assert background.image.shape == (SIDE, SIDE, 3) and background.image.dtype == np.uint8
    assert background.seen.all()
    assert np.array_equal(background.image, wall)
    assert background.spread.shape == (SIDE, SIDE) and background.spread.max() == 0


def test_pixels_near_the_person_are_not_used():
    # A halo of 1 px around the mask, like hair outside of the mask; it is elsewhere in one of four frames.
    wall = texture()
    centers = [12, 12, 12, 45]
    masks = [disc(x) for x in centers]
    frames = [painted(wall, disc(x, radius=11)) for x in centers]
    background = estimate_background(frames, masks)
    assert np.array_equal(background.image[background.seen], wall[background.seen])
    assert background.seen.all()


def test_median_ignores_outliers():
    wall = texture()
    frames = [wall.copy() for _ in range(5)]
    frames[2][10:20, 10:20] = 255
    background = estimate_background(frames, [disc(50)] * 5)
    assert np.array_equal(background.image[:, :32], wall[:, :32])
    assert background.spread[:, :32].max() == 0


def test_spread_by_hand():
    # 100, 110, 130: median 110, deviations 10, 0, 20, of which the median is 10; two channels of three.
    frames = [np.full((SIDE, SIDE, 3), (level, level, 50), np.uint8) for level in (100, 110, 130)]
    background = estimate_background(frames, [disc(10)] * 3)
    assert background.image[40, 50].tolist() == [110, 110, 50]
    assert background.spread[40, 50] == pytest.approx(20 / 3)
    assert background.spread[32, 10] == 0  # never seen


def test_hole_is_inpainted():
    wall = smooth()
    mask = disc(32, 40, 14)
    background = estimate_background([painted(wall, mask)] * 3, [mask] * 3)
    hole = ~background.seen
    assert hole[40, 32] and hole.sum() > (mask > 0).sum()
    error = np.abs(background.image.astype(int) - wall)
    assert error[hole].mean() < 6 and error[hole].max() < 25
    # Without a step, as the transition is blended over the margin.
    far = distance_to_person(np.where(hole, 255, 0).astype(np.uint8)) > margin_of((SIDE, SIDE))
    assert error[far].max() == 0


def test_hole_is_inpainted_at_a_larger_size():
    wall = smooth(256)
    mask = disc(128, 180, 50, 256)
    background = estimate_background([painted(wall, mask)], [mask])
    error = np.abs(background.image.astype(int) - wall)
    assert error[~background.seen].mean() < 8
    assert np.abs(np.diff(background.image.astype(int), axis=0)).max() < 8


def test_person_everywhere():
    background = estimate_background([texture()], [np.full((SIDE, SIDE), 255, np.uint8)])
    assert not background.seen.any() and background.spread.max() == 0


def test_no_person():
    wall = texture()
    background = estimate_background([wall], [np.zeros((SIDE, SIDE), np.uint8)])
    assert background.seen.all() and np.array_equal(background.image, wall)


class Lazy:
    """A sequence that records which items are read."""

    def __init__(self, values):
        self.values, self.read = values, []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, k):
        self.read.append(k)
        return self.values[k]


@pytest.mark.parametrize(("n", "most"), [(10, 10), (64, 16), (2000, 256)])
def test_a_long_clip_is_sampled(n, most):
    wall = np.full((16, 16, 3), 50, np.uint8)
    frames, masks = Lazy([wall] * n), Lazy([np.zeros((16, 16), np.uint8)] * n)
    estimate_background(frames, masks)
    read = sorted(set(frames.read))
    assert len(read) <= most and read[0] == 0
    assert n - read[-1] <= max(np.diff(read))  # to the end
    assert sorted(set(masks.read)) == read
    assert len(frames.read) <= len(read) + 1  # not decoded twice


def test_no_frames():
    with pytest.raises(ValueError, match="frames: expected at least one, got none; decode the video first"):
        estimate_background([], [])
