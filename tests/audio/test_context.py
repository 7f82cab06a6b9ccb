"""The eight windows around a frame."""

import pytest
import torch

from ernerf_ti.audio.context import audio_context

WINDOWS = torch.arange(1.0, 13.0)[:, None, None].expand(12, 16, 3)  # window k holds k + 1


def heard(k: int, **options) -> list[int]:
    context = audio_context(WINDOWS, k, **options)
    assert context.shape == (8, 3, 16) and context.is_contiguous()
    return context[:, 0, 0].int().tolist()


@pytest.mark.parametrize("silent_ends", [False, True])
def test_inside_a_recording(silent_ends):
    assert heard(5, silent_ends=silent_ends) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_beyond_the_ends():
    assert heard(1) == [1, 1, 1, 1, 2, 3, 4, 5]
    assert heard(11) == [8, 9, 10, 11, 12, 12, 12, 12]
    assert heard(1, silent_ends=True) == [0, 0, 0, 1, 2, 3, 4, 5]
    assert heard(11, silent_ends=True) == [8, 9, 10, 11, 12, 0, 0, 0]
    assert heard(13, silent_ends=True) == [10, 11, 12, 0, 0, 0, 0, 0]


def test_fewer_windows_than_eight():
    assert audio_context(WINDOWS[:2], 0, silent_ends=True)[:, 0, 0].int().tolist() == [0, 0, 0, 0, 1, 2, 0, 0]
