"""Fit an image with one 2-D hash grid and a small MLP: the smallest program that uses the kernels."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from ernerf_ti.media.images import read_image
from ernerf_ti.process.threads import adaptive_threads
from taichi_kernels import GridConfig, GridEncoding


def run(
    image: Path | None, size: int, steps: int, batch: int, seed: int, device: torch.device
) -> tuple[Tensor, float, int]:
    """Fit an image.

    Args:
        image: the file; None for a synthetic image.
        size: longer side in pixels.
        steps: of Adam.
        batch: pixels per step.
        seed: of the initial weights and the pixels drawn.
        device: where it is fitted.

    Returns:
        [H, 3 W, 3] target, fit and their absolute difference side by side, RGB in [0, 1]; PSNR in dB; parameters.

    Raises:
        OSError, ValueError: the image can't be read.
    """
    pixels = synthetic_image(size) if image is None else read_resized(image, size)
    torch.manual_seed(seed)
    target = torch.from_numpy(pixels).to(device)
    model = ImageField(max(target.shape[:2])).to(device)
    fit(model, target, steps, batch)
    with torch.no_grad():
        result = model(pixel_centers(target)).reshape(target.shape)
    beside = torch.cat((target, result, (result - target).abs()), 1)
    return beside, psnr(result, target), sum(p.numel() for p in model.parameters())


class ImageField(nn.Module):
    """Position in [-1, 1]^2 -> color: a multiresolution hash grid, then two layers."""

    def __init__(self, resolution: int):
        super().__init__()
        finest = max(16, resolution // 2)
        self.grid = GridEncoding(GridConfig(2, 10, 16, finest, log2_table_size=14, n_features=2))
        self.mlp = nn.Sequential(nn.Linear(self.grid.config.n_outputs, 64), nn.ReLU(), nn.Linear(64, 3), nn.Sigmoid())

    def forward(self, positions: Tensor) -> Tensor:
        return self.mlp(self.grid(positions))


def fit(model: ImageField, target: Tensor, steps: int, batch: int) -> None:
    positions, colors = pixel_centers(target), target.reshape(-1, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    progress = trange(steps, unit="step")
    for step in adaptive_threads(progress, positions.device.type):
        chosen = torch.randint(len(positions), (batch,), device=positions.device)
        loss = F.mse_loss(model(positions[chosen]), colors[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            progress.set_postfix(PSNR=f"{-10 * math.log10(loss.item()):.2f} dB")  # waits for the GPU


def pixel_centers(image: Tensor) -> Tensor:
    """[H, W, 3] -> [H W, 2] positions of the pixels in [-1, 1], x then y."""
    height, width = image.shape[:2]
    y = (torch.arange(height, device=image.device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=image.device) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((x, y), -1).reshape(-1, 2)


def psnr(result: Tensor, target: Tensor) -> float:
    return -10 * math.log10(F.mse_loss(result, target).item())


def synthetic_image(size: int) -> np.ndarray:
    """[size, size, 3] float32 in [0, 1]: a head in front of a window, with soft shading, hard edges, hair and noise."""
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size * 2 - 1
    rng = np.random.default_rng(3)

    def color(*rgb: float) -> np.ndarray:
        return np.array(rgb, np.float32)

    def blend(image: np.ndarray, mask: np.ndarray, paint: np.ndarray) -> np.ndarray:
        return image * (1 - mask[..., None]) + paint * mask[..., None]

    def inside(value: np.ndarray, softness: float = 1.5) -> np.ndarray:
        """1 where value < 0, with an edge of about a pixel."""
        return np.clip(0.5 - value * size / (2 * softness), 0, 1)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)

    panes = 0.75 + 0.25 * np.sign(np.sin(5 * x + 1) * np.sin(4 * y - 1))
    image = panes[..., None] * (color(0.55, 0.68, 0.78) + 0.15 * y[..., None] * color(-1, -0.4, 0.5))
    image = blend(image, inside(ellipse(0, 1.15, 0.85, 0.55)), color(0.24, 0.28, 0.42))
    weave = 0.5 + 0.5 * np.sin(60 * (x + y)) * np.sin(60 * (x - y))
    image = blend(image, 0.35 * weave * inside(ellipse(0, 1.15, 0.85, 0.55)), color(0.42, 0.46, 0.62))
    image = blend(image, inside(ellipse(0, 0.55, 0.2, 0.35)), color(0.66, 0.48, 0.40))
    strands = 0.5 + 0.5 * np.sin(70 * np.arctan2(y + 0.1, x) + 6 * np.hypot(x, y + 0.2))
    hair = color(0.20, 0.13, 0.09) + 0.22 * strands[..., None] ** 3 * color(1, 0.75, 0.5)
    image = blend(image, inside(ellipse(0, -0.18, 0.52, 0.62)), hair)
    light = np.clip(0.75 - 0.45 * x - 0.15 * y, 0.35, 1.15)
    image = blend(image, inside(ellipse(0, 0.0, 0.4, 0.52)), light[..., None] * color(0.93, 0.72, 0.60))
    for side in (-1, 1):
        image = blend(image, inside(ellipse(0.16 * side, -0.08, 0.075, 0.038)), color(0.95, 0.95, 0.93))
        image = blend(image, inside(ellipse(0.16 * side, -0.08, 0.034, 0.036)), color(0.22, 0.33, 0.30))
        image = blend(image, inside(ellipse(0.16 * side, -0.08, 0.015, 0.016)), color(0.02, 0.02, 0.02))
        brow = np.maximum(np.abs(y + 0.19 + 0.35 * (x - 0.16 * side) ** 2) - 0.014, np.abs(x - 0.16 * side) - 0.1)
        image = blend(image, inside(brow), color(0.22, 0.15, 0.11))
    image = blend(image, 0.5 * inside(ellipse(0.045, 0.09, 0.035, 0.09), 12), color(0.55, 0.36, 0.30))
    image = blend(image, inside(ellipse(0, 0.28, 0.14, 0.055)), color(0.72, 0.34, 0.34))
    image = blend(image, inside(ellipse(0, 0.28, 0.11, 0.022)), color(0.25, 0.08, 0.08))
    image = image + rng.normal(0, 0.006, image.shape)
    return np.clip(image, 0, 1).astype(np.float32)


def read_resized(path: Path, size: int) -> np.ndarray:
    """[H, W, 3] float32 RGB in [0, 1] of an image file, the longer side at most `size`.

    Raises FileNotFoundError or ValueError, naming the file, if it can't be read.
    """
    image = read_image(path)[..., :3]
    scale = min(1.0, size / max(image.shape[:2]))
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image).astype(np.float32) / 255
