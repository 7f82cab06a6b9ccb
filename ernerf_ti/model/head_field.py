"""The head as a radiance field: density and colour of a point, given what is said [ER-NeRF, section 3].

x = encode(position);  a, e = attend(x, audio, eye)
[log sigma, g] = density_net(x, a, e);  rgb = colour_net(harmonics(direction), g, identity)
"""

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.batch import Conditioning, FieldOutput
from ernerf_ti.model import activations
from ernerf_ti.model.audio_encoder import AudioEncoder
from ernerf_ti.model.conditioning import region_conditioning
from ernerf_ti.model.identity_codes import IdentityCodes
from ernerf_ti.model.mlp import MLP, concatenate
from ernerf_ti.model.position_encoders import PositionEncoderConfig, TriplaneHashConfig, position_encoder


@dataclass(frozen=True)
class HeadFieldConfig:
    """Shape of the head's field; the defaults are the paper's."""

    bound: float = 1.0
    """Half side of the scene's cube, scene units."""
    position_encoder: PositionEncoderConfig = field(default_factory=TriplaneHashConfig)
    attention: str = "channel"
    """How audio and eyes act on a point: "channel", "feature" or "none"."""
    audio_code_size: int = 32
    audio_attention_width: int = 64
    eye_attention_width: int = 16
    density_width: int = 64
    density_layers: int = 3
    geometry_features: int = 64
    """Outputs of the density network that the colour network takes."""
    colour_width: int = 64
    colour_layers: int = 2
    direction_degree: int = 4
    """Bands of spherical harmonics of the view direction."""
    identity_size: int = 4
    """Numbers in the code of a training frame."""
    uncertainty_width: int = 32


class HeadField(nn.Module):
    """Density, colour, ambient values and uncertainty of points.

    Args:
        config: shape of the field.
        feature_dimension: C, of the audio features.
        n_identities: codes, one per training frame, at least 1.
    """

    def __init__(self, config: HeadFieldConfig, feature_dimension: int, n_identities: int):
        super().__init__()
        self.config = config
        self.position_encoder = position_encoder(config.position_encoder, config.bound)
        n_features = self.position_encoder.n_outputs
        self.audio_encoder = AudioEncoder(feature_dimension, config.audio_code_size)
        self.conditioning = region_conditioning(
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
        self.colour_net = MLP(
            config.direction_degree**2 + config.geometry_features + config.identity_size,
            config.colour_width,
            3,
            config.colour_layers,
        )
        self.uncertainty_net = MLP(n_features, config.uncertainty_width, 1, 2)
        self.identity_codes = IdentityCodes(n_identities, config.identity_size)

    def bind(
        self, conditioning: Conditioning, with_uncertainty: bool = True, audio_code: Tensor | None = None
    ) -> "BoundHeadField":
        """The field of one frame, as the renderer takes it.

        Args:
            conditioning: the frame. Its audio is encoded here, once.
            with_uncertainty: no part of the picture, so that rendering can go without.
            audio_code: [A] in place of the encoded window, for one that is smoothed over frames.

        Raises ValueError if the identity index is not of a code.
        """
        if audio_code is None:
            audio_code = self.audio_encoder(conditioning.audio_window)
        eye_area = conditioning.eye_area
        if eye_area is None:
            eye_area = audio_code.new_zeros(1)
        return BoundHeadField(
            self, audio_code, eye_area, self.identity_codes(conditioning.identity_index), with_uncertainty
        )

    def forward(
        self,
        positions: Tensor,
        directions: Tensor,
        audio_code: Tensor,
        eye_area: Tensor,
        identity_code: Tensor,
        with_uncertainty: bool = True,
    ) -> FieldOutput:
        """Evaluate M points.

        Args:
            positions: [M, 3] in [-bound, bound], scene units.
            directions: [M, 3] unit view directions.
            audio_code: [A].
            eye_area: [1].
            identity_code: [identity_size].
            with_uncertainty: else it is None.

        The output is in the dtype of the positions, also under autocast.
        """
        features = self.position_encoder(positions)
        codes = self.conditioning(features, audio_code, eye_area)
        h = self.density_net(concatenate([features, codes.audio, codes.eye]))
        harmonics = tk.spherical_harmonics(directions, self.config.direction_degree)
        rgbs = self.colour_net(concatenate([harmonics, h[:, 1:]]), shared=identity_code)
        # Networks may run in half precision; densities and what is blended may not.
        dtype = positions.dtype
        return FieldOutput(
            activations.density(h[:, 0].to(dtype)),
            activations.unit_interval(rgbs.to(dtype)),
            codes.ambient_audio.to(dtype),
            codes.ambient_eye.to(dtype),
            self._uncertainty(features) if with_uncertainty else None,
        )

    def densities(self, positions: Tensor, audio_code: Tensor, eye_area: Tensor) -> Tensor:
        """[M, 3] positions -> [M] density per scene unit, without what only colour needs."""
        features = self.position_encoder(positions)
        codes = self.conditioning(features, audio_code, eye_area)
        h = self.density_net(concatenate([features, codes.audio, codes.eye]))
        return activations.density(h[:, 0].to(positions.dtype))

    def regularised(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[M, 3] positions -> ambient_audio, ambient_eye, uncertainty [M]: what is kept smooth in space.

        They depend on the point only, not on the frame.
        """
        features = self.position_encoder(positions)
        return *self.conditioning.ambients(features), self._uncertainty(features)

    def _uncertainty(self, features: Tensor) -> Tensor:
        # Detached: how uncertain a point is must not shape what is there.
        return F.softplus(self.uncertainty_net(features.detach())[:, 0].to(features.dtype))


@dataclass(frozen=True)
class BoundHeadField:
    """The field of one frame: positions and directions [M, 3] -> FieldOutput."""

    field: HeadField
    audio_code: Tensor
    """[A]."""
    eye_area: Tensor
    """[1]."""
    identity_code: Tensor
    """[identity_size]."""
    with_uncertainty: bool

    def __call__(self, positions: Tensor, directions: Tensor) -> FieldOutput:
        return self.field(
            positions, directions, self.audio_code, self.eye_area, self.identity_code, self.with_uncertainty
        )

    def densities(self, positions: Tensor) -> Tensor:
        """[M, 3] positions -> [M] density per scene unit; for the occupancy grid."""
        return self.field.densities(positions, self.audio_code, self.eye_area)
