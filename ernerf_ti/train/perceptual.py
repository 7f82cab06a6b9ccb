"""Losses that compare patches as a viewer would."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
_LEAST_SIDE = 32  # AlexNet's layers leave nothing of smaller pictures
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2

PerceptualLoss = Callable[[Tensor, Tensor], Tensor]
"""Two [P, 3, h, w] pictures in [0, 1] -> [P]; 0 for equal ones."""


def best_installed() -> tuple[str, str]:
    """The best perceptual loss that can be computed on this machine, and what would be better; "" if nothing."""
    try:
        perceptual_loss("lpips")
    except (FileNotFoundError, ImportError) as error:
        return "dssim", f"LPIPS would be better: {error}"
    return "lpips", ""


def perceptual_loss(kind: str, device: torch.device | str = "cpu") -> PerceptualLoss | None:
    """A loss by its name: "lpips", "dssim", None for "none", or the best installed one for "auto".

    Raises:
        FileNotFoundError: AlexNet's weights are not on this machine.
        ImportError: the package lpips is not installed, or does not load.
        ValueError: another name.
    """
    if kind == "auto":
        kind, _ = best_installed()
    if kind == "none":
        return None
    if kind == "dssim":
        return dssim
    if kind != "lpips":
        raise ValueError(f"perceptual: expected auto, lpips, dssim or none, got {kind!r}; choose one of these")
    weights = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if not weights.is_file():
        raise FileNotFoundError(
            f"{weights}: expected AlexNet's weights for LPIPS, got no such file; download {ALEXNET_FILE} from "
            "PyTorch's model zoo on a machine with a network and put it there, or train with "
            "--finetune.perceptual dssim or none"
        )
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # torchvision raises the latter beside another build of torch
        raise ImportError(
            f"perceptual: expected the packages lpips and torchvision, got {error}; "
            "pip install 'ernerf-ti[lpips]' with torchvision of the same build as torch, or train with "
            "--finetune.perceptual dssim or none"
        ) from error
    network = lpips.LPIPS(net="alex", verbose=False).to(device).eval().requires_grad_(False)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network(2 * _padded(a) - 1, 2 * _padded(b) - 1).flatten()

    return distance


def dssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural dissimilarity (1 - SSIM) / 2 [Wang et al. 2004], Gaussian windows of 11 pixels.

    Args:
        a, b: [P, 3, h, w] in [0, 1].

    Returns:
        [P].
    """
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


def _padded(pictures: Tensor) -> Tensor:
    """Zeros around pictures that are too small."""
    rows, columns = (max(0, (_LEAST_SIDE + 1 - side) // 2) for side in pictures.shape[2:])
    return F.pad(pictures, (columns, columns, rows, rows))
