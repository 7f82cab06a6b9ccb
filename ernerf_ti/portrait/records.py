"""What passes between data, model, renderer and losses: plain records of tensors."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class RayBatch:
    """N rays of one frame with what the losses compare them to."""

    rays_o: Tensor
    """[N, 3] origins in scene units."""
    rays_d: Tensor
    """[N, 3] unit directions."""
    pixel_coords: Tensor
    """[N, 2] in [-1, 1], vertical coordinate first; see :func:`ernerf_ti.portrait.camera.pixel_coords`."""
    target_rgb: Tensor
    """[N, 3] in [0, 1]."""
    background_rgb: Tensor
    """[N, 3] in [0, 1], what is seen where nothing is rendered."""
    face_mask: Tensor
    """[N] bool, inside the rectangle of the face landmarks."""


@dataclass
class FrameInputs:
    """What a frame says and does."""

    audio_window: Tensor
    """[8, C, steps] audio features around the 8 frames k-4 ... k+3."""
    eye_closure: Tensor | None
    """[1] in [0, 1]: 0 open, 1 closed; None for open."""
    appearance_index: int | None
    """Row of the frame's code: its place among the training frames. None for other frames, which get the mean of
    all codes; ER-NeRF gives them row 0."""
    head_pose: Tensor
    """[4, 4] pose_world_from_camera in the scene."""
    torso_appearance: Tensor | None = None
    """[K] identity code of the torso; None for that of appearance_index."""


@dataclass
class FieldOutput:
    """The head field at M samples."""

    sigmas: Tensor
    """[M] density per scene unit, >= 0."""
    rgbs: Tensor
    """[M, 3] color in [-0.001, 1.001]."""
    audio_attention: Tensor
    """[M] how strongly the point listens to the audio."""
    eye_attention: Tensor
    """[M] how strongly the point listens to the eyes."""
    uncertainty: Tensor | None
    """[M] learned scale of the error, >= 0; None where it was not asked for."""


@dataclass
class TorsoLayer:
    """The torso at K pixels."""

    alpha: Tensor
    """[K] in [-0.001, 1.001]."""
    rgb: Tensor
    """[K, 3] straight color in [-0.001, 1.001]."""
    offset: Tensor
    """[K, 2] how far the pixel's coordinates were moved before the look-up."""


@dataclass
class RenderOutput:
    """N rays, or the pixels of an image with [H, W] in place of [N]."""

    rgb: Tensor
    """[N, 3]: over the background, in [0, 1]; without one, color times alpha."""
    opacity: Tensor
    """[N] sum of the weights, in [0, 1]."""
    depth: Tensor
    """[N] weighted sum of the distances to the ends of the steps, scene units; not normalized."""
    audio_attention: Tensor
    """[N] plain sum over the visited samples."""
    eye_attention: Tensor
    """[N] plain sum over the visited samples."""
    uncertainty: Tensor | None
    """[N] weighted sum; None where it was not asked for."""
    n_samples: Tensor
    """[N] int32, samples at which the field was evaluated."""
