import numpy as np
import pytest

from ernerf_ti.evaluation.lags import MAX_LAG, lag_correlations, lag_interval, lag_of, local_lags, slope, slope_interval
from tests.evaluation.conftest import smooth_noise


def motion(n, seed=0):
    return smooth_noise(n, 6, np.random.default_rng(seed))[:, None]


@pytest.mark.parametrize("lag", [-MAX_LAG, -3, 0, 2, MAX_LAG])
def test_lag_of_a_shifted_motion(lag):
    both = motion(200)
    start = 20
    earlier, later = both[start : start + 150], both[start - lag : start - lag + 150]
    correlations = lag_correlations(later, earlier)
    assert correlations[MAX_LAG + lag] == pytest.approx(1)
    assert lag_of(correlations) == pytest.approx(lag, abs=0.2)


def test_lag_between_frames():
    x = np.arange(200) / 7.0
    earlier, later = np.sin(x)[:, None], np.sin(x - 0.5 / 7)[:, None]
    assert lag_of(lag_correlations(later, earlier)) == pytest.approx(0.5, abs=0.05)


def test_coordinates_count_by_their_size():
    still = 1e-3 * motion(100, 1)
    earlier, later = np.hstack((motion(100), still)), np.hstack((motion(100), still[::-1]))
    assert lag_correlations(later, earlier)[MAX_LAG] == pytest.approx(1, abs=1e-4)
    assert (lag_correlations(np.ones((100, 2)), earlier) == 0).all()


def test_interval_contains_the_lag():
    both = motion(204)
    noisy = both[:-4] + 0.5 * motion(200, 3)
    low, high = lag_interval(noisy, both[4:], 25, 0)
    assert low <= 4 <= high and high - low < 2


def test_drift_of_time():
    n = 1500
    x = np.linspace(0, 60, n)
    known = np.arange(n)
    signal = motion(n + 20)[:, 0]
    # From 0 to 4 frames late within a minute.
    later = np.interp(known - 4 * known / n, np.arange(n), signal[:n])[:, None]
    minutes, lags = local_lags(later, signal[:n, None])
    assert x[-1] / 60 > minutes[-1] > 0.9
    assert slope(minutes, lags) == pytest.approx(4, abs=0.5)
    low, high = slope_interval(minutes, lags, 0)
    assert 2 < low <= 4.5 and 3.5 <= high < 6


def test_slope_needs_points_and_ignores_a_wrong_one():
    assert np.isnan(slope(np.arange(5.0), np.arange(5.0)))
    y = 2 * np.arange(9.0)
    y[4] = 100
    assert slope(np.arange(9.0), y) == pytest.approx(2)
    assert slope(np.zeros(9), y) == 0


def test_unlike_motions_have_no_local_lags():
    minutes, lags = local_lags(motion(300), motion(300, 5))
    assert len(minutes) == len(lags) < 3
