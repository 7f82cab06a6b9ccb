import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernerf_ti.evaluation.statistics import (
    block_length,
    block_resamples,
    correlation,
    correlation_interval,
    mean_interval,
)
from tests.evaluation.conftest import smooth_noise


@pytest.mark.parametrize(
    ("times", "length"),
    [
        (np.arange(650), 25),  # one second
        (np.arange(0, 6500, 5), 5),  # every fifth frame
        (np.arange(0, 65000, 100), 1),  # 4 s apart
        (np.arange(40), 10),  # a quarter
        (np.arange(8), 2),
        (np.arange(7), None),
    ],
)
def test_block_is_a_second_or_a_quarter(times, length):
    assert block_length(times) == length


def test_blocks_consist_of_neighbors():
    resamples = block_resamples(100, 10, 0)
    assert resamples.shape == (1000, 100)
    assert (np.diff(resamples.reshape(1000, 10, 10)) % 100 == 1).all()
    assert abs(np.bincount(resamples.ravel(), minlength=100).mean() - 1000) < 1e-9


@settings(max_examples=30, deadline=None)
@given(n=st.integers(8, 200), block=st.integers(1, 50), seed=st.integers(0, 1000))
def test_resamples_are_indices_and_reproducible(n, block, seed):
    resamples = block_resamples(n, block, seed)
    assert resamples.shape == (1000, n)
    assert ((resamples >= 0) & (resamples < n)).all()
    np.testing.assert_array_equal(resamples, block_resamples(n, block, seed))


def test_interval_of_independent_values_is_the_normal_interval():
    values = np.random.default_rng(0).standard_normal(2000)
    low, high = mean_interval(values, np.arange(0, 2000 * 50, 50), 0)
    half = 1.96 * values.std() / 2000**0.5
    np.testing.assert_allclose((low, high), (values.mean() - half, values.mean() + half), atol=0.1 * half)


def test_interval_is_wider_for_correlated_neighbors():
    values = smooth_noise(1000, 12, np.random.default_rng(1))
    low, high = mean_interval(values, np.arange(1000), 0)
    shuffled = np.random.default_rng(2).permutation(values)
    shuffled_low, shuffled_high = mean_interval(shuffled, np.arange(1000), 0)
    assert high - low > 2 * (shuffled_high - shuffled_low)


def test_interval_needs_eight_frames():
    assert mean_interval(np.ones(7), np.arange(7), 0) is None
    assert mean_interval(np.ones(8), np.arange(8), 0) == (1.0, 1.0)


def test_correlation_interval_is_fishers():
    # arctanh r has a standard deviation of 1 / sqrt(n - 3).
    rng = np.random.default_rng(2)
    truth = rng.standard_normal((1000, 2))
    predicted = truth + rng.standard_normal((1000, 2))
    r = correlation(truth, predicted)
    np.testing.assert_allclose(r, [np.corrcoef(truth[:, k], predicted[:, k])[0, 1] for k in (0, 1)], atol=1e-12)
    np.testing.assert_allclose(correlation(truth, 5 - 2 * truth), -1)
    np.testing.assert_allclose(correlation(truth, np.full_like(truth, 0.1)), 0, atol=1e-12)  # constant
    low, high = correlation_interval(truth, predicted, 25, 0).T
    half = 1.96 / np.sqrt(997)
    np.testing.assert_allclose(low, np.tanh(np.arctanh(r) - half), atol=0.02)
    np.testing.assert_allclose(high, np.tanh(np.arctanh(r) + half), atol=0.02)
