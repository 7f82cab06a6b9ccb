"""Pictures of a live portrait."""

import threading
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.portrait.records import FrameInputs, RenderOutput
from ernerf_ti.portrait.render.frame_renderer import FrameRenderer
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.images import quantized, transparent_image

_RENDERING = threading.Lock()
"""Kernels are launched by one thread of a process at a time."""
Background = Tensor | None
"""[H, W, 3] in [0, 1] on the portrait's device; None for transparent."""


@dataclass(frozen=True, eq=False)
class LiveInputs:
    """What a picture shows."""

    windows: np.ndarray
    """[8, C, 16] float32 audio features."""
    eye_closure: float
    pose: Tensor
    """[4, 4] pose_world_from_camera in the scene."""
    place: float
    """Of the pose among the capture's frames."""


class PictureMaker(Protocol):
    """What makes the pictures of a portrait, for all of its sessions, in any thread."""

    size: tuple[int, int]
    """Width, height."""

    def picture(self, inputs: LiveInputs, background: Background, scale: float) -> np.ndarray:
        """A picture, rendered with its sides scaled and enlarged again.

        Returns:
            [H, W, 3] uint8 RGB, or [H, W, 4] with straight alpha without a background.
        """
        ...


class PortraitPictures:
    """Pictures of a trained portrait."""

    def __init__(self, trained: TrainedPortrait):
        self._trained, self.size = trained, trained.size
        self._cameras: dict[float, TrainedPortrait] = {}
        self._renderers: dict[float, FrameRenderer] = {}

    @torch.no_grad()
    def picture(self, inputs: LiveInputs, background: Background, scale: float) -> np.ndarray:
        """See :class:`PictureMaker`."""
        trained = self._trained
        device = trained.background.device
        with _RENDERING:
            of_frame = FrameInputs(
                torch.from_numpy(inputs.windows).to(device),
                torch.tensor([inputs.eye_closure], dtype=torch.float32, device=device),
                trained.appearance_index,
                inputs.pose,
                trained.torso_appearances(inputs.pose[None], np.array([inputs.place]))[0],
            )
            behind = background if scale == 1 else None
            output = self._rendered(of_frame, behind, scale)
            if background is not None and scale == 1:
                return quantized(output.rgb).cpu().numpy()
            if scale == 1:
                return transparent_image(output).cpu().numpy()
            premultiplied = torch.cat((output.rgb, output.opacity[..., None]), -1).cpu().numpy()
        large = cv2.resize(premultiplied, self.size, interpolation=cv2.INTER_LINEAR)
        color, alpha = large[..., :3], large[..., 3:].clip(0, 1)
        if background is None:
            color = np.concatenate((color / np.maximum(alpha, 1e-3), alpha), 2)
        else:
            color = color + (1 - alpha) * background.cpu().numpy()
        return (color.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def _rendered(self, of_frame: FrameInputs, behind: Background, scale: float) -> RenderOutput:
        camera = self._camera(scale)
        if camera.baked is not None:
            return camera.render(of_frame, behind, with_attention=False)
        if scale not in self._renderers:  # a portrait keeps the renderer of one camera
            device = camera.background.device
            self._renderers[scale] = FrameRenderer(camera.portrait, camera.intrinsics, camera.size, device)
        renderer = self._renderers[scale]
        return renderer.submit(of_frame, behind, in_passes=camera.as_published, with_attention=False).result()

    def _camera(self, scale: float) -> TrainedPortrait:
        """The portrait with a camera of other size."""
        if scale not in self._cameras:
            trained = self._trained
            width, height = (max(2, round(scale * side)) for side in trained.size)
            factors = (width / trained.size[0], height / trained.size[1]) * 2
            fx, fy, cx, cy = (value * factor for value, factor in zip(trained.intrinsics, factors, strict=True))
            self._cameras[scale] = replace(trained, intrinsics=(fx, fy, cx, cy), size=(width, height))
        return self._cameras[scale]
