"""Radiance field of the head: density and color of a point for one frame's inputs [ER-NeRF, section 3].

x = encode(position);  a, e = region_attention(x, audio, eye)
[log sigma, g] = density_net(x, a, e);  rgb = color_net(harmonics(direction), g, appearance)
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.portrait.config import HeadFieldConfig
from ernerf_ti.portrait.model import activations
from ernerf_ti.portrait.model.appearance_embedding import AppearanceEmbedding
from ernerf_ti.portrait.model.audio_encoder import AudioEncoder
from ernerf_ti.portrait.model.mlp import MLP, concatenate
from ernerf_ti.portrait.model.position_encoders import position_encoder
from ernerf_ti.portrait.model.region_attention import region_attention
from ernerf_ti.portrait.records import FieldOutput, FrameInputs


class HeadField(nn.Module):
    """Density, color, attention and uncertainty of points.

    Args:
        config: shape of the field.
        feature_dimension: C, of the audio features.
        n_embeddings: number of appearance embeddings, one per training frame, at least 1.
    """

    def __init__(self, config: HeadFieldConfig, feature_dimension: int, n_embeddings: int):
        super().__init__()
        self.config = config
        self.position_encoder = position_encoder(config.position_encoder, config.bound)
        n_features = self.position_encoder.n_outputs
        self.audio_encoder = AudioEncoder(feature_dimension, config.audio_code_size)
        self.region_attention = region_attention(
            config.attention,
            n_features,
            config.audio_code_size,
            config.audio_attention_width,
            config.eye_attention_width,
        )
        self.density_net = MLP(
            n_features + config.audio_code_size + 1,
            config.density_width,
            1 + config.geometry_features,
            config.density_layers,
        )
        self.color_net = MLP(
            config.direction_degree**2 + config.geometry_features + config.appearance_size,
            config.color_width,
            3,
            config.color_layers,
        )
        self.uncertainty_net = MLP(n_features, config.uncertainty_width, 1, 2)
        self.appearance = AppearanceEmbedding(n_embeddings, config.appearance_size)

    def bind(
        self, inputs: FrameInputs, with_uncertainty: bool = True, audio_code: Tensor | None = None
    ) -> "BoundHeadField":
        """The field of one frame, as the renderer takes it.

        Args:
            inputs: the frame's inputs. The audio is encoded here, once.
            with_uncertainty: evaluate the uncertainty too, which only training needs.
            audio_code: [A] replaces the encoded audio window, for instance with a code that is smoothed over frames.

        Raises ValueError if the appearance index is out of range.
        """
        if audio_code is None:
            audio_code = self.audio_encoder(inputs.audio_window)
        eye_closure = inputs.eye_closure
        if eye_closure is None:
            eye_closure = audio_code.new_zeros(1)
        return BoundHeadField(self, audio_code, eye_closure, self.appearance(inputs.appearance_index), with_uncertainty)

    def forward(
        self,
        positions: Tensor,
        directions: Tensor,
        audio_code: Tensor,
        eye_closure: Tensor,
        appearance: Tensor,
        with_uncertainty: bool = True,
    ) -> FieldOutput:
        """Evaluate M points.

        Args:
            positions: [M, 3] in [-bound, bound], scene units.
            directions: [M, 3] unit view directions.
            audio_code: [A].
            eye_closure: [1].
            appearance: [appearance_size].
            with_uncertainty: evaluate the uncertainty; otherwise it is None.

        The output is in the dtype of the positions, also under autocast.
        """
        features = self.position_encoder(positions)
        attended = self.region_attention(features, audio_code, eye_closure)
        h = self.density_net(concatenate([features, attended.audio, attended.eye]))
        harmonics = tk.spherical_harmonics(directions, self.config.direction_degree)
        rgbs = self.color_net(concatenate([harmonics, h[:, 1:]]), shared=appearance)
        # Networks may run in half precision; compositing needs the precision of the positions.
        dtype = positions.dtype
        return FieldOutput(
            activations.density(h[:, 0].to(dtype)),
            activations.unit_interval(rgbs.to(dtype)),
            attended.audio_attention.to(dtype),
            attended.eye_attention.to(dtype),
            self._uncertainty(features) if with_uncertainty else None,
        )

    def densities(self, positions: Tensor, audio_code: Tensor, eye_closure: Tensor) -> Tensor:
        """[M, 3] positions -> [M] density per scene unit, without evaluating colors."""
        features = self.position_encoder(positions)
        attended = self.region_attention(features, audio_code, eye_closure)
        h = self.density_net(concatenate([features, attended.audio, attended.eye]))
        return activations.density(h[:, 0].to(positions.dtype))

    def regularized(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[M, 3] positions -> audio_attention, eye_attention, uncertainty [M], which training keeps smooth in space.

        They depend on the point only, not on the frame.
        """
        features = self.position_encoder(positions)
        return *self.region_attention.norms(features), self._uncertainty(features)

    def _uncertainty(self, features: Tensor) -> Tensor:
        # Detached: the uncertainty must not train the position encoder.
        return F.softplus(self.uncertainty_net(features.detach())[:, 0].to(features.dtype))


@dataclass(frozen=True)
class BoundHeadField:
    """The field of one frame: positions and directions [M, 3] -> FieldOutput."""

    field: HeadField
    audio_code: Tensor
    """[A]."""
    eye_closure: Tensor
    """[1]."""
    appearance: Tensor
    """[appearance_size]."""
    with_uncertainty: bool

    def __call__(self, positions: Tensor, directions: Tensor) -> FieldOutput:
        return self.field(
            positions, directions, self.audio_code, self.eye_closure, self.appearance, self.with_uncertainty
        )

    def densities(self, positions: Tensor) -> Tensor:
        """[M, 3] positions -> [M] density per scene unit; for the occupancy grid."""
        return self.field.densities(positions, self.audio_code, self.eye_closure)
