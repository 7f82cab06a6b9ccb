"""Region attention: how much audio and eye closure affect a point, in three variants behind one interface.

A module maps features of M points to :class:`Attention`: K weights of each point. The density network takes the
features, the audio code times its weights, and the eye closure times its weight. Its first layer is linear, so that
audio code and eye closure are multiplied into the columns of that layer (`fold`) instead of into the weights of every
point.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.model.mlp import MLP


class Attention(NamedTuple):
    """Attention weights of M points."""

    weights: tuple[Tensor, ...]
    """[M, K_i], K in all; channel-major in memory."""
    audio_attention: Tensor
    """[M] norm of the weights of the audio code."""
    eye_attention: Tensor
    """[M] weight of the eye closure."""


class FoldedAttention(NamedTuple):
    """What region attention adds to a linear layer of H units, for one frame: with hidden units r = relu(hidden x)

    mixed [r_1 ... r_n, sigmoid(gates [r_n+1 ...])] + bias
    """

    hidden: Tensor
    """[K, n_features]."""
    gates: Tensor
    """[G, K - n] for n hidden units that enter as they are."""
    mixed: Tensor
    """[H, n + G]."""
    bias: Tensor | None
    """[H]; None for zeros."""


class RegionAttention(nn.Module, ABC):
    """What the variants have in common."""

    n_features: int
    """Of a point."""
    n_weights: int
    """K, weights of a point."""

    @abstractmethod
    def forward(self, features: Tensor, out: Tensor | None = None) -> Attention:
        """Weights of M points.

        Args:
            features: [M, n_features].
            out: [K, M] contiguous, for the weights; without gradients only.
        """

    @abstractmethod
    def fold(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> Tensor:
        """Columns of a linear layer that take weighted inputs -> columns that take the weights alone.

        Args:
            columns: [H, A + 1] for the weighted audio code and the weighted eye closure.
            audio_code: [A].
            eye_closure: [1].

        Returns:
            [H, K].
        """

    @abstractmethod
    def folded(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> FoldedAttention:
        """What weighted inputs add to a linear layer, with all products of matrices multiplied out.

        Args:
            columns, audio_code, eye_closure: as of :meth:`fold`.
        """

    @abstractmethod
    def norms(self, linear: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Audio and eye attention, [M] each, as of :class:`Attention`.

        Args:
            linear: [n, M] hidden units that enter :class:`FoldedAttention` as they are.
            gates: [G, M] its gates, behind the sigmoid.
        """


