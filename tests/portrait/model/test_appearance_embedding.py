import math

import pytest
import torch

from ernerf_ti.portrait.model.appearance_embedding import AppearanceEmbedding


def test_own_codes_by_default():
    codes = AppearanceEmbedding(5, 3)
    assert torch.equal(codes(2), codes.embeddings[2]) and torch.equal(codes.of_all_frames(), codes.embeddings)
    torch.testing.assert_close(codes(None), codes.embeddings.mean(0))


@pytest.mark.parametrize("n", [1, 2, 9])
def test_smoothing_is_a_weighted_mean_of_neighbors(n):
    codes = AppearanceEmbedding(n, 3, smoothing=5)
    for i in range(n):
        near = [j for j in range(i - 2, i + 3) if 0 <= j < n]
        weights = [0.5 + 0.5 * math.cos(math.pi * (j - i) / 3) for j in near]
        expected = sum(w * codes.embeddings[j] for w, j in zip(weights, near, strict=True)) / sum(weights)
        torch.testing.assert_close(codes(i), expected)
        torch.testing.assert_close(codes.of_all_frames()[i], expected)


def test_a_frame_teaches_its_neighbors():
    codes = AppearanceEmbedding(9, 2, smoothing=5)
    codes(4).sum().backward()
    assert (codes.embeddings.grad[:, 0] > 0).tolist() == [False, False, True, True, True, True, True, False, False]


def test_smoothing_is_checked():
    with pytest.raises(ValueError, match="appearance_smoothing: expected an odd number, got 4"):
        AppearanceEmbedding(5, 3, smoothing=4)


def test_smoothing_is_not_in_the_file():
    assert list(AppearanceEmbedding(5, 3, smoothing=5).state_dict()) == ["embeddings"]
