"""The input of the audio encoder: the audio windows around a frame."""

import math

import torch
from torch import Tensor

from ernerf_ti.audio.windows import STEPS_PER_FRAME

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


def audio_context_at(windows: Tensor, position: float, silent_ends: bool = False) -> Tensor:
    """:func:`audio_context` at any time: the windows that the features would give there.

    Window k + 1 has the features of window k, two steps later. In between, features are interpolated linearly between
    steps, which are 20 ms apart; the windows themselves are 40 ms apart.

    Args:
        windows: [T, steps, C] of a recording.
        position: in windows; at a whole number k the result is that of frame k.
        silent_ends: as of :func:`audio_context`.

    Returns:
        [8, C, steps].
    """
    k = math.floor(position)
    shift = (position - k) * STEPS_PER_FRAME
    context = audio_context(windows, k, silent_ends)
    if not shift:
        return context
    steps = windows.shape[1]
    following = audio_context(windows, k + 1, silent_ends)[..., -STEPS_PER_FRAME:]
    longer = torch.cat((context, following), -1)
    whole = math.floor(shift)
    return torch.lerp(longer[..., whole : whole + steps], longer[..., whole + 1 : whole + 1 + steps], shift - whole)
