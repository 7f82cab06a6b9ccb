"""Images of the debug views: depth, opacity, attention, normals and others, from a rendered view."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ernerf_ti.viewer.occupancy_boxes import draw_boxes
from ernerf_ti.viewer.render_job import RenderedView

_SEEN = 0.05  # opacity that counts as a surface
_HALF_DEPTH = 0.5  # scene units in front of and behind the head's center: the depth of the scene's box
_CHECKS = 8  # squares along a side of the checkerboard for transparency
_NORMAL_BLUR = 1 / 160  # of the image height: depth is quantized by the step size along rays


@dataclass(frozen=True)
class Picture:
    """An image to show, with its legend."""

    image: np.ndarray
    """[H, W, 3] uint8."""
    legend: str
    """Meaning of the colors."""


def picture_of_mode(
    view: RenderedView, mode: str, max_steps: int, edges: Callable[[], np.ndarray] | None = None
) -> Picture:
    """The image of a mode.

    Args:
        view: rendered with the extra outputs that the mode needs.
        mode: one of :data:`ernerf_ti.viewer.state.MODES`.
        max_steps: largest number of samples per ray.
        edges: returns the edges of the occupied boxes, for "occupancy".
    """
    if mode == "color":
        return Picture(color_picture(view), "")
    if mode == "depth":
        return _depth(view)
    if mode == "opacity":
        return Picture(_repeat(view.output.opacity.cpu().numpy()), "head and torso, 0 black to 1 white")
    if mode in ("audio attention", "eye attention"):
        return _attention(view, "audio_attention" if mode == "audio attention" else "eye_attention")
    if mode == "uncertainty":
        assert view.output.uncertainty is not None  # requested for this mode
        values = view.output.uncertainty.cpu().numpy()
        largest = _high_end(values)
        return Picture(_map(values / largest, cv2.COLORMAP_VIRIDIS), f"learned scale of the error, 0 to {largest:.2g}")
    if mode == "normals":
        return Picture(_normals(view), "from depth, camera axes: red right, green up, blue towards the camera")
    if mode == "samples":
        values = view.output.n_samples.cpu().numpy()
        legend = f"per ray, 0 to {max_steps}; mean {values.mean():.1f}"
        return Picture(_map(values / max_steps, cv2.COLORMAP_TURBO), legend)
    if mode == "occupancy":
        dim = (color_picture(view) * 0.35).astype(np.uint8)
        assert edges is not None  # given for this mode
        found = edges()
        image = draw_boxes(dim, found, view.pose.cpu().numpy(), view.intrinsics)
        return Picture(image, f"surface of the occupied cells, {len(found)} edges")
    return _deformation(view)


def color_picture(view: RenderedView) -> np.ndarray:
    """[H, W, 3] uint8, over a checkerboard if there is no background."""
    rgb = view.output.rgb.cpu().numpy()
    if view.request.look.background == "none" or _lacks_picture(view):
        alpha = view.output.opacity.clamp(0, 1).cpu().numpy()[..., None]
        rgb = rgb + (1 - alpha) * _checkerboard(rgb.shape[0], rgb.shape[1])
    return _bytes(rgb)


def transparent_picture(view: RenderedView) -> np.ndarray:
    """[H, W, 4] uint8 RGB and unassociated alpha of a view without background."""
    alpha = view.output.opacity.clamp(0, 1).cpu().numpy()[..., None]
    return _bytes(np.concatenate((view.output.rgb.cpu().numpy() / np.maximum(alpha, 1e-3), alpha), -1))


def difference_picture(image: np.ndarray, true: np.ndarray) -> Picture:
    """Absolute difference of two images [H, W, 3] uint8; black where they are equal."""
    error = image.astype(np.float32) - true
    squared = float(np.square(error / 255).mean())
    psnr = -10 * math.log10(squared) if squared > 0 else math.inf
    return Picture(_map(np.abs(error).mean(-1) / 64, cv2.COLORMAP_INFERNO), f"0 to 64 of 255; PSNR {psnr:.1f} dB")


def _depth(view: RenderedView) -> Picture:
    seen = view.head_opacity > _SEEN
    depth = view.output.depth / view.head_opacity.clamp(min=_SEEN)
    center = float(view.pose[:3, 3].norm())
    nearness = (center + _HALF_DEPTH - depth) / (2 * _HALF_DEPTH)
    image = _map((nearness * seen).cpu().numpy(), cv2.COLORMAP_MAGMA)
    image[~seen.cpu().numpy()] = 0
    return Picture(image, f"distance, {center - _HALF_DEPTH:.2f} bright to {center + _HALF_DEPTH:.2f} dark")


def _attention(view: RenderedView, name: str) -> Picture:
    values = getattr(view.output, name).cpu().numpy()
    largest = _high_end(values)
    heat = _map(values / largest, cv2.COLORMAP_INFERNO).astype(np.float32)
    gray = color_picture(view).mean(-1, keepdims=True) * 0.35
    return Picture(
        np.clip(np.maximum(heat, gray), 0, 255).astype(np.uint8), f"accumulated along the ray, 0 to {largest:.2g}"
    )


def _normals(view: RenderedView) -> np.ndarray:
    """[H, W, 3] uint8 of the surface at the expected depth, smoothed by less than a hundredth of the image height."""
    weight = view.head_opacity.cpu().numpy().astype(np.float32)
    directions = (view.rays_d @ view.pose[:3, :3]).cpu().numpy()
    distance = view.output.depth.cpu().numpy()
    width = max(0.8, _NORMAL_BLUR * len(weight))
    # Distances are weighted by opacity already, so that empty pixels do not bend the normals at the outline.
    smooth = cv2.GaussianBlur(distance, (0, 0), width) / np.maximum(cv2.GaussianBlur(weight, (0, 0), width), 1e-3)
    points = directions * smooth[..., None]
    down, right = np.gradient(points, axis=(0, 1))
    normals = np.cross(right, down)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    normals *= -np.sign((normals * directions).sum(-1, keepdims=True))  # towards the camera
    image = _bytes((normals * (1, -1, -1) + 1) / 2)
    image[weight < 0.5] = 0
    return image


def _deformation(view: RenderedView) -> Picture:
    """Direction of the torso's deformation as hue, its length as brightness."""
    if view.torso_offset is None:
        return Picture(np.zeros((*view.output.opacity.shape, 3), np.uint8), "no deformation: the torso is off")
    offset = view.torso_offset.cpu().numpy() * (np.array(view.output.opacity.shape) / 2)  # pixels of this image
    length = np.linalg.norm(offset, axis=-1)
    largest = max(float(length.max()), 1e-6)
    hue = (np.degrees(np.arctan2(offset[..., 0], offset[..., 1])) % 360) / 2
    hsv = np.stack((hue, np.full_like(hue, 220), 255 * length / largest), -1).astype(np.uint8)
    return Picture(
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB),
        f"hue: direction (red right, green down); brightness: 0 to {largest:.2g} of {offset.shape[1]} pixels",
    )


def _lacks_picture(view: RenderedView) -> bool:
    return view.request.look.background == "picture" and view.request.background_version == 0


def _checkerboard(height: int, width: int) -> np.ndarray:
    side = max(1, height // _CHECKS // 2)
    rows, columns = np.indices((height, width)) // side
    return np.where((rows + columns) % 2, 0.62, 0.42)[..., None].astype(np.float32)


def _high_end(values: np.ndarray) -> float:
    """The largest value, outliers aside."""
    return max(float(np.quantile(values, 0.998)), 1e-6)


def _map(values: np.ndarray, colors: int) -> np.ndarray:
    return cv2.cvtColor(cv2.applyColorMap(_bytes(values), colors), cv2.COLOR_BGR2RGB)


def _repeat(values: np.ndarray) -> np.ndarray:
    return np.repeat(_bytes(values)[..., None], 3, axis=-1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
