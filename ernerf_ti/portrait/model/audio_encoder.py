"""Audio encoder: convolutions over time, then attention over frames.

The network of AD-NeRF and ER-NeRF [Guo et al. 2021, section 3.3; Li et al. 2023].
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_FRAMES = 8
"""Audio windows per frame k: those of the frames k-4 ... k+3."""
MAX_STEPS = 16
"""Longest window; the four convolutions halve it to one step."""

_SLOPE = 0.02


class AudioEncoder(nn.Module):
    """Encodes eight windows of audio features as one audio code.

    Args:
        feature_dimension: C, of the extractor (29 DeepSpeech, 42 phone posteriors, 44 letters, 80 mel, 1024 HuBERT).
        code_size: length of the audio code.
        n_codes: how many codes of training frames are kept.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    code_mean: Tensor
    training_codes: Tensor

    def __init__(self, feature_dimension: int, code_size: int = 32, n_codes: int = 0):
        super().__init__()
        self.feature_dimension = feature_dimension
        channels = (feature_dimension, 32, 32, 64, 64)
        layers = []
        for n_in, n_out in itertools.pairwise(channels):
            layers += [nn.Conv1d(n_in, n_out, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        self.convolutions = nn.Sequential(*layers)
        self.projection = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(_SLOPE), nn.Linear(64, code_size))
        self.attention = TemporalAttention(code_size)
        for layer in (*self.convolutions, *self.projection):
            if not isinstance(layer, nn.LeakyReLU):
                _keep_variance(layer)
        self.register_buffer("feature_mean", torch.zeros(feature_dimension, 1))
        """[C, 1], subtracted from the features."""
        self.register_buffer("feature_scale", torch.ones(()))
        """Divides the centered features."""
        self.register_buffer("code_mean", torch.zeros(code_size))
        """[code_size] mean code of the training frames; zeros where it is not known."""
        self.register_buffer("training_codes", torch.zeros(n_codes, code_size))
        """[n_codes, code_size] codes of training frames, as they were when the portrait was saved."""
        self.gain = 1.0
        """How far codes are moved from the mean code."""
        self.nearest = 0
        """How many of the training codes a code is replaced by, fewer than n_codes; 0 leaves it as it is."""

    @torch.no_grad()
    def standardize(self, windows: Tensor) -> None:
        """Standardize features by the statistics of these windows from now on.

        Args:
            windows: [T, steps, C] audio windows of the training frames.
        """
        mean = windows.mean((0, 1))
        self.feature_mean.copy_(mean[:, None])
        # One scale for all channels: a sound that is rare in training must not be amplified in other speech.
        self.feature_scale.copy_((windows - mean).square().mean().sqrt().clamp(min=1e-6))

    def forward(self, audio_window: Tensor) -> Tensor:
        """Codes of :meth:`encode` as :meth:`adjust` returns them."""
        return self.adjust(self.encode(audio_window), self.gain)

    def encode(self, audio_window: Tensor) -> Tensor:
        """Encode the windows of one frame, or of several, as in training.

        Args:
            audio_window: [..., 8, C, steps] float32, steps from 1 to 16; longer windows are cropped to 16.

        Returns:
            [..., code_size].

        Raises ValueError for another shape.
        """
        if audio_window.dim() < 3 or audio_window.shape[-3:-1] != (N_FRAMES, self.feature_dimension):
            raise ValueError(
                f"audio_window: expected shape [{N_FRAMES}, {self.feature_dimension}, steps], "
                f"got {list(audio_window.shape)}; pass features of the extractor that the portrait was trained with"
            )
        x = (audio_window[..., :MAX_STEPS] - self.feature_mean) / self.feature_scale
        return self.attention(self.projection(_convolve(x.transpose(-1, -2), self.convolutions).squeeze(-2)))

    @property
    def knows_mean(self) -> bool:
        """Whether the mean code is known, so that codes can be moved away from it."""
        return bool(self.code_mean.any())

    def adjust(self, code: Tensor, gain: float) -> Tensor:
        """Codes [..., code_size] for rendering: those nearest in training, moved away from the mean code by a gain."""
        if self.nearest:
            code = self._nearest_mean(code)
        return code if gain == 1 else torch.lerp(self.code_mean, code, gain)

    def _nearest_mean(self, code: Tensor) -> Tensor:
        """Weighted means of the training codes nearest to each code.

        The field has learned what to draw for the codes of training frames. Other sounds give codes beside them, for
        which it mixes two mouths. Weights are those of Epanechnikov's kernel that ends at the first code left out, so
        that the mean changes continuously with the code.
        """
        queries = code.reshape(-1, code.shape[-1])
        # Not by matrix products, whose rounding would depend on how many codes there are.
        distances = torch.cdist(queries, self.training_codes, compute_mode="donot_use_mm_for_euclid_dist")
        distances, nearest = distances.topk(self.nearest + 1, largest=False)
        reach = distances[:, -1:].clamp(min=torch.finfo(distances.dtype).tiny)
        weights = 1 - (distances[:, :-1] / reach).square() + 1e-6  # more than 0 if all are equally far
        weights = weights / weights.sum(-1, keepdim=True)
        return (weights.unsqueeze(1) @ self.training_codes[nearest[:, :-1]]).view_as(code)


class TemporalAttention(nn.Module):
    """Weighted mean of the codes of eight frames, with weights computed from all of them.

    Args:
        code_size: length of a code.
    """

    def __init__(self, code_size: int):
        super().__init__()
        channels = (code_size, 16, 8, 4, 2, 1)
        layers = []
        for n_in, n_out in itertools.pairwise(channels):
            layers += [nn.Conv1d(n_in, n_out, 3, padding=1), nn.LeakyReLU(_SLOPE)]
        self.convolutions = nn.Sequential(*layers)
        self.scores = nn.Linear(N_FRAMES, N_FRAMES)

    def forward(self, codes: Tensor) -> Tensor:
        """[..., 8, code_size] -> [..., code_size]."""
        weights = torch.softmax(self.scores(_convolve(codes, self.convolutions).squeeze(-1)), -1)
        return (weights.unsqueeze(-2) @ codes).squeeze(-2)


def _convolve(x: Tensor, layers: nn.Sequential) -> Tensor:
    """[..., T, C] -> [..., T', C']: convolutions of width 3 and the activations between them.

    Each convolution is one matrix product over windows. The windows are a few hundred numbers, for which a
    convolution of cuDNN, above all its gradient, costs far more time on the host than on the GPU.
    """
    widest = max(layer.in_channels for layer in layers if isinstance(layer, nn.Conv1d))
    zeros = x.new_zeros(*x.shape[:-2], 1, widest)
    for layer in layers:
        if isinstance(layer, nn.Conv1d):
            edge = zeros[..., : layer.in_channels]
            windows = torch.cat((edge, x, edge), -2).unfold(-2, 3, layer.stride[0])  # [..., T', C, 3]
            x = F.linear(windows.flatten(-2), layer.weight.flatten(1), layer.bias)
        else:
            x = layer(x)
    return x


def _keep_variance(layer: nn.Conv1d | nn.Linear) -> None:
    """Initialize for unit gain [He et al. 2015].

    With torch's default, whose biases are large, six layers map all sounds to the same code within 0.5 %. Training
    with few rays per step then ends with dead ReLUs and a mouth that never moves.
    """
    nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
