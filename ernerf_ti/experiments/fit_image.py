"""Fit a picture with one 2-D hash grid and a small MLP: the smallest program that uses the kernels.

    python tools/fit_image.py                      # a synthetic picture, on the CPU
    python tools/fit_image.py photo.jpg -o fit.png --device cuda

Writes the picture, the fit, and their difference side by side.
"""

import argparse
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from taichi_kernels import GridConfig, GridEncoding


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", nargs="?", type=Path, help="a picture file; a synthetic one if left out")
    parser.add_argument("-o", "--output", type=Path, default=Path("fit_image.png"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", type=int, default=384, help="longer side of the picture in pixels")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16384, help="pixels per step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: expected a CUDA device, got none that torch can use; leave the option out for the CPU")
    for name, least in (("size", 8), ("steps", 1), ("batch", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(options, name)}; pass a larger number")
    try:
        picture = read_picture(options.image, options.size) if options.image else synthetic_picture(options.size)
        options.output.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    torch.manual_seed(options.seed)
    target = torch.from_numpy(picture).to(options.device)
    model = ImageField(max(target.shape[:2])).to(options.device)
    fit(model, target, options.steps, options.batch)
    with torch.no_grad():
        result = model(pixel_centers(target)).reshape(target.shape)
    print(f"PSNR {psnr(result, target):.2f} dB, {sum(p.numel() for p in model.parameters())} parameters")
    write_picture(options.output, torch.cat((target, result, (result - target).abs()), 1))
    print(options.output)
    return 0


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
    for step in progress:
        chosen = torch.randint(len(positions), (batch,), device=positions.device)
        loss = F.mse_loss(model(positions[chosen]), colors[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            progress.set_postfix(PSNR=f"{-10 * math.log10(loss.item()):.2f} dB")  # waits for the GPU


def pixel_centers(picture: Tensor) -> Tensor:
    """[H, W, 3] -> [H W, 2] positions of the pixels in [-1, 1], x then y."""
    height, width = picture.shape[:2]
    y = (torch.arange(height, device=picture.device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=picture.device) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((x, y), -1).reshape(-1, 2)


def psnr(result: Tensor, target: Tensor) -> float:
    return -10 * math.log10(F.mse_loss(result, target).item())


def synthetic_picture(size: int) -> np.ndarray:
    """[size, size, 3] float32 in [0, 1]: a head before a window, with soft shading, hard edges, hair and grain."""
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size * 2 - 1
    rng = np.random.default_rng(3)

    def color(*rgb: float) -> np.ndarray:
        return np.array(rgb, np.float32)

    def blend(picture: np.ndarray, mask: np.ndarray, paint: np.ndarray) -> np.ndarray:
        return picture * (1 - mask[..., None]) + paint * mask[..., None]

    def inside(value: np.ndarray, softness: float = 1.5) -> np.ndarray:
        """1 where value < 0, with an edge of about a pixel."""
        return np.clip(0.5 - value * size / (2 * softness), 0, 1)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)

    panes = 0.75 + 0.25 * np.sign(np.sin(5 * x + 1) * np.sin(4 * y - 1))
    picture = panes[..., None] * (color(0.55, 0.68, 0.78) + 0.15 * y[..., None] * color(-1, -0.4, 0.5))
    picture = blend(picture, inside(ellipse(0, 1.15, 0.85, 0.55)), color(0.24, 0.28, 0.42))
    weave = 0.5 + 0.5 * np.sin(60 * (x + y)) * np.sin(60 * (x - y))
    picture = blend(picture, 0.35 * weave * inside(ellipse(0, 1.15, 0.85, 0.55)), color(0.42, 0.46, 0.62))
    picture = blend(picture, inside(ellipse(0, 0.55, 0.2, 0.35)), color(0.66, 0.48, 0.40))
    strands = 0.5 + 0.5 * np.sin(70 * np.arctan2(y + 0.1, x) + 6 * np.hypot(x, y + 0.2))
    hair = color(0.20, 0.13, 0.09) + 0.22 * strands[..., None] ** 3 * color(1, 0.75, 0.5)
    picture = blend(picture, inside(ellipse(0, -0.18, 0.52, 0.62)), hair)
    light = np.clip(0.75 - 0.45 * x - 0.15 * y, 0.35, 1.15)
    picture = blend(picture, inside(ellipse(0, 0.0, 0.4, 0.52)), light[..., None] * color(0.93, 0.72, 0.60))
    for side in (-1, 1):
        picture = blend(picture, inside(ellipse(0.16 * side, -0.08, 0.075, 0.038)), color(0.95, 0.95, 0.93))
        picture = blend(picture, inside(ellipse(0.16 * side, -0.08, 0.034, 0.036)), color(0.22, 0.33, 0.30))
        picture = blend(picture, inside(ellipse(0.16 * side, -0.08, 0.015, 0.016)), color(0.02, 0.02, 0.02))
        brow = np.maximum(np.abs(y + 0.19 + 0.35 * (x - 0.16 * side) ** 2) - 0.014, np.abs(x - 0.16 * side) - 0.1)
        picture = blend(picture, inside(brow), color(0.22, 0.15, 0.11))
    picture = blend(picture, 0.5 * inside(ellipse(0.045, 0.09, 0.035, 0.09), 12), color(0.55, 0.36, 0.30))
    picture = blend(picture, inside(ellipse(0, 0.28, 0.14, 0.055)), color(0.72, 0.34, 0.34))
    picture = blend(picture, inside(ellipse(0, 0.28, 0.11, 0.022)), color(0.25, 0.08, 0.08))
    picture = picture + rng.normal(0, 0.006, picture.shape)
    return np.clip(picture, 0, 1).astype(np.float32)


def read_picture(path: Path, size: int) -> np.ndarray:
    """[H, W, 3] float32 RGB in [0, 1], the longer side at most `size`."""
    if not path.is_file():
        raise ValueError(f"image: expected a picture file, got {path}, which does not exist; check the path")
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"image: expected a picture that OpenCV reads, got {path}; convert it to PNG or JPEG")
    scale = min(1.0, size / max(picture.shape[:2]))
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[..., ::-1]).astype(np.float32) / 255


def write_picture(path: Path, picture: Tensor) -> None:
    """Write [H, W, 3] RGB in [0, 1], to a temporary name first."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    encoded, data = cv2.imencode(".png", pixels[..., ::-1])
    if not encoded:
        raise RuntimeError(f"output: OpenCV could not encode a picture of shape {pixels.shape}")
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_bytes(data.tobytes())
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
