"""Rendered frames as 8-bit images on their device: color, color with alpha, depth and attention."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ernerf_ti.portrait.records import RenderOutput

_OPAQUE = 0.5  # opacity from which a pixel counts as the head's
_OUTLIERS = 0.01  # fraction of the head's pixels left out at either end of the range
_DARKEST = 0.15  # brightness of the farthest depth, so that it stands out from the black of no head
_DEFAULT_RANGE = -0.5, 0.5  # scene units around the head's center: the extent of the scene's box


def quantized(values: Tensor) -> Tensor:
    """Values in [0, 1], clipped -> uint8, on the same device."""
    return (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def to_bytes(values: Tensor) -> np.ndarray:
    """Values in [0, 1], clipped -> uint8 on the host."""
    return quantized(values).cpu().numpy()


def picture_of(output: RenderOutput) -> np.ndarray:
    """[H, W, 3] uint8 RGB on the host."""
    return to_bytes(output.rgb)


def color_image(output: RenderOutput) -> Tensor:
    """[H, W, 3] uint8 RGB."""
    return quantized(output.rgb)


def opaque_image(output: RenderOutput) -> Tensor:
    """[H, W, 4] uint8 of a frame that has a background, for files with an alpha channel."""
    return F.pad(color_image(output), (0, 1), value=255)


def transparent_image(output: RenderOutput) -> Tensor:
    """[H, W, 4] uint8 RGB and straight alpha of a frame rendered without a background."""
    return with_straight_alpha(output.rgb, output.opacity)


def with_straight_alpha(rgb: Tensor, opacity: Tensor) -> Tensor:
    """Color times opacity [H, W, 3] and opacity [H, W] -> [H, W, 4] uint8 RGB and straight alpha."""
    alpha = opacity.clamp(0, 1)[..., None]
    return quantized(torch.cat((rgb / alpha.clamp(min=1e-3), alpha), -1))


def over_background(layer: Tensor, background: Tensor) -> Tensor:
    """[H, W, 4] uint8 color times opacity, and opacity, over [H, W, 3] in [0, 1] -> [H, W, 3] uint8."""
    color, opacity = layer[..., :3].float(), layer[..., 3:].float()
    return torch.addcmul(color, 255 - opacity, background).add_(0.5).clamp_(max=255).to(torch.uint8)


def attention_image(output: RenderOutput) -> Tensor:
    """[H, W, 3] uint8: audio attention in red and eye attention in green, each relative to its maximum in the frame,
    over the frame in gray."""
    assert output.audio_attention is not None and output.eye_attention is not None  # requested for this image
    gray = output.rgb.mean(-1) * 0.5
    maps = [values / values.max().clamp(min=1e-6) for values in (output.audio_attention, output.eye_attention)]
    return quantized(torch.stack((gray + maps[0] * 0.5, gray + maps[1] * 0.5, gray), -1))


class DepthImages:
    """Depth of the head as gray images, near bright, composited over black by the head's opacity.

    The range is the same in all frames, so that brightness does not flicker: the extent of the head in the first frame
    around its center, at the smallest and at the largest distance that the camera takes. Only the first frame waits for
    the device.

    Args:
        poses: [n, 4, 4] pose_world_from_camera of the frames; the head's center is the origin.
    """

    def __init__(self, poses: Tensor):
        self._distances = poses[:, :3, 3].double().norm(dim=1).tolist()
        self._range: tuple[float, float] | None = None

    def __call__(self, output: RenderOutput) -> Tensor:
        """[H, W, 3] uint8 of a frame; call it for the frames in their order."""
        opacity = output.opacity if output.head_opacity is None else output.head_opacity
        depth = output.depth / opacity.clamp(min=1e-3)  # the renderer's depth is a sum weighted by opacity
        if self._range is None:
            near, far = self._extent(depth[opacity > _OPAQUE] - self._distances[0])
            self._range = near + min(self._distances), far + max(self._distances)
        near, far = self._range
        brightness = ((far - depth) / (far - near)).clamp(0, 1) * (1 - _DARKEST) + _DARKEST
        return quantized(brightness * opacity)[..., None].repeat(1, 1, 3)

    @staticmethod
    def _extent(depth: Tensor) -> tuple[float, float]:
        """Nearest and farthest of the depths [K] of the head, relative to its center."""
        if not depth.numel():
            return _DEFAULT_RANGE
        ordered = depth.sort().values
        first = int(_OUTLIERS * (len(ordered) - 1))
        near, far = float(ordered[first]), float(ordered[-1 - first])
        return near, max(far, near + 1e-3)
