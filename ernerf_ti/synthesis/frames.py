"""Render the frames of a talking portrait, several in flight."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import audio_context_at, audio_contexts
from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.frame_renderer import PendingFrame
from ernerf_ti.portrait.render.static_shapes import static_shapes
from ernerf_ti.process.prefetch import in_flight
from ernerf_ti.run.trained_portrait import TrainedPortrait


def frames_in_flight(device: torch.device) -> int:
    """Number of frames that are submitted before the first of them is fetched.

    On CUDA three: while the host waits for the first, the device has two more to work on. Without fixed shapes a frame
    is rendered when it is submitted.
    """
    return 3 if static_shapes(device) else 1


def render_frames(
    trained: TrainedPortrait,
    windows: Tensor,
    poses: Tensor,
    eye_closures: np.ndarray,
    background: Tensor | Callable[[int], Tensor] | None,
    with_torso: bool = True,
    capture_indices: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    with_attention: bool = False,
    only: Sequence[int] | None = None,
    dials: Tensor | None = None,
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
        capture_indices: [T] indices of the capture's frames whose torso is followed, as of
            :meth:`TrainedPortrait.torso_appearances`; None to predict the torso's appearance from the pose.
        positions: [T] places of the frames among the windows, of which there may then be any number; None for window k
            at frame k.
        with_attention: render the attention too.
        only: indices of the frames to render; None for all.
        dials: expression dials of all frames, as of :meth:`TrainedPortrait.dials`.

    Yields:
        RenderOutput with [H, W] in place of [N], on the portrait's device.
    """

    def submitted() -> Iterator[PendingFrame]:
        n = len(windows) if positions is None else len(positions)
        wanted = range(n) if only is None else only
        inputs = frame_inputs(
            trained, windows, poses, eye_closures, with_torso, capture_indices, positions, wanted, dials
        )
        for k, of_frame in zip(wanted, inputs, strict=True):
            behind = background(k) if callable(background) else background
            yield trained.submit(of_frame, behind, with_torso, with_attention)

    for pending in in_flight(submitted(), frames_in_flight(trained.background.device)):
        yield pending.result()


@torch.no_grad()
def frame_inputs(
    trained: TrainedPortrait,
    windows: Tensor,
    poses: Tensor,
    eye_closures: np.ndarray,
    with_torso: bool = True,
    capture_indices: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    only: Sequence[int] | None = None,
    dials: Tensor | None = None,
) -> Iterator[FrameInputs]:
    """Inputs of the frames; arguments as of :func:`render_frames`.

    They are made for the whole speech at once. Those of a frame are views into them: nothing is copied to the device
    and no kernel is launched for them, except for the windows of frames at other positions than theirs. The audio
    windows take T x steps x C x 4 bytes there, 1 GB for 10 minutes of HuBERT features.
    """
    device = trained.background.device
    windows = windows.to(device)
    n = len(windows) if positions is None else len(positions)
    contexts = None if positions is not None else audio_contexts(windows, silent_ends=trained.as_published)
    closures = torch.from_numpy(np.array(eye_closures[:n], np.float32)).to(device)
    poses = poses[:n].to(device)
    appearances = None
    if with_torso:
        appearances = trained.torso_appearances(poses, None if capture_indices is None else capture_indices[:n])
    for k in range(n) if only is None else only:
        appearance = None if appearances is None else appearances[k]
        if contexts is not None:
            context = contexts[k]
        else:
            assert positions is not None
            context = audio_context_at(windows, float(positions[k]), trained.as_published)
        yield FrameInputs(context, closures[k : k + 1], None, poses[k], appearance, dials)
