"""Frames of a capture as rays with targets, one frame at a time."""

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import audio_context
from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import HEAD, Split
from ernerf_ti.portrait.camera import pixel_coords, pixel_rays, scene_from_capture
from ernerf_ti.portrait.records import FrameInputs, RayBatch
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.train.pixel_sampling import (
    Rectangle,
    eyes_rectangle,
    face_rectangle,
    head_rectangle,
    inside,
    lips_rectangle,
)

_UNSURE, _OUTSIDE, _HEAD = range(3)
_OUTLINE = 1 / 64  # of the image height, on either side of the head's outline: hair is translucent and labels err
_CLOSURE_BINS = (0.1, 0.2, 0.3, 0.5, 0.7)
_CACHE_BYTES = 1 << 31  # of images; frames of a longer clip are read from disk again


class TrainingFrames:
    """Frames of a split of a capture.

    Args:
        capture: the capture.
        split: `capture.train` or `capture.val`.
        device: of rays and targets.
    """

    def __init__(self, capture: Capture, split: Split, device: torch.device | str = "cpu"):
        self.capture, self.split, self.device = capture, split, torch.device(device)
        self.height, self.width = capture.height, capture.width
        self.poses = scene_from_capture(torch.from_numpy(split.poses)).float()
        """[n, 4, 4] pose_world_from_camera, scene."""
        self.windows = torch.from_numpy(capture.audio_windows)
        self._cache = _ImageCache(_CACHE_BYTES)

    def __len__(self) -> int:
        return len(self.split)

    def own_windows(self) -> Tensor:
        """[n, steps, C] audio windows of the split's frames."""
        return self.windows[torch.from_numpy(self.split.audio_ids).clamp(max=len(self.windows) - 1)]

    @cached_property
    def closure_balance(self) -> np.ndarray:
        """[n] float64 probabilities of the frames by the inverse frequency of their eye closure."""
        bins = np.digitize(self.capture.eye_closures[self.split.frame_ids], _CLOSURE_BINS)
        weights = 1 / np.bincount(bins)[bins]
        return weights / weights.sum()

    def inputs(self, i: int, trained: bool = True) -> FrameInputs:
        """Inputs of the fields for frame i of the split.

        Args:
            i: index in the split.
            trained: whether the frame is trained on, and has its own appearance embedding.
        """
        return FrameInputs(
            audio_context(self.windows, int(self.split.audio_ids[i])).to(self.device),
            torch.from_numpy(self.capture.eye_closures[self.split.frame_ids[i]][None]).to(self.device),
            i if trained else None,
            self.poses[i].to(self.device),
        )

    def rays(self, i: int, pixels: Tensor, layer: str, background: Tensor | None = None) -> RayBatch:
        """Rays of frame i.

        Args:
            i: index in the split.
            pixels: [N, 2] rows and columns.
            layer: "head": the target is the whole frame, to be rendered over the captured torso over the background;
                "torso": the target is the captured torso over the background;
                "portrait": the target is the whole frame, to be rendered over the background.
            background: [K, 3] in [0, 1] replaces the capture's background for the first K of the pixels.
        """
        rows, columns = pixels.unbind(1)
        own = _colors(self._cache.get(("background",), lambda: self.capture.background), rows, columns)
        behind = own if background is None else torch.cat((background, own[len(background) :]))
        with_torso = behind if layer == "portrait" else self._torso_over(i, rows, columns, behind)
        if layer == "torso":
            target = with_torso
        else:
            target = _colors(self._cache.get(("image", i), lambda: self._image(i)), rows, columns)
            behind = with_torso
        on_device = pixels.to(self.device)
        rays_o, rays_d = pixel_rays(self.poses[i].to(self.device), tuple(self.capture.intrinsics), on_device)
        return RayBatch(
            rays_o,
            rays_d,
            pixel_coords(on_device, self.height, self.width),
            target.to(self.device),
            behind.to(self.device),
            inside(pixels, self.face(i)).to(self.device),
        )

    def randomize_background(self, batch: RayBatch, i: int, pixels: Tensor, colors: Tensor) -> None:
        """Replace the background of rays by random colors where the segmentation is certain.

        Pixels of the head keep their target; elsewhere the random color is the target too. Near the head's outline,
        and in a capture without segmentation, nothing changes.

        Args:
            batch: rays of frame i for the layer "head"; changed in place.
            i: index in the split.
            pixels: [N, 2] rows and columns.
            colors: [K, 3] in [0, 1], for the first K of the pixels.
        """
        if not len(colors) or not self.capture.paths.labels(self.split.frame_ids[i]).is_file():
            return
        rows, columns = pixels[: len(colors)].unbind(1)
        regions = torch.from_numpy(self._cache.get(("regions", i), lambda: self._regions(i)))[rows, columns]
        certain, outside = (mask.to(self.device)[:, None] for mask in (regions != _UNSURE, regions == _OUTSIDE))
        colors = colors.to(self.device)
        batch.background_rgb[: len(colors)] = torch.where(certain, colors, batch.background_rgb[: len(colors)])
        batch.target_rgb[: len(colors)] = torch.where(outside, colors, batch.target_rgb[: len(colors)])

    def head(self, i: int) -> Rectangle:
        return head_rectangle(self._landmarks(i), self.height, self.width)

    def face(self, i: int) -> Rectangle:
        return face_rectangle(self._landmarks(i), self.height, self.width)

    def lips(self, i: int) -> Rectangle:
        return lips_rectangle(self._landmarks(i), self.height, self.width)

    def eyes(self, i: int) -> Rectangle:
        return eyes_rectangle(self._landmarks(i), self.height, self.width)

    def _image(self, i: int) -> np.ndarray:
        return self.capture.image(self.split.frame_ids[i])

    def _torso(self, i: int) -> np.ndarray:
        return self.capture.torso(self.split.frame_ids[i])

    def _torso_over(self, i: int, rows: Tensor, columns: Tensor, background: Tensor) -> Tensor:
        torso = _colors(self._cache.get(("torso", i), lambda: self._torso(i)), rows, columns)
        return over(torso[:, :3] * torso[:, 3:], torso[:, 3], background)

    def _regions(self, i: int) -> np.ndarray:
        """[H, W] uint8: _HEAD or _OUTSIDE where the segmentation is certain, else _UNSURE."""
        head = (self.capture.labels(self.split.frame_ids[i]) == HEAD).astype(np.uint8)
        reach = np.ones(2 * (2 * max(1, round(self.height * _OUTLINE)) + 1,), np.uint8)
        regions = np.full(head.shape, _UNSURE, np.uint8)
        regions[cv2.dilate(head, reach) == 0] = _OUTSIDE
        regions[cv2.erode(head, reach) == 1] = _HEAD
        return regions

    def _landmarks(self, i: int) -> np.ndarray:
        return self._cache.get(("landmarks", i), lambda: self.capture.landmarks(self.split.frame_ids[i]))


class _ImageCache:
    """Arrays by key; the least recently used are dropped beyond a number of bytes."""

    def __init__(self, max_bytes: int):
        self._max_bytes, self._bytes = max_bytes, 0
        self._arrays: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def get(self, key: tuple, read: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._arrays:
            self._arrays[key] = read()
            self._bytes += self._arrays[key].nbytes
            while self._bytes > self._max_bytes and len(self._arrays) > 1:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        self._arrays.move_to_end(key)
        return self._arrays[key]


def _colors(image: np.ndarray, rows: Tensor, columns: Tensor) -> Tensor:
    """[N, channels] float32 in [0, 1]."""
    return torch.from_numpy(image)[rows, columns].float() / 255
