"""The encoder of Whisper [Radford et al. 2022, section 2.2], from log mel spectra to hidden states."""

from collections.abc import Callable
from copy import copy
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernerf_ti.audio.frame_features import HOP, SAMPLE_RATE
from ernerf_ti.audio.whisper_weights import WhisperWeights

N_FFT = 400
_POWER_FLOOR = 1e-10
_RANGE = 8.0  # powers of ten below the loudest value that are kept
_HEAD_WIDTH = 64  # in models of all sizes
STEM_STEPS = 2
"""Steps before a step that the convolutions, and the windows of the spectrum, must see."""


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
        return self.transform(self.stem(log_mel), wanted)

    def stem(self, log_mel: Tensor) -> Tensor:
        """The convolutions: [n_mels, 2 T] -> [T, width]."""
        return F.gelu(self.conv2(F.gelu(self.conv1(log_mel[None]))))[0].t()

    def transform(self, x: Tensor, wanted: slice = slice(None), memory: "EncoderMemory | None" = None) -> Tensor:
        """The layers.

        Args:
            x: [T, width] from the convolutions.
            wanted: as for :meth:`forward`.
            memory: earlier steps, which are seen too; to be followed by these, which it does not keep by itself.

        Returns:
            As :meth:`forward`.
        """
        first = 0 if memory is None else memory.n
        x = x + self.positions[first : first + len(x)]
        for k, layer in enumerate(self.layers):
            remember = None if memory is None else partial(memory.followed_by, k)
            x = layer(x, wanted if k == len(self.layers) - 1 else slice(None), remember)
        return self.norm(x)


class EncoderMemory:
    """Keys and values of earlier steps in each layer, as they were when the steps were new.

    Args:
        encoder: whose `n_steps` find room; memory is only taken as they come.
    """

    def __init__(self, encoder: WhisperEncoder):
        self.n = 0
        """Steps that are kept: increase it to keep some of those that followed."""
        n_heads = _n_heads(encoder.width)
        shape = 2, n_heads, encoder.n_steps, encoder.width // n_heads
        self._of_layers = [torch.empty(shape, device=encoder.positions.device) for _ in encoder.layers]

    def copy(self) -> "EncoderMemory":
        """The steps that are kept now. Both share their memory: go on with one of the two."""
        return copy(self)

    def followed_by(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [n_heads, n + T, width of a head] of the kept steps and of T further ones."""
        until = self.n + key.shape[1]
        memory = self._of_layers[layer]
        memory[0, :, self.n : until], memory[1, :, self.n : until] = key, value
        return memory[0, :, :until], memory[1, :, :until]


def _n_heads(width: int) -> int:
    return max(1, width // _HEAD_WIDTH)


_Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Keys and values of steps -> those of earlier steps too."""


class _Layer(nn.Module):
    """Self-attention and a perceptron, each of the normalized input and added to it."""

    def __init__(self, width: int):
        super().__init__()
        self.n_heads = _n_heads(width)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, wanted: slice, remember: _Remember | None = None) -> Tensor:
        """[T, width] -> [n, width] of the n steps that are wanted, which see all T, and those that are remembered."""
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
        if remember is not None:
            key, value = remember(key, value)
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
    logs = log_energies(samples, n_mels)
    return scaled(logs, logs.max())


def log_energies(samples: Tensor, n_mels: int) -> Tensor:
    """Decimal logarithms of the energies; arguments and shape as of :func:`log_mel`."""
    window = torch.hann_window(N_FFT, device=samples.device)
    spectrum = torch.stft(samples, N_FFT, HOP, window=window, return_complex=True)[:, :-1]
    power = spectrum.real.square() + spectrum.imag.square()
    return (_mel_filters(n_mels).to(samples.device) @ power).clamp(min=_POWER_FLOOR).log10()


def scaled(logs: Tensor, loudest: Tensor) -> Tensor:
    """Whisper's input from logarithms of energies and the largest one of the sound so far."""
    return (torch.maximum(logs, loudest - _RANGE) + 4) / 4


@cache
def _mel_filters(n_mels: int) -> Tensor:
    import librosa.filters

    return torch.from_numpy(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=n_mels))
