"""Render the frames of a talking portrait, one at a time."""

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
    capture_indices: np.ndarray | None = None,
) -> Iterator[RenderOutput]:
    """Render speech.

    Args:
        trained: the portrait.
        windows: [T, steps, C] audio windows, one per frame.
        poses: [T, 4, 4] pose_world_from_camera in the scene.
        eye_closures: [T] in [0, 1], 0 open, 1 closed.
        background: [H, W, 3] in [0, 1], or a function from the frame's index to that; None for premultiplied color
            without a background.
        with_torso: whether to render the torso too.
        capture_indices: [T] indices of the capture's frames whose torso is followed; None to predict the torso's
            appearance from the pose.

    Yields:
        RenderOutput with [H, W] in place of [N], on the portrait's device.
    """
    device = trained.background.device
    for k in range(len(windows)):
        index = None if capture_indices is None else int(capture_indices[k])
        inputs = FrameInputs(
            audio_context(windows, k, silent_ends=trained.as_published).to(device),
            torch.tensor([float(eye_closures[k])], device=device),
            None,
            poses[k].to(device),
            trained.torso_appearance(poses[k], index) if with_torso else None,
        )
        yield trained.render(inputs, background(k) if callable(background) else background, with_torso)
