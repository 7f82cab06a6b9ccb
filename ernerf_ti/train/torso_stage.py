"""The stage that trains the torso [ER-NeRF, Li et al. 2023, section 3.4]."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.frame_index import FrameIndex
from ernerf_ti.portrait.records import TorsoLayer
from ernerf_ti.portrait.render.torso import render_torso
from ernerf_ti.train import losses
from ernerf_ti.train.pixel_sampling import random_pixels
from ernerf_ti.train.stage import Stage, StepLoss, StepStatistics
from ernerf_ti.train.training_frames import TrainingFrame


class TorsoStage(Stage):
    """Trains the torso on random pixels of its own layer; the head is not rendered."""

    name = "torso"
    torso_only = True

    def parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.portrait.named_parameters() if name.startswith("torso.")}

    def loss(self, frame: TrainingFrame, kind: str, progress: float | Tensor, generator: torch.Generator) -> StepLoss:
        pixels = random_pixels(self.settings.n_rays, self.frames.n_pixels, generator)
        batch = self.frames.torso(frame, pixels, self._random_colors(len(pixels), generator))
        own = self.ranks.part(len(pixels))
        rgb, _ = render_torso(
            self._field(frame.index), self.portrait.torso_grid, batch.pixel_coords[own], batch.background_rgb[own]
        )
        (rgb,) = self.ranks.join(len(pixels), [rgb])
        mse = (rgb - batch.target_rgb).square().mean()
        anchors = self.ranks.once(losses.anchor_deviation(self.portrait.torso.anchors))
        terms = {"color": mse, "anchors": anchors}
        return StepLoss(terms, StepStatistics(mse.detach(), len(pixels), 0))

    def render_held_out(self, frame: int) -> tuple[Tensor, Tensor]:
        """The whole portrait over the background; the target is the whole frame."""
        size = (self.held_out.width, self.held_out.height)
        inputs = self.held_out.inputs(frame, trained=False)
        appearance = self.portrait.predicted_torso_appearance(self.frames.poses.to(self.frames.device))
        inputs.torso_appearance = appearance(inputs.head_pose[None])[0]
        background = self.held_out.background.view(size[1], size[0], 3)
        intrinsics = tuple(self.held_out.capture.intrinsics)
        output = self.portrait.render(inputs, intrinsics, size, background, with_attention=False)
        return output.rgb, self.held_out.images(frame).image

    def _update_grid(self, frame: int, noise: torch.Generator, all_cells: bool) -> None:
        field = self._field(frame)
        self.portrait.torso_grid.update(lambda pixel_coords: field(pixel_coords).alpha, noise)

    def _field(self, frame: FrameIndex) -> Callable[[Tensor], TorsoLayer]:
        pose = self.frames.pose(frame)
        return partial(self.portrait.torso, head_pose=pose, appearance=frame, call=self.call)
