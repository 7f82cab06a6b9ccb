"""Records of tensors that data, model, renderer and losses exchange."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ernerf_ti.portrait.frame_index import FrameIndex


@dataclass
class RayBatch:
    """N rays of one frame with their training targets."""

    rays_o: Tensor
    """[N, 3] origins in scene units."""
    rays_d: Tensor
    """[N, 3] unit directions."""
    target_rgb: Tensor
    """[N, 3] in [0, 1]."""
    background_rgb: Tensor
    """[N, 3] in [0, 1], composited behind the rendered layer."""
    face_mask: Tensor
    """[N] bool, whether the pixel lies in the bounding box of the face landmarks."""


@dataclass
class FrameInputs:
    """Inputs of the fields for one frame: speech, eye closure, appearance and head pose."""

    audio_window: Tensor
    """[8, C, steps] audio features around the 8 frames k-4 ... k+3."""
    eye_closure: Tensor | None
    """[1] in [0, 1]: 0 open, 1 closed; None for open."""
    appearance_index: FrameIndex | None
    """Index of the frame's appearance embedding, which is its index among the training frames. None for other frames,
    which get the mean embedding; ER-NeRF gives them that of frame 0."""
    head_pose: Tensor
    """[4, 4] pose_world_from_camera in the scene."""
    torso_appearance: Tensor | None = None
    """[K] appearance embedding of the torso; None for that of appearance_index."""
    dials: Tensor | None = None
    """[D] expression dials in standard deviations of the capture, in the order of :attr:`HeadFieldConfig.dial_names`;
    None for a neutral face, which is 0 for all."""


@dataclass
class FieldOutput:
    """The head field at M samples."""

    sigmas: Tensor
    """[M] density per scene unit, >= 0."""
    rgbs: Tensor
    """[M, 3] color in [-0.001, 1.001]."""
    audio_attention: Tensor
    """[M] norm of the weights that region attention gives the audio."""
    eye_attention: Tensor
    """[M] weight that region attention gives the eye closure."""
    uncertainty: Tensor | None
    """[M] learned scale of the error, >= 0; None if it was not requested."""


@dataclass
class TorsoLayer:
    """The torso at K pixels."""

    alpha: Tensor
    """[K] in [-0.001, 1.001]."""
    rgb: Tensor
    """[K, 3] straight color in [-0.001, 1.001]."""
    offset: Tensor
    """[K, 2] deformation that was added to the pixel coordinates before the grid look-up."""


@dataclass
class RenderOutput:
    """N rays, or the pixels of an image with [H, W] in place of [N]."""

    rgb: Tensor
    """[N, 3] composited over the background, in [0, 1]; without one, color times opacity."""
    opacity: Tensor
    """[N] in [0, 1]: the sum of the samples' weights, and the torso behind them if there is one."""
    depth: Tensor
    """[N] weighted sum of the distances to the ends of the steps, scene units; not normalized."""
    audio_attention: Tensor | None
    """[N] plain sum over the visited samples; may be None if it was not requested."""
    eye_attention: Tensor | None
    """[N] plain sum over the visited samples; may be None if it was not requested."""
    uncertainty: Tensor | None
    """[N] weighted sum; None if it was not requested."""
    n_samples: Tensor
    """[N] int32, samples at which the field was evaluated."""
    head_opacity: Tensor | None = None
    """[N] in [0, 1], without the torso; None where only the head was rendered."""
    n_found: Tensor | None = None
    """[] int64, samples of all rays had there been room for them, where there was room for a fixed number; else
    None."""

    def map(self, function: Callable[[Tensor], Tensor]) -> "RenderOutput":
        """Apply a function to each tensor [N, ...]."""
        values = {name: getattr(self, name) for name in _OF_RAYS}
        mapped: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
        return replace(self, **mapped)

    def of_rays(self) -> list[Tensor]:
        """The tensors [N, ...], in the order in which :meth:`map` takes them."""
        return [value for name in _OF_RAYS if (value := getattr(self, name)) is not None]

    @staticmethod
    def concatenate(outputs: "list[RenderOutput]") -> "RenderOutput":
        """Join outputs of consecutive rays, at least one; several must have been rendered without a capacity."""
        if len(outputs) == 1:
            return outputs[0]
        columns = {name: [getattr(output, name) for output in outputs] for name in _OF_RAYS}
        joined: dict[str, Any] = {
            name: None if column[0] is None else torch.cat(column) for name, column in columns.items()
        }
        return RenderOutput(**joined)


_OF_RAYS = tuple(field.name for field in fields(RenderOutput) if field.name != "n_found")
