import numpy as np
import pytest

from ernerf_ti.audio.windows import audio_windows
from ernerf_ti.evaluation import ridge
from ernerf_ti.evaluation.ridge import blocks_in_time, fit_ridge, split_in_time
from ernerf_ti.evaluation.statistics import correlation
from tests.evaluation.conftest import talker


def found(train, test):
    return correlation(test[1], fit_ridge(*train)(test[0]))


def test_no_sound_is_in_both_parts():
    for n in (100, 101, 1779):
        fit_part, test_part = (np.arange(n)[part] for part in split_in_time(n))
        assert len(test_part) == n - int(0.8 * n)
        # Each step carries its number from 1; the padding carries 0.
        steps = audio_windows(np.arange(1, 2 * n + 1)[:, None], n)[..., 0]
        assert set(steps[fit_part].ravel()) & set(steps[test_part].ravel()) <= {0}
        assert len(fit_part) == int(0.8 * n) - 8


def test_blocks_in_time():
    blocks = blocks_in_time(103, 5)
    assert [i for _, block in blocks for i in range(103)[block]] == list(range(103))
    for fit_part, block in blocks:
        expected = [i for i in range(103) if not block.start - 8 <= i < block.stop + 8]
        assert fit_part.tolist() == expected


def test_ridge_finds_linear_dependence():
    r = found(talker(), talker(seed=1))
    assert r[0] > 0.9
    assert np.abs(r[1:]).max() < 0.35


def test_ridge_is_the_solution_of_the_normal_equations(monkeypatch):
    monkeypatch.setattr(ridge, "_PENALTIES", np.array([0.3]))
    windows, targets = talker(120)
    x = windows.astype(float)
    x = ((x - x.mean((0, 1))) / x.std((0, 1))).reshape(120, -1)
    weights = np.linalg.solve(x.T @ x + 0.3 * 120 * np.eye(x.shape[1]), x.T @ (targets - targets.mean(0)))
    np.testing.assert_allclose(fit_ridge(windows, targets)(windows), x @ weights + targets.mean(0), atol=1e-9)


def test_ridge_penalizes_noise_most(monkeypatch):
    chosen, ridges = [], ridge._ridges
    monkeypatch.setattr(ridge, "_ridges", lambda *a: chosen.append(a[2]) or ridges(*a))
    fit_ridge(*talker())
    (penalties,) = chosen[1]
    assert penalties.shape == (3,)
    assert penalties[2] >= 10 * penalties[0]


@pytest.mark.parametrize("size", [1e-6, 0.0])
def test_a_feature_that_was_constant_is_not_amplified(size):
    train, test = talker(), talker(seed=1)
    train[0][..., 4] = size * train[0][..., 3]
    assert found(train, test)[0] > 0.9
