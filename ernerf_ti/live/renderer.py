"""Pictures of a live portrait."""

import threading
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.bake.prepared_pose import PreparedPose
from ernerf_ti.live.quality import SCALES, SCALES_OF_KNOWN_POSES
from ernerf_ti.portrait.records import FrameInputs
from ernerf_ti.portrait.render.frame_renderer import FrameRenderer
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.images import over_background, quantized, with_straight_alpha

_RENDERING = threading.Lock()
"""Renderers keep memory that one thread at a time may use. Pictures from known poses need none of it."""
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


POSE_MEMORY = 2**31
"""Bytes for poses of a portrait that are rendered again and again."""
_MARGIN = 0.9  # of that memory: some poses show more that moves than others


class PictureMaker(Protocol):
    """What makes the pictures of a portrait, for all of its sessions, in any thread."""

    size: tuple[int, int]
    """Width, height."""
    scales: tuple[float, ...]
    """Resolutions to choose from, the sides relative to the full size, from 1 down."""

    def picture(self, inputs: LiveInputs, background: Background, scale: float) -> np.ndarray:
        """A picture, or what moves in it, rendered with fewer pixels.

        Args:
            scale: square root of how many of them are rendered, one of `scales`.

        Returns:
            [H, W, 3] uint8 RGB, or [H, W, 4] with straight alpha without a background.
        """
        ...


class PortraitPictures:
    """Pictures of a trained portrait.

    A baked portrait on the CPU keeps what it shows from each pose whatever is said, and what the networks make of it
    before they hear anything, so that the next picture from this pose takes a fifth of the time. There a lower
    resolution only blurs what moves, and pictures for several sessions are rendered at the same time.

    Args:
        trained: the portrait.
        pose_memory: bytes for what is kept; poses that find no room are rendered anew each time.
    """

    def __init__(self, trained: TrainedPortrait, pose_memory: int = POSE_MEMORY):
        self._trained, self.size = trained, trained.size
        self.scales: tuple[float, ...] = SCALES_OF_KNOWN_POSES if self.keeps_poses else SCALES
        self._cameras = {1.0: trained}
        self._renderers: dict[float, FrameRenderer] = {}
        self._prepared: dict[tuple[float, bytes], PreparedPose] = {}
        """By place and pose."""
        self._room = self._pose_memory = pose_memory

    @property
    def keeps_poses(self) -> bool:
        """Whether a pose that is rendered again takes less time."""
        return self._trained.baked_renderer is not None

    def capacity(self, pose: Tensor, place: float) -> int:
        """About how many poses find room in all, if each takes as much as this one; see :meth:`prepare`."""
        self.prepare(pose, place)
        n_bytes = sum(prepared.n_bytes for (at, _), prepared in self._prepared.items() if at == place)
        return int(_MARGIN * self._pose_memory / max(1, n_bytes))

    def prepare(self, pose: Tensor, place: float) -> bool:
        """Keep what a pose shows whatever is said; arguments as of :class:`LiveInputs`.

        Returns:
            Whether there is room for more: False for a portrait that keeps no poses.
        """
        self._prepared_pose(self._of_frame(torch.zeros(0), 0.0, pose), place)
        return self.keeps_poses and self._room > 0

    @torch.no_grad()
    def picture(self, inputs: LiveInputs, background: Background, scale: float) -> np.ndarray:
        """See :class:`PictureMaker`."""
        of_frame = self._of_frame(torch.from_numpy(inputs.windows), inputs.eye_closure, inputs.pose)
        prepared = self._prepared_pose(of_frame, inputs.place)
        if prepared is not None:
            renderer, level = self._trained.baked_renderer, self.scales.index(scale)
            assert renderer is not None
            if background is not None:
                return renderer.show_prepared(prepared, of_frame, background, level).numpy()
            return with_straight_alpha(*renderer.render_prepared(prepared, of_frame, None, level)).numpy()
        with _RENDERING:
            behind = background if scale == 1 else None
            rgb, opacity = self._rendered(self._with_torso(of_frame, inputs.place), behind, scale)
            if scale < 1:
                layer = self._enlarged(rgb, opacity)
                if background is not None:
                    return over_background(layer, background).cpu().numpy()
                rgb, opacity = layer[..., :3] / 255, layer[..., 3] / 255
            elif background is not None:
                return quantized(rgb).cpu().numpy()
            return with_straight_alpha(rgb, opacity).cpu().numpy()

    def _enlarged(self, rgb: Tensor, opacity: Tensor) -> Tensor:
        """Premultiplied color and opacity of a smaller picture -> [H, W, 4] uint8 at full size."""
        small = quantized(torch.cat((rgb, opacity[..., None]), -1)).cpu().numpy()
        large = cv2.resize(small, self.size, interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(large).to(rgb.device)

    def _of_frame(self, windows: Tensor, eye_closure: float, pose: Tensor) -> FrameInputs:
        """Without the appearance of the torso, which known poses do not need."""
        device = self._trained.background.device
        closure = torch.tensor([eye_closure], dtype=torch.float32, device=device)
        return FrameInputs(windows.to(device), closure, self._trained.appearance_index, pose)

    def _with_torso(self, of_frame: FrameInputs, place: float) -> FrameInputs:
        appearances = self._trained.torso_appearances(of_frame.head_pose[None], np.array([place]))
        return replace(of_frame, torso_appearance=appearances[0])

    def _rendered(self, of_frame: FrameInputs, behind: Background, scale: float) -> tuple[Tensor, Tensor]:
        """Color [H, W, 3] over what is behind, and opacity [H, W]."""
        camera = self._camera(scale)
        baked = camera.baked_renderer
        if baked is not None:
            output = baked.render(of_frame, behind, with_attention=False)
            return output.rgb, output.opacity
        if scale not in self._renderers:  # a portrait keeps the renderer of one camera
            device = camera.background.device
            self._renderers[scale] = FrameRenderer(camera.portrait, camera.intrinsics, camera.size, device)
        renderer = self._renderers[scale]
        output = renderer.submit(of_frame, behind, in_passes=camera.as_published, with_attention=False).result()
        return output.rgb, output.opacity

    @torch.no_grad()
    def _prepared_pose(self, of_frame: FrameInputs, place: float) -> PreparedPose | None:
        """What is kept of the pose, None without room."""
        renderer = self._trained.baked_renderer
        key = place, of_frame.head_pose.numpy().tobytes() if renderer is not None else b""
        prepared = self._prepared.get(key)
        if prepared is None and renderer is not None and self._room > 0:
            with _RENDERING:
                if key in self._prepared:  # by another session meanwhile
                    return self._prepared[key]
                prepared = renderer.prepare(self._with_torso(of_frame, place))
                self._room -= prepared.n_bytes
                if self._room >= 0:
                    self._prepared[key] = prepared
        return prepared

    def _camera(self, scale: float) -> TrainedPortrait:
        """The portrait with a camera of other size."""
        if scale not in self._cameras:
            trained = self._trained
            width, height = (max(2, round(scale * side)) for side in trained.size)
            factors = (width / trained.size[0], height / trained.size[1]) * 2
            fx, fy, cx, cy = (value * factor for value, factor in zip(trained.intrinsics, factors, strict=True))
            self._cameras[scale] = replace(trained, intrinsics=(fx, fy, cx, cy), size=(width, height))
        return self._cameras[scale]
