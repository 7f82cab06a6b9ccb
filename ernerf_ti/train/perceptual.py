"""Perceptual losses on image patches."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.train.config import TrainConfig
from ernerf_ti.train.st_lpips import load_st_lpips

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
_MIN_SIDE = 32  # of images for AlexNet
MIN_PATCH = {"st-lpips": 32}
"""Least sides of the squares around lips and eyes in pixels, by the loss."""
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2

PerceptualLoss = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images [P, 3, h, w] in [0, 1] -> [P]; 0 for equal images."""


def resolve_perceptual(config: TrainConfig) -> tuple[TrainConfig, str]:
    """Replace `finetune.perceptual = "auto"` by the best perceptual loss that is installed.

    A run is resolved once, when it starts: a resumption must not train with another loss.

    Returns:
        The configuration, and a line that says what was chosen and what would be better; "" if nothing was chosen.
    """
    if config.finetune.perceptual != "auto" or not config.finetune.iterations:
        return config, ""
    kind, lacking = _best()
    note = f"fine-tuning with the perceptual loss {kind}"
    if lacking:
        note += f"; st-lpips would be better, but {lacking}"
    return replace(config, finetune=replace(config.finetune, perceptual=kind)), note


def _best() -> tuple[Literal["st-lpips", "lpips", "dssim"], str]:
    """The best loss that is installed, and what st-lpips lacks; "" if it is there."""
    try:
        load_st_lpips()
    except (FileNotFoundError, ValueError) as error:
        lacking = str(error)
    else:
        return "st-lpips", ""
    try:
        _load_lpips()
    except (FileNotFoundError, ImportError):
        return "dssim", lacking
    return "lpips", lacking


def perceptual_loss(kind: str, device: torch.device | str = "cpu") -> PerceptualLoss | None:
    """The perceptual loss "st-lpips", "lpips" or "dssim", or None for "none".

    Raises:
        FileNotFoundError: weights are not on this machine.
        ImportError: the package lpips is not installed, or can't be imported.
        ValueError: another name, or a weight file that is another one.
    """
    if kind == "none":
        return None
    if kind == "dssim":
        return dssim
    if kind not in ("st-lpips", "lpips"):
        raise ValueError(f"perceptual: expected st-lpips, lpips, dssim or none, got {kind!r}; choose one of these")
    try:
        network = (load_st_lpips() if kind == "st-lpips" else _load_lpips()).to(device)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise type(error)(f"perceptual: {error}; or train with --finetune.perceptual dssim or none") from error
    if kind == "st-lpips":
        return network

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network(2 * _padded(a) - 1, 2 * _padded(b) - 1).flatten()

    return distance


def _load_lpips() -> torch.nn.Module:
    """LPIPS on AlexNet [Zhang et al. 2018]. Raises FileNotFoundError or ImportError, saying what to install."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if not weights.is_file():
        raise FileNotFoundError(
            f"it needs AlexNet's weights: download {ALEXNET_FILE} from PyTorch's model zoo to {weights.parent}"
        )
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # torchvision raises the latter beside another build of torch
        raise ImportError(
            f"the package lpips can't be imported ({' '.join(str(error).split())}): pip install 'ernerf-ti[lpips]' "
            "with torchvision of the same build as torch"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips uses deprecated arguments of torchvision
        return lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False)


def dssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural dissimilarity (1 - SSIM) / 2 [Wang et al. 2004], Gaussian windows of 11 pixels.

    Args:
        a, b: [P, 3, h, w] in [0, 1].

    Returns:
        [P].
    """
    if a.is_cuda:
        # Channel by channel in memory. For rendered patches, whose channels lie side by side, cuDNN would convolve, and
        # round to 10 bits by default (TF32); variances are small differences of what is convolved.
        a, b = a.contiguous(), b.contiguous()
    side = min(_WINDOW, (min(a.shape[2:]) - 1) // 2 * 2 + 1)
    x = torch.arange(side, dtype=a.dtype, device=a.device) - side // 2
    row = torch.exp(-(x**2) / (2 * _SIGMA**2))
    row = row / row.sum()
    kernel = (row[:, None] * row)[None, None].expand(a.shape[1], 1, side, side)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, kernel, groups=a.shape[1])

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return (1 - (luminance * structure).mean((1, 2, 3))) / 2


def _padded(images: Tensor) -> Tensor:
    """Pad images that are too small with zeros."""
    rows, columns = (max(0, (_MIN_SIDE + 1 - side) // 2) for side in images.shape[2:])
    return F.pad(images, (columns, columns, rows, rows))
