"""Fit an image with one 2-D hash grid and a small MLP: the smallest program that uses the kernels.

    ernerf-ti fit-image
    ernerf-ti fit-image photo.jpg -o fit.png --device cuda

Writes the image, the fit and their difference side by side. Without a file, a synthetic image is fitted.
"""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.cli.options import Command, Device, Output, Positional, check_range
from ernerf_ti.cli.paths import existing_file, make_parent, output_file
from ernerf_ti.media.files import require_not_replaced
from ernerf_ti.media.images import write_image
from ernerf_ti.process.device import resolve_device


@dataclass(frozen=True)
class FitImageOptions:
    """Options of `ernerf-ti fit-image`."""

    image: Positional[Path | None] = None
    """Image file to fit; by default a synthetic image."""
    output: Output = Path("fit_image.png")
    """Image file to write."""
    size: int = 384
    """Longer side of the image in pixels; larger images are scaled down."""
    steps: int = 400
    """Training steps."""
    batch: int = 16384
    """Pixels per step."""
    seed: int = 0
    """Seed of all random numbers."""
    device: Device = "auto"
    """Device to train on; auto is CUDA if torch can use it, else the CPU."""


def _fit(options: FitImageOptions) -> None:
    check_range("size", options.size, 8, 1 << 13)
    check_range("steps", options.steps, 1, 1 << 30)
    check_range("batch", options.batch, 1, 1 << 26)
    if options.image is not None:
        existing_file(options.image, "an image")
        require_not_replaced(options.image, "image", options.output)
    make_parent(output_file(options.output))
    device = resolve_device(options.device)

    from ernerf_ti.experiments.fit_image import run

    beside, psnr, n_parameters = run(options.image, options.size, options.steps, options.batch, options.seed, device)
    print(f"PSNR {psnr:.2f} dB, {n_parameters} parameters")
    write_image(options.output, (beside.clamp(0, 1) * 255).round().byte().cpu().numpy())
    print(options.output)


main = Command("fit-image", FitImageOptions, _fit, __doc__)
