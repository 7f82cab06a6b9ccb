"""Layers over a background in plain torch."""

from torch import Tensor


def show_layers(layer: Tensor, background: Tensor, pixels: Tensor, rgb: Tensor, opacity: Tensor) -> Tensor:
    """Twin of :func:`taichi_kernels.show_layers`."""
    layer = layer.to(background.dtype)
    shown = layer[:, :3] + (255 - layer[:, 3:]) * background
    at = pixels.long()
    shown[at] = 255 * rgb + (1 - opacity)[:, None] * shown[at]
    return (shown.clamp(0, 255) + 0.5).byte()
