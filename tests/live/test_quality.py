"""The resolution that follows how long pictures take: budgets of 40 ms a picture."""

import itertools

import pytest

from ernerf_ti.live.quality import Quality


def take(quality, *times):
    for time in times:
        quality.add(time)
    return quality.scale


def run(quality, times, n, load=1.0):
    """The resolutions of n pictures that take what a dictionary says of each resolution, times a load."""
    scales = []
    for _ in range(n):
        scales.append(quality.scale)
        quality.add(load * times[quality.scale])
    return scales


def test_a_picture_that_takes_long_now_and_then_changes_nothing():
    quality = Quality(0.04)
    assert all(take(quality, *[0.03] * 6, 0.2, 0.1) == 1 for _ in range(20))
    assert quality.n_late == 0


def test_three_of_five_that_take_too_long_lower_the_resolution():
    quality = Quality(0.04)
    assert take(quality, 0.03, 0.06, 0.03, 0.06) == 1
    assert take(quality, 0.06) == 0.75
    assert take(quality, 0.2, 0.03, 0.03, 0.03) == 0.75  # the first one makes what later ones use
    assert take(quality, 0.06, 0.06) == 0.75
    assert take(quality, 0.06) == 0.5
    assert take(quality, *[0.1] * 200) == 0.5
    assert quality.n_late == 2


def test_pictures_that_are_late():
    quality = Quality(0.04)
    assert quality.n_late == 0
    quality.add(0.05)
    assert quality.n_late == 1
    take(quality, *[1.0] * 20)
    assert quality.n_late == 3


@pytest.mark.parametrize(("full", "lower", "rises"), [(0.024, 0.0185, True), (0.036, 0.0185, False)])
def test_resolution_rises_if_larger_pictures_are_short_enough(full, lower, rises):
    """How much shorter the small ones were tells it; by the number of their pixels, larger ones would take too long in
    both cases."""
    quality, times = Quality(0.04), {1.0: full, 0.75: lower}
    run(quality, times, 40, load=1.6)
    assert quality.scale == 0.75
    run(quality, times, 100)
    assert (quality.scale == 1) == rises


def test_a_resolution_that_fails_is_tried_less_and_less_often():
    scales = run(Quality(0.04), {1.0: 0.05, 0.75: 0.014, 0.5: 0.01}, 3000)
    tries = [k for k, (a, b) in enumerate(itertools.pairwise(scales)) if b > a]
    assert 4 <= len(tries) <= 7
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert all(later > 1.8 * earlier for earlier, later in itertools.pairwise(gaps))
    assert scales.count(1.0) < 60


def test_resolutions_of_a_picture_maker():
    quality = Quality(0.04, (1.0, 0.5))
    assert take(quality, *[0.05] * 3) == 0.5
    assert take(quality, *[0.01] * 5) == 0.5
    run(quality, {1.0: 0.02, 0.5: 0.006}, 60)
    assert quality.scale == 1
