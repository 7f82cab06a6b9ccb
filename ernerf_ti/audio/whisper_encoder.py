"""The encoder of Whisper [Radford et al. 2022, section 2.2], from log mel spectra to hidden states."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernerf_ti.audio.frame_features import HOP, SAMPLE_RATE
from ernerf_ti.audio.whisper_weights import WhisperWeights

N_FFT = 400
_POWER_FLOOR = 1e-10
_RANGE = 8.0  # powers of ten below the loudest value that are kept
_HEAD_WIDTH = 64  # in models of all sizes


class WhisperEncoder(nn.Module):
    """Two convolutions, the position table, and pre-norm transformer layers up to the one whose states are wanted.

    Args:
        weights: of the encoder, see :func:`ernerf_ti.audio.whisper_weights.load_whisper`.

    Raises ValueError if the tensors don't fit together.
    """

    positions: Tensor

    def __init__(self, weights: WhisperWeights):
        super().__init__()
        tensors = weights.tensors
        self.n_steps, self.width = tensors["positions"].shape
        self.n_mels = tensors["conv1.weight"].shape[1]
        self.conv1 = nn.Conv1d(self.n_mels, self.width, 3, padding=1)
        self.conv2 = nn.Conv1d(self.width, self.width, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(self.n_steps, self.width))
        self.layers = nn.ModuleList(_Layer(self.width) for _ in range(weights.layer))
        self.norm = nn.LayerNorm(self.width) if "norm.weight" in tensors else nn.Identity()
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(
                f"Whisper model {weights.name}: expected the tensors of an encoder, got others "
                f"({' '.join(str(error).split())[:200]}); pass the published model"
            ) from None
        self.eval().requires_grad_(False)

    def forward(self, log_mel: Tensor, wanted: slice = slice(None)) -> Tensor:
        """States of the last layer.

        Args:
            log_mel: [n_mels, 2 T] log mel spectrum, T at most `n_steps`.
            wanted: steps whose states are returned. The others' are not computed in the last layer.

        Returns:
            [T, width], or those wanted.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(log_mel[None]))))[0].t()
        x = x + self.positions[: len(x)]
        for k, layer in enumerate(self.layers, 1):
            x = layer(x, wanted if k == len(self.layers) else slice(None))
        return self.norm(x)


class _Layer(nn.Module):
    """Self-attention and a perceptron, each of the normalized input and added to it."""

    def __init__(self, width: int):
        super().__init__()
        self.n_heads = max(1, width // _HEAD_WIDTH)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, wanted: slice) -> Tensor:
        """[T, width] -> [n, width] of the n steps that are wanted, which see all T."""
        normalized = self.attention_norm(x)
        query, key, value = (
            F.linear(steps, weight, bias).view(len(steps), self.n_heads, -1).transpose(0, 1)
            for steps, weight, bias in zip(
                (normalized[wanted], normalized, normalized),
                self.attention_in.weight.chunk(3),
                self.attention_in.bias.chunk(3),
                strict=True,
            )
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x[wanted] + self.attention_out(attended.transpose(0, 1).flatten(1))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))


def log_mel(samples: Tensor, n_mels: int) -> Tensor:
    """Whisper's input: log mel energies of windows of 25 ms every 10 ms, in about [-1, 1.5].

    Args:
        samples: [S] float32 at 16 kHz, a multiple of 160 of at least 320.
        n_mels: number of bands, 80; 128 for the newest models.

    Returns:
        [n_mels, S / 160].
    """
    window = torch.hann_window(N_FFT, device=samples.device)
    spectrum = torch.stft(samples, N_FFT, HOP, window=window, return_complex=True)[:, :-1]
    power = spectrum.real.square() + spectrum.imag.square()
    logs = (_mel_filters(n_mels).to(samples.device) @ power).clamp(min=_POWER_FLOOR).log10()
    return (torch.maximum(logs, logs.max() - _RANGE) + 4) / 4


@functools.cache
def _mel_filters(n_mels: int) -> Tensor:
    import librosa.filters

    return torch.from_numpy(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=n_mels))
