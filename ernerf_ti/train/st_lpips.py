"""ST-LPIPS, a perceptual distance that tolerates small shifts [Ghildyal and Liu 2022].

LPIPS [Zhang et al. 2018] on an AlexNet that is sampled more densely and blurred before every subsampling [Zhang 2019,
"Making convolutional networks shift-invariant again"]. The weights were trained on human judgements; the values are
not those of LPIPS.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernerf_ti.media.packaged import PackagedFile

ALEX = PackagedFile(
    "the weights of ST-LPIPS",
    "stlpips-pytorch",
    "0.0.2",
    "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
    "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    "perceptual",
)
MIN_SIDE = 24
"""Pixels; smaller images are extended."""

_PIXEL_MEAN, _PIXEL_SCALE = (-0.03, -0.088, -0.188), (0.458, 0.448, 0.45)  # LPIPS's, of RGB in [-1, 1]
_BINOMIAL = (0.25, 0.5, 0.25)
_EPSILON = 1e-10


class _Layer(NamedTuple):
    name: str
    """Of the convolution in the file."""
    n_channels: int
    side: int
    padding: int
    pool_before: bool = False
    """3x3 maximum and blurred subsampling before the convolution."""
    blur_after: bool = False
    """Blurred subsampling after the convolution, instead of a stride."""


_LAYERS = (
    _Layer("slice1.0", 64, 11, 2, blur_after=True),
    _Layer("slice2.5", 192, 5, 2, pool_before=True),
    _Layer("slice3.9", 384, 3, 1, pool_before=True),
    _Layer("slice4.11", 256, 3, 1),
    _Layer("slice5.13", 256, 3, 1),
)


class StLpips(nn.Module):
    """ST-LPIPS with random weights; see :func:`load_st_lpips`.

    Args:
        shrink: divides the numbers of channels of the published network, for tests.
    """

    pixel_mean: Tensor
    pixel_scale: Tensor
    blur: Tensor

    def __init__(self, shrink: int = 1):
        super().__init__()
        channels = [3, *(layer.n_channels // shrink for layer in _LAYERS)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], layer.side, padding=layer.padding)
            for i, layer in enumerate(_LAYERS)
        )
        self.channel_weights = nn.ParameterList(torch.rand(n, 1, 1) for n in channels[1:])
        self.register_buffer("pixel_mean", torch.tensor(_PIXEL_MEAN)[:, None, None])
        self.register_buffer("pixel_scale", torch.tensor(_PIXEL_SCALE)[:, None, None])
        row = torch.tensor(_BINOMIAL)
        self.register_buffer("blur", row[:, None] * row)
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two batches of images [P, 3, h, w] in [0, 1], of any size -> [P]; 0 for equal images."""
        # One after the other: targets need no gradient.
        total = a.new_zeros(len(a))
        for weights, of_a, of_b in zip(self.channel_weights, self._features(a), self._features(b), strict=True):
            total = total + (weights * (of_a - of_b).square()).sum(1).mean((1, 2))
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        """The layers' outputs [P, C, h', w'], each pixel of length 1."""
        x, found = (2 * _extended(images) - 1 - self.pixel_mean) / self.pixel_scale, []
        for layer, convolution in zip(_LAYERS, self.convolutions, strict=True):
            if layer.pool_before:
                x = blurred_half(maximum3(x), self.blur)
            x = convolution(x)
            if layer.blur_after:
                x = blurred_half(x, self.blur)
            x = F.relu(x)
            # The offset in the root keeps its gradient finite where all channels are 0.
            found.append(x / ((x.square().sum(1, keepdim=True) + _EPSILON**2).sqrt() + _EPSILON))
        return found


def load_st_lpips() -> StLpips:
    """The published network on the CPU, whose file comes with the extra `perceptual`.

    Raises:
        FileNotFoundError: it is not installed.
        ValueError: the file is another one.
    """
    return st_lpips_of(ALEX.find())


def st_lpips_of(path: Path) -> StLpips:
    """The network with the weights of a file in the published format.

    Raises ValueError if names or shapes are others.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = StLpips()
    wanted = {}
    for i, layer in enumerate(_LAYERS):
        wanted[f"convolutions.{i}.weight"] = state.get(f"net.{layer.name}.weight")
        wanted[f"convolutions.{i}.bias"] = state.get(f"net.{layer.name}.bias")
        weights = state.get(f"lin{i}.model.1.weight")
        wanted[f"channel_weights.{i}"] = None if weights is None else weights[0]
    expected = network.state_dict()
    wrong = [k for k, value in wanted.items() if value is None or value.shape != expected[k].shape]
    if wrong:
        raise ValueError(
            f"{path}: expected the weights of ST-LPIPS, got none that fit for {wrong[0]}; install it again"
        )
    network.load_state_dict({**expected, **wanted})
    return network


def blurred_half(x: Tensor, kernel: Tensor) -> Tensor:
    """Every second row and column of images [P, C, h, w] after a blur with a kernel [3, 3].

    Returns [P, C, (h + 1) // 2 + 1, (w + 1) // 2 + 1].

    The border is reflected twice as wide as the blur needs, as in the published network.
    """
    # Slices, unlike torch's padding and pooling, have deterministic gradients on CUDA.
    for dim in (2, 3):
        n = x.shape[dim]
        x = torch.cat([x.narrow(dim, i, 1) for i in (2, 1)] + [x] + [x.narrow(dim, n - i, 1) for i in (2, 3)], dim)
    return F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), stride=2, groups=x.shape[1])


def maximum3(x: Tensor) -> Tensor:
    """The largest of each 3x3 pixels of images [P, C, h, w], [P, C, h - 2, w - 2]."""
    for dim in (2, 3):
        n = x.shape[dim] - 2
        x = torch.maximum(torch.maximum(x.narrow(dim, 0, n), x.narrow(dim, 1, n)), x.narrow(dim, 2, n))
    return x


def _extended(images: Tensor) -> Tensor:
    """Images that are too small, continued by their border pixels."""
    for dim in (2, 3):
        n = images.shape[dim]
        before = max(0, MIN_SIDE - n) // 2
        after = max(0, MIN_SIDE - n) - before
        if after:
            sizes = list(images.shape)
            sizes[dim] = before
            first = images.narrow(dim, 0, 1).expand(sizes)
            sizes[dim] = after
            images = torch.cat((first, images, images.narrow(dim, n - 1, 1).expand(sizes)), dim)
    return images
