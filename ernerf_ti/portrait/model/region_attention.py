"""Region attention: how much audio and eye closure affect a point, in three variants behind one interface.

A module maps features of M points, an audio code [A] and an eye closure [1] to :class:`AttendedInputs`. Its
`norms(features)` gives the two attention norms alone, which depend on the point only.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ernerf_ti.portrait.model.mlp import MLP


class AttendedInputs(NamedTuple):
    """Audio code and eye closure, weighted for each of M points."""

    audio: Tensor
    """[M, A] audio code times the attention of the point."""
    eye: Tensor
    """[M, 1] eye closure times the attention of the point."""
    audio_attention: Tensor
    """[M] norm of the weights of the audio code."""
    eye_attention: Tensor
    """[M] weight of the eye closure."""


class ChannelAttention(nn.Module):
    """A weight for every channel of the audio code [ER-NeRF, Li et al. 2023, section 3.3, eq. 5-7].

    Args:
        n_features: features of a point.
        audio_code_size: A, length of the audio code.
        audio_width, eye_width: hidden units of the two MLPs.
    """

    def __init__(self, n_features: int, audio_code_size: int, audio_width: int = 64, eye_width: int = 16):
        super().__init__()
        self.audio_attention = MLP(n_features, audio_width, audio_code_size, 2)
        self.eye_attention = MLP(n_features, eye_width, 1, 2)

    def forward(self, features: Tensor, audio_code: Tensor, eye_closure: Tensor) -> AttendedInputs:
        """features [M, n_features], audio_code [A], eye_closure [1]."""
        weights, eye_weights = self.audio_attention(features), self._eye_weights(features)
        return AttendedInputs(audio_code * weights, eye_closure * eye_weights, weights.norm(dim=1), eye_weights[:, 0])

    def norms(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[M, n_features] -> audio_attention [M], eye_attention [M]."""
        return self.audio_attention(features).norm(dim=1), self._eye_weights(features)[:, 0]

    def _eye_weights(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.eye_attention(features))


class FeatureAttention(nn.Module):
    """One weight in (0, 1) for the whole audio code, as for the eyes [ER-NeRF, table 5, "feature"].

    Args:
        n_features: features of a point.
        audio_code_size: A, length of the audio code.
        audio_width, eye_width: hidden units of the two MLPs.
    """

    def __init__(self, n_features: int, audio_code_size: int, audio_width: int = 64, eye_width: int = 16):
        super().__init__()
        self.audio_attention = MLP(n_features, audio_width, 1, 2)
        self.eye_attention = MLP(n_features, eye_width, 1, 2)
        self.audio_code_size = audio_code_size

    def forward(self, features: Tensor, audio_code: Tensor, eye_closure: Tensor) -> AttendedInputs:
        """features [M, n_features], audio_code [A], eye_closure [1]."""
        audio, eye = self._weights(features)
        # Channel-major in memory, like the other inputs of the density network.
        audio_codes = (audio_code[:, None] * audio.t()).t()
        return AttendedInputs(audio_codes, eye_closure * eye, self._norm(audio), eye[:, 0])

    def norms(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[M, n_features] -> audio_attention [M], eye_attention [M]."""
        audio, eye = self._weights(features)
        return self._norm(audio), eye[:, 0]

    def _weights(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(self.audio_attention(features)), torch.sigmoid(self.eye_attention(features))

    def _norm(self, audio: Tensor) -> Tensor:
        return audio[:, 0] * self.audio_code_size**0.5


class Concatenation(nn.Module):
    """No attention: every point gets the inputs unchanged, and the attention norms are constant.

    Args:
        n_features: features of a point.
        audio_code_size: A, length of the audio code.
    """

    def __init__(self, n_features: int, audio_code_size: int):
        super().__init__()
        self.audio_code_size = audio_code_size

    def forward(self, features: Tensor, audio_code: Tensor, eye_closure: Tensor) -> AttendedInputs:
        """features [M, n_features], audio_code [A], eye_closure [1]."""
        m = len(features)
        return AttendedInputs(audio_code.expand(m, -1), eye_closure.expand(m, 1), *self.norms(features))

    def norms(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[M, n_features] -> audio_attention [M], eye_attention [M]."""
        ones = features.new_ones(len(features))
        return ones * self.audio_code_size**0.5, ones


ATTENTIONS = ("channel", "feature", "none")
"""Names of the variants."""


def region_attention(
    attention: str, n_features: int, audio_code_size: int, audio_width: int, eye_width: int
) -> ChannelAttention | FeatureAttention | Concatenation:
    """Construct the variant of a name in ATTENTIONS; raises ValueError for another name."""
    if attention == "channel":
        return ChannelAttention(n_features, audio_code_size, audio_width, eye_width)
    if attention == "feature":
        return FeatureAttention(n_features, audio_code_size, audio_width, eye_width)
    if attention == "none":
        return Concatenation(n_features, audio_code_size)
    raise ValueError(f"attention: expected one of {', '.join(ATTENTIONS)}, got {attention!r}; choose one of these")
