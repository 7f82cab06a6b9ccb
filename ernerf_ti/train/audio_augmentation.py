"""Variations of the audio features while training, so that the mouth does not follow what only this recording has.

A clip of minutes has few sounds, and a long training learns its frames by heart: the mouth in them gets sharper while
that of new speech moves less. Noise blurs what tells one recording of a sound from another. A random end of the known
features teaches the encoder to do with a short look-ahead, as live speech has it, and to rely on the sound that is
being heard.
"""

import torch
from torch import Tensor

from ernerf_ti.audio.context import AFTER, BEFORE
from ernerf_ti.audio.windows import STEPS_PER_FRAME, WINDOW

_N_FRAMES = BEFORE + AFTER
_N_STEPS = WINDOW + STEPS_PER_FRAME * (_N_FRAMES - 1)
_OF_FRAME = WINDOW // 2 + STEPS_PER_FRAME * BEFORE
"""The first step of the frame itself, in the steps of its context."""
_SHORTEST, _LONGEST = 4, _N_STEPS - _OF_FRAME - STEPS_PER_FRAME
"""Steps after the frame's that are known: 80 ms, 240 ms."""


def vary(context: Tensor, noise: float, cut_fraction: float, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to audio features, and hold the last known ones from a random time on.

    Args:
        context: [8, C, 16] windows around a frame, see :func:`ernerf_ti.audio.context.audio_context`.
        noise: standard deviation of Gaussian noise in units of `scale`; a step has the same noise in all windows.
        cut_fraction: how often the features end early: 80 to 220 ms after the frame, in steps of 20 ms.
        scale: [] deviation of the features.
        generator: draws the random numbers, on the context's device.

    Returns:
        [8, C, 16].
    """
    steps = torch.cat((context[0], context[1:, :, -STEPS_PER_FRAME:].transpose(0, 1).flatten(1)), 1)
    if cut_fraction:
        how_often, where = torch.rand(2, generator=generator, device=steps.device).unbind()
        known = torch.where(how_often < cut_fraction, _SHORTEST + where * (_LONGEST - _SHORTEST), _LONGEST).long()
        last = known + _OF_FRAME + STEPS_PER_FRAME - 1
        steps = steps.index_select(1, torch.arange(_N_STEPS, device=steps.device).minimum(last))
    if noise:
        steps = steps + noise * scale * torch.randn(steps.shape, generator=generator, device=steps.device)
    return steps.unfold(1, WINDOW, STEPS_PER_FRAME).transpose(0, 1).contiguous()
