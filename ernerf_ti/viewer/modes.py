"""A rendered view as the picture of a mode."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ernerf_ti.viewer.occupancy_boxes import draw_boxes
from ernerf_ti.viewer.render_job import RenderedView

_SEEN = 0.05  # opacity below which there is no surface
_HALF_DEPTH = 0.5  # scene units before and behind the head's center: the depth of the scene's box
_CHECKS = 8  # squares along a side that stand for transparency
_NORMAL_BLUR = 1 / 160  # of the picture's height: depth is quantized by the steps of the rays


@dataclass(frozen=True)
class Picture:
    """What is shown of a view."""

    image: np.ndarray
    """[H, W, 3] uint8."""
    legend: str
    """What the colors stand for."""


def picture_of_mode(
    view: RenderedView, mode: str, max_steps: int, edges: Callable[[], np.ndarray] | None = None
) -> Picture:
    """The picture of a mode.

    Args:
        view: rendered with what the mode needs.
        mode: one of :data:`ernerf_ti.viewer.state.MODES`.
        max_steps: most samples of a ray.
        edges: gives the edges of the occupied boxes, for "occupancy".
    """
    if mode == "color":
        return Picture(color_picture(view), "")
    if mode == "depth":
        return _depth(view)
    if mode == "opacity":
        return Picture(_repeat(view.output.opacity.cpu().numpy()), "head and torso, black 0, white 1")
    if mode in ("audio attention", "eye attention"):
        return _attention(view, "audio_attention" if mode == "audio attention" else "eye_attention")
    if mode == "uncertainty":
        values = view.output.uncertainty.cpu().numpy()
        largest = _high_end(values)
        return Picture(_map(values / largest, cv2.COLORMAP_VIRIDIS), f"learned error scale, 0 to {largest:.2g}")
    if mode == "normals":
        return Picture(_normals(view), "from the depth, camera axes: right red, up green, to the camera blue")
    if mode == "samples":
        values = view.output.n_samples.cpu().numpy()
        legend = f"samples per ray, 0 to {max_steps}; mean {values.mean():.1f}"
        return Picture(_map(values / max_steps, cv2.COLORMAP_TURBO), legend)
    if mode == "occupancy":
        dim = (color_picture(view) * 0.35).astype(np.uint8)
        found = edges()
        image = draw_boxes(dim, found, view.pose.cpu().numpy(), view.intrinsics)
        return Picture(image, f"surface of the occupied boxes, {len(found)} edges")
    return _deformation(view)


def color_picture(view: RenderedView) -> np.ndarray:
    """[H, W, 3] uint8; over a chequered ground if there is no background."""
    rgb = view.output.rgb.cpu().numpy()
    if view.request.look.background == "none" or _lacks_picture(view):
        alpha = view.output.opacity.clamp(0, 1).cpu().numpy()[..., None]
        rgb = rgb + (1 - alpha) * _chequered(rgb.shape[0], rgb.shape[1])
    return _bytes(rgb)


def transparent_picture(view: RenderedView) -> np.ndarray:
    """[H, W, 4] uint8 RGB and straight alpha of a view without background."""
    alpha = view.output.opacity.clamp(0, 1).cpu().numpy()[..., None]
    return _bytes(np.concatenate((view.output.rgb.cpu().numpy() / np.maximum(alpha, 1e-3), alpha), -1))


def difference_picture(image: np.ndarray, true: np.ndarray) -> Picture:
    """Where two pictures [H, W, 3] uint8 differ, and by how much; black is no difference."""
    error = image.astype(np.float32) - true
    squared = float(np.square(error / 255).mean())
    psnr = -10 * math.log10(squared) if squared > 0 else math.inf
    return Picture(_map(np.abs(error).mean(-1) / 64, cv2.COLORMAP_INFERNO), f"0 to 64 of 255; PSNR {psnr:.1f} dB")


def _depth(view: RenderedView) -> Picture:
    seen = view.head_opacity > _SEEN
    depth = view.output.depth / view.head_opacity.clamp(min=_SEEN)
    center = float(view.pose[:3, 3].norm())
    share = (center + _HALF_DEPTH - depth) / (2 * _HALF_DEPTH)
    image = _map((share * seen).cpu().numpy(), cv2.COLORMAP_MAGMA)
    image[~seen.cpu().numpy()] = 0
    return Picture(image, f"distance, bright {center - _HALF_DEPTH:.2f} to dark {center + _HALF_DEPTH:.2f}")


def _attention(view: RenderedView, name: str) -> Picture:
    values = getattr(view.output, name).cpu().numpy()
    largest = _high_end(values)
    heat = _map(values / largest, cv2.COLORMAP_INFERNO).astype(np.float32)
    gray = color_picture(view).mean(-1, keepdims=True) * 0.35
    return Picture(
        np.clip(np.maximum(heat, gray), 0, 255).astype(np.uint8), f"summed along the ray, 0 to {largest:.2g}"
    )


def _normals(view: RenderedView) -> np.ndarray:
    """[H, W, 3] uint8 of the surface at the expected depth, smoothed by less than a hundredth of the picture."""
    weight = view.head_opacity.cpu().numpy().astype(np.float32)
    directions = (view.rays_d @ view.pose[:3, :3]).cpu().numpy()
    distance = view.output.depth.cpu().numpy()
    width = max(0.8, _NORMAL_BLUR * len(weight))
    # Distances are weighted by opacity already, so that what is not there does not pull at the outline.
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
    """Direction of the torso's look-up as hue, its length as brightness."""
    if view.torso_offset is None:
        return Picture(np.zeros((*view.output.opacity.shape, 3), np.uint8), "the torso is off")
    offset = view.torso_offset.cpu().numpy() * (np.array(view.output.opacity.shape) / 2)  # pixels of this picture
    length = np.linalg.norm(offset, axis=-1)
    largest = max(float(length.max()), 1e-6)
    hue = (np.degrees(np.arctan2(offset[..., 0], offset[..., 1])) % 360) / 2
    hsv = np.stack((hue, np.full_like(hue, 220), 255 * length / largest), -1).astype(np.uint8)
    return Picture(
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB),
        f"hue: direction (right red, down green), brightness: 0 to {largest:.2g} pixels of {offset.shape[1]}",
    )


def _lacks_picture(view: RenderedView) -> bool:
    return view.request.look.background == "picture" and view.request.background_version == 0


def _chequered(height: int, width: int) -> np.ndarray:
    side = max(1, height // _CHECKS // 2)
    rows, columns = np.indices((height, width)) // side
    return np.where((rows + columns) % 2, 0.62, 0.42)[..., None].astype(np.float32)


def _high_end(values: np.ndarray) -> float:
    """The largest value but for a few."""
    return max(float(np.quantile(values, 0.998)), 1e-6)


def _map(shares: np.ndarray, colors: int) -> np.ndarray:
    return cv2.cvtColor(cv2.applyColorMap(_bytes(shares), colors), cv2.COLOR_BGR2RGB)


def _repeat(values: np.ndarray) -> np.ndarray:
    return np.repeat(_bytes(values)[..., None], 3, axis=-1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
