"""The portrait of a person: fields and occupancy grids of head and torso."""

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.config import PortraitConfig
from ernerf_ti.portrait.model.head_field import HeadField
from ernerf_ti.portrait.model.pose_regression import PoseRegression
from ernerf_ti.portrait.model.torso_field import TorsoField
from ernerf_ti.portrait.records import FrameInputs, RenderOutput, TorsoLayer
from ernerf_ti.portrait.render.frame import render_portrait
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from ernerf_ti.portrait.render.torso_occupancy import TorsoGrid

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


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

    @torch.no_grad()
    def render(
        self,
        inputs: FrameInputs,
        intrinsics: tuple[float, float, float, float],
        size: tuple[int, int],
        background: Tensor | None = None,
        with_torso: bool = True,
        audio_code: Tensor | None = None,
        in_passes: bool = False,
    ) -> RenderOutput:
        """Render an image; arguments and result as of :func:`ernerf_ti.portrait.render.frame.render_portrait`.

        Args:
            inputs: the frame's inputs.
            with_torso: composite the head over the torso rather than over the background.
            audio_code: [A] replaces the encoded audio window.
            in_passes: sample as the public code does.
        """
        head = self.head.bind(inputs, with_uncertainty=False, audio_code=audio_code)
        pose = inputs.head_pose
        appearance = inputs.appearance_index if inputs.torso_appearance is None else inputs.torso_appearance

        def torso(pixel_coords: Tensor) -> TorsoLayer:
            return self.torso(pixel_coords, pose, appearance)

        return render_portrait(
            head,
            self.head_grid,
            pose,
            intrinsics,
            size,
            self.config.march,
            background,
            torso if with_torso else None,
            self.torso_grid if with_torso else None,
            in_passes,
        )
