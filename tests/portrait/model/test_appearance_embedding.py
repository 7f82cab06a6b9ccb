import math

import pytest
import torch

from ernerf_ti.portrait.model.appearance_embedding import AppearanceEmbedding


def test_no_smoothing_by_default():
    module = AppearanceEmbedding(5, 3)
    assert torch.equal(module(2), module.embeddings[2]) and torch.equal(module.of_all_frames(), module.embeddings)
    torch.testing.assert_close(module(None), module.embeddings.mean(0))


@pytest.mark.parametrize("n", [1, 2, 9])
def test_smoothing_is_a_weighted_mean_of_neighbors(n):
    module = AppearanceEmbedding(n, 3, smoothing=5)
    for i in range(n):
        near = [j for j in range(i - 2, i + 3) if 0 <= j < n]
        weights = [0.5 + 0.5 * math.cos(math.pi * (j - i) / 3) for j in near]
        expected = sum(w * module.embeddings[j] for w, j in zip(weights, near, strict=True)) / sum(weights)
        torch.testing.assert_close(module(i), expected)
        torch.testing.assert_close(module.of_all_frames()[i], expected)


def test_a_frame_teaches_its_neighbors():
    module = AppearanceEmbedding(9, 2, smoothing=5)
    module(4).sum().backward()
    assert (module.embeddings.grad[:, 0] > 0).tolist() == [False, False, True, True, True, True, True, False, False]


def test_smoothing_is_checked():
    with pytest.raises(ValueError, match="appearance_smoothing: expected an odd number, got 4"):
        AppearanceEmbedding(5, 3, smoothing=4)


def test_smoothing_is_not_in_the_file():
    assert list(AppearanceEmbedding(5, 3, smoothing=5).state_dict()) == ["embeddings"]
