"""Radiance field of the head: density and color of a point for one frame's inputs [ER-NeRF, section 3].

x = encode(position);  a, e = region_attention(x);  d = dials(x, position)
[log sigma, g] = density_net(x, a audio, e eye, d);  rgb = color_net(harmonics(direction), g, appearance)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import taichi_kernels as tk
from ernerf_ti.portrait.config import HeadFieldConfig
from ernerf_ti.portrait.model import activations
from ernerf_ti.portrait.model.appearance_embedding import AppearanceEmbedding
from ernerf_ti.portrait.model.audio_encoder import AudioEncoder
from ernerf_ti.portrait.model.calls import Call, call_plainly
from ernerf_ti.portrait.model.dials import Dials
from ernerf_ti.portrait.model.folded_networks import FoldedNetworks
from ernerf_ti.portrait.model.mlp import MLP, concatenate, in_precision
from ernerf_ti.portrait.model.position_encoders import position_encoder
from ernerf_ti.portrait.model.region_attention import Attention, region_attention
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
        self.audio_encoder = AudioEncoder(feature_dimension, config.audio_code_size, config.n_codes(n_embeddings))
        self.region_attention = region_attention(
            config.attention,
            n_features,
            config.audio_code_size,
            config.audio_attention_width,
            config.eye_attention_width,
        )
        self.density_net = MLP(
            n_features + config.audio_code_size + 1 + len(config.dial_names),
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
        self.dials = None
        if config.dial_names:
            self.dials = Dials(len(config.dial_names), n_features, config.eye_attention_width)
        self.precision = torch.float32
        """Of the networks that are evaluated per point: float32 leaves their inputs as they are, torch.bfloat16 and
        torch.float16 cast them. Encodings, densities and everything after them keep the dtype of the positions."""

    def bind(
        self,
        inputs: FrameInputs,
        with_uncertainty: bool = True,
        audio_code: Tensor | None = None,
        call: Call = call_plainly,
        with_attention: bool = True,
    ) -> "BoundHeadField":
        """The field of one frame, as the renderer takes it.

        Args:
            inputs: the frame's inputs. The audio is encoded here, once.
            with_uncertainty: evaluate the uncertainty too, which only training needs.
            audio_code: [A] replaces the encoded audio window, for instance with a code that is smoothed over frames.
            call: calls the audio encoder and :meth:`networks`.
            with_attention: False for images whose attention nobody looks at, which then may lack it.

        Raises ValueError if the appearance index is out of range, or there is another number of dials.
        """
        n_dials = 0 if self.dials is None else len(self.dials)
        if inputs.dials is not None and tuple(inputs.dials.shape) != (n_dials,):
            raise ValueError(
                f"dials: expected shape [{n_dials}], got {list(inputs.dials.shape)}; pass a value for each dial of the "
                "portrait, or None"
            )
        if audio_code is None:
            audio_code = call(self.audio_encoder, inputs.audio_window)
        eye_closure = inputs.eye_closure
        if eye_closure is None:
            eye_closure = audio_code.new_zeros(1)
        appearance = self.appearance(inputs.appearance_index)
        dials = inputs.dials if n_dials else None
        return BoundHeadField(self, audio_code, eye_closure, appearance, dials, with_uncertainty, call, with_attention)

    def forward(
        self,
        positions: Tensor,
        directions: Tensor,
        audio_code: Tensor,
        eye_closure: Tensor,
        appearance: Tensor,
        dials: Tensor | None = None,
        with_uncertainty: bool = True,
        call: Call = call_plainly,
    ) -> FieldOutput:
        """Evaluate M points.

        Args:
            positions: [M, 3] in [-bound, bound], scene units.
            directions: [M, 3] unit view directions.
            audio_code: [A].
            eye_closure: [1].
            appearance: [appearance_size].
            dials: [D]; None for a neutral face.
            with_uncertainty: evaluate the uncertainty; otherwise it is None.
            call: calls :meth:`networks`.

        The output is in the dtype of the positions, whatever the precision of the networks, also under autocast.
        """
        features = self.position_encoder(positions)
        harmonics = tk.spherical_harmonics(directions, self.config.direction_degree)
        inputs = (features, harmonics, audio_code, eye_closure, appearance, self.reach(positions, dials))
        return call(self.networks, *inputs, with_uncertainty=with_uncertainty, precision=self.precision)

    def networks(
        self,
        features: Tensor,
        harmonics: Tensor,
        audio_code: Tensor,
        eye_closure: Tensor,
        appearance: Tensor,
        reach: Tensor | None = None,
        *,
        with_uncertainty: bool,
        precision: torch.dtype,
    ) -> FieldOutput:
        """What follows the encodings: operations of torch alone, which never wait for the device.

        Args:
            features: [M, F] encoded positions.
            harmonics: [M, degree^2] encoded directions.
            audio_code, eye_closure, appearance, with_uncertainty: as of :meth:`forward`.
            reach: as of :meth:`reach`.
            precision: see :attr:`precision`.
        """
        x, attention, h = self._density(features, audio_code, eye_closure, precision, reach)
        rgbs = self.color_net(in_precision(harmonics, precision), h[:, 1:], shared=appearance)
        dtype = features.dtype
        return FieldOutput(
            activations.density(h[:, 0].to(dtype)),
            activations.unit_interval(rgbs.to(dtype)),
            attention.audio_attention.to(dtype),
            attention.eye_attention.to(dtype),
            self._uncertainty(x, dtype) if with_uncertainty else None,
        )

    def reach(self, positions: Tensor, dials: Tensor | None) -> Tensor | None:
        """[D, M] how far dials [D] reach positions [M, 3], see :meth:`Dials.reach`; None for a neutral face."""
        return None if self.dials is None or dials is None else self.dials.reach(positions, dials)

    def densities(
        self, positions: Tensor, audio_code: Tensor, eye_closure: Tensor, dials: Tensor | None = None
    ) -> Tensor:
        """[M, 3] positions -> [M] density per scene unit, without evaluating colors."""
        features, reach = self.position_encoder(positions), self.reach(positions, dials)
        _, _, h = self._density(features, audio_code, eye_closure, self.precision, reach)
        return activations.density(h[:, 0].to(positions.dtype))

    def regularized(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[M, 3] positions -> audio_attention, eye_attention, uncertainty [M], which training keeps smooth in space.

        They depend on the point only, not on the frame.
        """
        features = self.position_encoder(positions)
        x, dtype = in_precision(features, self.precision), features.dtype
        attention = self.region_attention(x)
        return attention.audio_attention.to(dtype), attention.eye_attention.to(dtype), self._uncertainty(x, dtype)

    def _density(
        self, features: Tensor, audio_code: Tensor, eye_closure: Tensor, precision: torch.dtype, reach: Tensor | None
    ) -> tuple[Tensor, Attention, Tensor]:
        """[M, F] -> the features in the networks' precision, attention, and [M, 1 + geometry_features] log density and
        geometry features."""
        attend, n_features = self.region_attention, features.shape[1]
        dials = None if reach is None else self.dials
        if torch.is_grad_enabled() or torch.is_autocast_enabled(features.device.type):
            x = in_precision(features, precision)
            attention = attend(x)
            weights = attention.weights if dials is None else (*attention.weights, dials(x, reach))
            joined = concatenate([x, *weights])
        else:
            # The attention's networks write beside the features: nothing is concatenated.
            dtype = features.dtype if precision == torch.float32 else precision
            n_without = n_features + attend.n_weights
            n_rows = n_without if dials is None else n_without + len(dials)
            rows = features.new_empty(n_rows, len(features), dtype=dtype)
            x = rows[:n_features].copy_(features.t()).t()
            attention = attend(x, out=rows[n_features:n_without])
            if dials is not None:
                dials(x, reach, out=rows[n_without:])
            joined = rows.t()
        # A neutral face needs no columns of the dials.
        ends = n_features, n_features + len(audio_code) + 1
        own, others, of_dials = self.density_net.first_weight.tensor_split(ends, 1)
        folded = attend.fold(others, audio_code, self.config.eye_closure_scale * eye_closure)
        weight = torch.cat((own, folded) if dials is None else (own, folded, of_dials), 1)
        return x, attention, self.density_net(joined, first_weight=weight)

    def _uncertainty(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        # Detached: the uncertainty must not train the position encoder.
        return F.softplus(self.uncertainty_net(x.detach())[:, 0].to(dtype))


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
    dials: Tensor | None
    """[D]; None for a neutral face."""
    with_uncertainty: bool
    call: Call
    """Calls :meth:`HeadField.networks`."""
    with_attention: bool = True
    """Whether images need the attention; a call of the field returns it in any case."""

    def __call__(self, positions: Tensor, directions: Tensor) -> FieldOutput:
        return self.field(
            *(positions, directions, self.audio_code, self.eye_closure, self.appearance, self.dials),
            *(self.with_uncertainty, self.call),
        )

    def densities(self, positions: Tensor) -> Tensor:
        """[M, 3] positions -> [M] density per scene unit; for the occupancy grid."""
        return self.field.densities(positions, self.audio_code, self.eye_closure, self.dials)

    def folded(self, with_attention: bool = False) -> FoldedNetworks:
        """The networks of this frame, to evaluate density and color without gradients.

        Args:
            with_attention: evaluate the attention too.
        """
        field = self.field
        networks = (field.region_attention, field.density_net, field.color_net)
        inputs = (self.audio_code, field.config.eye_closure_scale * self.eye_closure, self.appearance)
        dials = None if self.dials is None else field.dials
        return FoldedNetworks(*networks, *inputs, field.precision, with_attention, dials)

    def reach(self, positions: Tensor) -> Tensor | None:
        """What :meth:`folded` networks take of the dials at positions [M, 3]: [D, M], or None for a neutral face."""
        return self.field.reach(positions, self.dials)
