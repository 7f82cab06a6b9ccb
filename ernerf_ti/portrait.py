"""The portrait of a person: the fields of head and torso with what their pictures need."""

import torch
from torch import Tensor, nn

from ernerf_ti.batch import Conditioning, RenderOutput
from ernerf_ti.config import PortraitConfig
from ernerf_ti.model.head_field import HeadField
from ernerf_ti.model.pose_codes import PoseCodes
from ernerf_ti.model.torso_field import TorsoField
from ernerf_ti.render.occupancy_grid import OccupancyGrid
from ernerf_ti.render.portrait import render_portrait
from ernerf_ti.render.torso_grid import TorsoGrid


class Portrait(nn.Module):
    """Fields and occupancy grids of one person.

    Args:
        config: their shape.
        feature_dimension: of the audio features.
        n_identities: codes, one per training frame.
    """

    def __init__(self, config: PortraitConfig, feature_dimension: int, n_identities: int):
        super().__init__()
        self.config = config
        self.head = HeadField(config.head, feature_dimension, n_identities)
        self.torso = TorsoField(config.torso, n_identities)
        self.head_grid = OccupancyGrid(config.head_grid)
        self.torso_grid = TorsoGrid(config.torso_grid)

    def expected_torso_codes(self, poses: Tensor) -> PoseCodes:
        """From head poses to the torso's codes that they let expect.

        Args:
            poses: [n, 4, 4] of the training frames, scene.
        """
        return PoseCodes(poses, self.torso.identity_codes.of_all_frames())

    @torch.no_grad()
    def render(
        self,
        conditioning: Conditioning,
        intrinsics: tuple[float, float, float, float],
        size: tuple[int, int],
        background: Tensor | None = None,
        with_torso: bool = True,
        audio_code: Tensor | None = None,
        in_rounds: bool = False,
    ) -> RenderOutput:
        """A whole picture; arguments as :func:`ernerf_ti.render.portrait.render_portrait`.

        Args:
            conditioning: the frame.
            with_torso: else the head alone is rendered over the background.
            audio_code: [A] in place of the encoded audio window.
            in_rounds: sample as the public code does.
        """
        head = self.head.bind(conditioning, with_uncertainty=False, audio_code=audio_code)
        pose, identity = conditioning.head_pose, conditioning.torso_code
        identity = conditioning.identity_index if identity is None else identity

        def torso(pixel_coords: Tensor):
            return self.torso(pixel_coords, pose, identity)

        layers = {"torso": torso, "torso_grid": self.torso_grid} if with_torso else {}
        return render_portrait(
            head, self.head_grid, pose, intrinsics, size, self.config.march, background, **layers, in_rounds=in_rounds
        )
