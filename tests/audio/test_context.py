"""The eight windows around a frame."""

import pytest
import torch

from ernerf_ti.audio.context import audio_context, audio_contexts

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


@pytest.mark.parametrize("silent_ends", [False, True])
@pytest.mark.parametrize("n", [1, 2, 12])
def test_contexts_of_all_frames_are_views(n, silent_ends):
    windows = torch.rand(n, 16, 3)
    contexts = audio_contexts(windows, silent_ends)
    assert contexts.shape == (n, 8, 3, 16)
    for k, context in enumerate(contexts):
        assert torch.equal(context, audio_context(windows, k, silent_ends)) and context.is_contiguous()
    assert contexts.untyped_storage().nbytes() == 4 * 16 * 3 * (n + 7)
