"""The input of the audio encoder: the audio windows around a frame."""

import torch
from torch import Tensor

BEFORE, AFTER = 4, 4
"""Windows k - 4 ... k + 3 around frame k."""


def audio_context(windows: Tensor, k: int, silent_ends: bool = False) -> Tensor:
    """[T, steps, C] windows of a recording -> [8, C, steps] around frame k.

    Neighbors come from the whole recording rather than only from the frames of a split. Beyond the ends of the
    recording the first and the last window are repeated: ER-NeRF pads with zeros, which resemble no sound, and a
    portrait renders badly on input unlike anything in its training data.

    Args:
        windows: of the recording.
        k: frame index.
        silent_ends: pad with zeros, for portraits that were trained by ER-NeRF.
    """
    indices = torch.arange(k - BEFORE, k + AFTER)
    context = windows[indices.clamp(0, len(windows) - 1)].transpose(1, 2)
    if silent_ends:
        inside = (indices >= 0) & (indices < len(windows))
        context = context * inside[:, None, None].to(context)
    return context.contiguous()