class ChannelAttention(RegionAttention):
    """A weight for every channel of the audio code [ER-NeRF, Li et al. 2023, section 3.3, eq. 5-7].

    Args:
        n_features: features of a point.
        audio_code_size: A, length of the audio code.
        audio_width, eye_width: hidden units of the two MLPs.
    """

    def __init__(self, n_features: int, audio_code_size: int, audio_width: int = 64, eye_width: int = 16):
        super().__init__()
        self.n_features = n_features
        self.audio_attention = MLP(n_features, audio_width, audio_code_size, 2)
        self.eye_attention = MLP(n_features, eye_width, 1, 2)
        self.n_weights = audio_code_size + 1

    def forward(self, features: Tensor, out: Tensor | None = None) -> Attention:
        audio = self.audio_attention(features, out=None if out is None else out[:-1])
        eye = _sigmoid(self.eye_attention(features, out=None if out is None else out[-1:]), out)
        dtype = torch.promote_types(audio.dtype, torch.float32)
        return Attention((audio, eye), torch.linalg.vector_norm(audio, dim=1, dtype=dtype), eye[:, 0])

    def fold(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> Tensor:
        return columns * torch.cat((audio_code, eye_closure))

    def folded(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> FoldedAttention:
        audio = (columns[:, :-1] * audio_code) @ self.audio_attention.last_weight
        mixed = torch.cat((audio, columns[:, -1:] * eye_closure), 1)
        return FoldedAttention(_hidden(self), self.eye_attention.last_weight, mixed, None)

    def norms(self, linear: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        audio = self.audio_attention.last_weight.to(linear.dtype) @ linear
        dtype = torch.promote_types(audio.dtype, torch.float32)
        return torch.linalg.vector_norm(audio, dim=0, dtype=dtype), gates[0]


class FeatureAttention(RegionAttention):
    """One weight in (0, 1) for the whole audio code, as for the eyes [ER-NeRF, table 5, "feature"].

    Args:
        n_features: features of a point.
        audio_code_size: A, length of the audio code.
        audio_width, eye_width: hidden units of the two MLPs.
    """

    n_weights = 2

    def __init__(self, n_features: int, audio_code_size: int, audio_width: int = 64, eye_width: int = 16):
        super().__init__()
        self.n_features = n_features
        self.audio_attention = MLP(n_features, audio_width, 1, 2)
        self.eye_attention = MLP(n_features, eye_width, 1, 2)
        self.audio_code_size = audio_code_size

    def forward(self, features: Tensor, out: Tensor | None = None) -> Attention:
        audio = _sigmoid(self.audio_attention(features, out=None if out is None else out[:1]), out)
        eye = _sigmoid(self.eye_attention(features, out=None if out is None else out[1:]), out)
        return Attention((audio, eye), audio[:, 0] * self.audio_code_size**0.5, eye[:, 0])

    def fold(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> Tensor:
        return torch.stack((columns[:, :-1] @ audio_code, columns[:, -1] * eye_closure), 1)

    def folded(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> FoldedAttention:
        gates = torch.block_diag(self.audio_attention.last_weight, self.eye_attention.last_weight)
        return FoldedAttention(_hidden(self), gates, self.fold(columns, audio_code, eye_closure), None)

    def norms(self, linear: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        return gates[0] * self.audio_code_size**0.5, gates[1]


class Concatenation(RegionAttention):
    """No attention: every point gets the inputs unchanged, and the attention norms are constant.

    Args:
        n_features: features of a point.
        audio_code_size: A, length of the audio code.
    """

    n_weights = 1

    def __init__(self, n_features: int, audio_code_size: int):
        super().__init__()
        self.n_features = n_features
        self.audio_code_size = audio_code_size

    def forward(self, features: Tensor, out: Tensor | None = None) -> Attention:
        weights = torch.ones(1, len(features), dtype=features.dtype, device=features.device, out=out)
        ones = weights[0]
        return Attention((weights.t(),), ones * self.audio_code_size**0.5, ones)

    def fold(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> Tensor:
        return (columns @ torch.cat((audio_code, eye_closure)))[:, None]

    def folded(self, columns: Tensor, audio_code: Tensor, eye_closure: Tensor) -> FoldedAttention:
        bias = self.fold(columns, audio_code, eye_closure)[:, 0]
        return FoldedAttention(columns.new_empty(0, self.n_features), columns.new_empty(0, 0), columns[:, :0], bias)

    def norms(self, linear: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        ones = torch.ones_like(linear[:1].sum(0))
        return ones * self.audio_code_size**0.5, ones


def _hidden(attention: ChannelAttention | FeatureAttention) -> Tensor:
    """[K, n_features] weights of the hidden units of both networks."""
    return torch.cat((attention.audio_attention.first_weight, attention.eye_attention.first_weight))


def _sigmoid(x: Tensor, out: Tensor | None) -> Tensor:
    """In place if there is memory for the results."""
    return torch.sigmoid(x) if out is None else x.sigmoid_()


ATTENTIONS = ("channel", "feature", "none")
"""Names of the variants."""


def region_attention(
    attention: str, n_features: int, audio_code_size: int, audio_width: int, eye_width: int
) -> RegionAttention:
    """Construct the variant of a name in ATTENTIONS; raises ValueError for another name."""
    if attention == "channel":
        return ChannelAttention(n_features, audio_code_size, audio_width, eye_width)
    if attention == "feature":
        return FeatureAttention(n_features, audio_code_size, audio_width, eye_width)
    if attention == "none":
        return Concatenation(n_features, audio_code_size)
    raise ValueError(f"attention: expected one of {', '.join(ATTENTIONS)}, got {attention!r}; choose one of these")
