"""The audio windows around a frame, as the audio encoder takes them."""

import torch
from torch import Tensor

BEFORE, AFTER = 4, 4
"""Windows k - 4 ... k + 3 around frame k."""


def audio_context(windows: Tensor, k: int, silent_ends: bool = False) -> Tensor:
    """[T, steps, C] windows of a recording -> [8, C, steps] around frame k.

    The neighbors come from the whole recording, not only from the frames of a split: what is said just
    before is known there too. Beyond its ends the first and the last window are repeated: ER-NeRF's zeros
    are like no sound, and a portrait falls apart on what it has never heard.

    Args:
        windows: of the recording.
        k: frame.
        silent_ends: zeros beyond the ends, as a portrait that ER-NeRF trained has heard them.
    """
    wanted = torch.arange(k - BEFORE, k + AFTER)
    context = windows[wanted.clamp(0, len(windows) - 1)].transpose(1, 2)
    if silent_ends:
        is_there = (wanted >= 0) & (wanted < len(windows))
        context = context * is_there[:, None, None].to(context)
    return context.contiguous()
