"""The portrait of a person: fields and occupancy grids of head and torso."""

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.config import PortraitConfig
from ernerf_ti.portrait.frame_index import FrameIndex
from ernerf_ti.portrait.model.calls import Call, call_plainly
from ernerf_ti.portrait.model.head_field import HeadField
from ernerf_ti.portrait.model.pose_regression import PoseRegression
from ernerf_ti.portrait.model.torso_field import TorsoField
from ernerf_ti.portrait.records import FrameInputs, RenderOutput, TorsoLayer
from ernerf_ti.portrait.render.frame import ImagePixels, render_portrait
from ernerf_ti.portrait.render.frame_renderer import FrameRenderer
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.portrait.render.sample_capacity import SampleCapacity
from ernerf_ti.portrait.render.static_shapes import static_shapes
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
_SAMPLES_PER_RAY = 2  # of images, expected before any was rendered


class Portrait(nn.Module):
    """Fields and occupancy grids of one person.

    Args:
        config: their shape.
        feature_dimension: channels of the audio features.
        n_embeddings: number of appearance embeddings, one per training frame.

    The constructor launches no kernel: Taichi starts on the device of the first launch.
    """

    def __init__(self, config: PortraitConfig, feature_dimension: int, n_embeddings: int):
        super().__init__()
        self.config = config
        self.head = HeadField(config.head, feature_dimension, n_embeddings)
        self.torso = TorsoField(config.torso, n_embeddings)
        self.head_grid = OccupancyGrid(config.head_grid)
        self.torso_grid = TorsoGrid(config.torso_grid)
        self.call: Call = call_plainly
        """Calls the networks of the fields when images are rendered; see :mod:`ernerf_ti.portrait.model.calls`."""
        self._renderer: FrameRenderer | None = None
        self._capacities: dict[int, SampleCapacity] = {}

    @property
    def precision(self) -> torch.dtype:
        """Of the networks of head and torso; see :meth:`set_precision`."""
        return self.head.precision

    def set_precision(self, precision: torch.dtype) -> None:
        """Evaluate the networks in another floating-point format from now on.

        The weights stay float32, and the precision is not part of the state. Positions, distances, tables, densities,
        compositing and losses are float32 in any case.

        Args:
            precision: torch.float32, torch.bfloat16 or torch.float16.

        Raises ValueError for another dtype.
        """
        if precision not in _PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(map(str, _PRECISIONS))}, got {precision}")
        self.head.precision = self.torso.precision = precision

    def predicted_torso_appearance(self, poses: Tensor) -> PoseRegression:
        """Regression from head poses to appearance embeddings of the torso.

        Args:
            poses: [n, 4, 4] pose_world_from_camera of the training frames, scene.
        """
        return PoseRegression(poses, self.torso.appearance.of_all_frames())

    def renderer(self, intrinsics: tuple[float, float, float, float], size: tuple[int, int]) -> FrameRenderer:
        """The renderer of a camera, fx, fy, cx, cy and width, height in pixels; the last one is kept."""
        device = self.head_grid.bitfield.device
        if self._renderer is None or not self._renderer.renders(intrinsics, size, device):
            self._renderer = FrameRenderer(self, intrinsics, size, device)
        return self._renderer

    def sample_capacity(self, n_rays: int) -> SampleCapacity | None:
        """The capacity for the samples of images of n rays, where shapes are fixed; else None."""
        if not static_shapes(self.head_grid.bitfield.device):
            return None
        return self._capacities.setdefault(n_rays, SampleCapacity(_SAMPLES_PER_RAY * n_rays))

    @torch.no_grad()
    def image(
        self,
        audio_window: Tensor,
        eye_closure: Tensor | None,
        head_pose: Tensor,
        torso_appearance: Tensor | None,
        appearance_index: FrameIndex | None,
        background: Tensor | None,
        audio_code: Tensor | None,
        dials: Tensor | None = None,
        *,
        pixels: ImagePixels,
        with_torso: bool,
        in_passes: bool,
        capacity: int | None,
        precision: torch.dtype,
        with_attention: bool = True,
    ) -> RenderOutput:
        """Render an image from tensors alone, so that a CUDA graph can repeat all of it.

        Args:
            audio_window, eye_closure, head_pose, torso_appearance, appearance_index, dials: as of :class:`FrameInputs`.
            background, audio_code, with_torso, in_passes, with_attention: as of :meth:`FrameRenderer.submit`.
            pixels: those of the image.
            capacity: number of samples to make room for, or None.
            precision: that of the portrait, with which graphs are told apart.
        """
        inputs = FrameInputs(audio_window, eye_closure, appearance_index, head_pose, torso_appearance, dials)
        head = self.head.bind(inputs, False, audio_code, self.call, with_attention)
        appearance = appearance_index if torso_appearance is None else torso_appearance

        def torso(pixel_coords: Tensor) -> TorsoLayer:
            # Where shapes are fixed a graph records what is called, which may not ask whether tables have changed.
            for_image = not static_shapes(pixel_coords.device)
            return self.torso(pixel_coords, head_pose, appearance, self.call, for_image=for_image)

        return render_portrait(
            *(head, self.head_grid, head_pose, pixels, self.config.march, background),
            torso=torso if with_torso else None,
            torso_grid=self.torso_grid if with_torso else None,
            in_passes=in_passes,
            capacity=capacity,
        )

    def render(
        self,
        inputs: FrameInputs,
        intrinsics: tuple[float, float, float, float],
        size: tuple[int, int],
        background: Tensor | None = None,
        with_torso: bool = True,
        audio_code: Tensor | None = None,
        in_passes: bool = False,
        with_attention: bool = True,
    ) -> RenderOutput:
        """Render an image; other arguments and result as of :meth:`FrameRenderer.submit`.

        Args:
            intrinsics: fx, fy, cx, cy in pixels.
            size: width, height.
        """
        renderer = self.renderer(intrinsics, size)
        return renderer.submit(inputs, background, with_torso, audio_code, in_passes, with_attention).result()
