"""Frames of a trained portrait that speaks, one at a time."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import audio_context
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.run.trained_portrait import TrainedPortrait


def render_frames(
    trained: TrainedPortrait,
    windows: Tensor,
    poses: Tensor,
    eye_closures: np.ndarray,
    background: Tensor | Callable[[int], Tensor] | None,
    with_torso: bool = True,
    places: np.ndarray | None = None,
) -> Iterator[RenderOutput]:
    """Pictures of speech.

    Args:
        trained: who speaks.
        windows: [T, steps, C] audio windows, one per frame.
        poses: [T, 4, 4] of the head, scene.
        eye_closures: [T] closure of the eyes.
        background: [H, W, 3] in [0, 1], or what gives that of a frame; None for color times alpha, to lay over
            something.
        with_torso: else the head alone.
        places: [T] frames of the capture that the torso follows; None for torsos that the poses let expect.

    Yields:
        RenderOutput of [H, W] for each frame.
    """
    device = trained.background.device
    for k in range(len(windows)):
        conditioning = FrameInputs(
            audio_context(windows, k, silent_ends=trained.as_published).to(device),
            torch.tensor([float(eye_closures[k])], device=device),
            None,
            poses[k].to(device),
            trained.torso_appearance(poses[k], None if places is None else int(places[k])) if with_torso else None,
        )
        behind = background(k) if callable(background) else background
        yield trained.render(conditioning, behind, with_torso)
