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


def audio_contexts(windows: Tensor, silent_ends: bool = False) -> Tensor:
    """:func:`audio_context` of every frame: [T, steps, C] windows of a recording, T at least 1 -> [T, 8, C, steps].

    The contexts are views that overlap in memory, which holds each window once; that of a frame is contiguous.
    """
    n, steps, channels = windows.shape
    padded = windows.new_zeros(BEFORE + n + AFTER - 1, channels, steps)
    padded[BEFORE : BEFORE + n] = windows.transpose(1, 2)
    if not silent_ends:
        padded[:BEFORE] = windows[0].t()
        padded[BEFORE + n :] = windows[-1].t()
    return padded.unfold(0, BEFORE + AFTER, 1).movedim(-1, 1)
