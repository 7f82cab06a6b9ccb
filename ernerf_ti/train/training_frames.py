"""Frames of a capture as rays with targets, one frame at a time."""

from collections import OrderedDict
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import audio_context
from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import HEAD, Split
from ernerf_ti.portrait.camera import pixel_coords, pixel_rays, scene_from_capture
from ernerf_ti.portrait.records import FrameInputs, RayBatch
from ernerf_ti.train.pixel_sampling import Rectangle, eyes_rectangle, face_rectangle, inside, lips_rectangle

_UNSURE, _ELSEWHERE, _HEAD = range(3)
_OUTLINE = 1 / 64  # of the picture's height, to either side of the head's outline: hair is soft, and labels err
_CACHE_BYTES = 1 << 31  # of pictures as bytes; a longer clip is read again from the disk


class TrainingFrames:
    """The frames of a split.

    Args:
        capture: where they come from.
        split: its `train` or `val`.
        device: where rays and targets go.
    """

    def __init__(self, capture: Capture, split: Split, device: torch.device | str = "cpu"):
        self.capture, self.split, self.device = capture, split, torch.device(device)
        self.height, self.width = capture.height, capture.width
        self.poses = scene_from_capture(torch.from_numpy(split.poses)).float()
        """[n, 4, 4] pose_world_from_camera, scene."""
        self.windows = torch.from_numpy(capture.audio_windows)
        self._pictures = _PictureCache(_CACHE_BYTES)

    def __len__(self) -> int:
        return len(self.split)

    def own_windows(self) -> Tensor:
        """[n, steps, C] audio windows of the split's own frames."""
        return self.windows[torch.from_numpy(self.split.audio_ids).clamp(max=len(self.windows) - 1)]

    def conditioning(self, i: int, known: bool = True) -> FrameInputs:
        """What frame i says and does; with its own identity code if it is `known`, a frame that is trained on."""
        return FrameInputs(
            audio_context(self.windows, int(self.split.audio_ids[i])).to(self.device),
            torch.from_numpy(self.capture.eye_closures[self.split.frame_ids[i]][None]).to(self.device),
            i if known else None,
            self.poses[i].to(self.device),
        )

    def rays(self, i: int, pixels: Tensor, layer: str, plate: Tensor | None = None) -> RayBatch:
        """Rays of frame i.

        Args:
            i: place in the split.
            pixels: [N, 2] rows and columns.
            layer: "head": the whole person is the target, the true torso before the plate the background;
                "torso": the torso before the plate is the target, the plate the background;
                "portrait": the whole person is the target, the plate the background.
            plate: [K, 3] in [0, 1] in place of the capture's, for the first K of the pixels.
        """
        rows, columns = pixels.unbind(1)
        own = _colors(self._pictures.get(("plate",), lambda: self.capture.background), rows, columns)
        plate = own if plate is None else torch.cat((plate, own[len(plate) :]))
        if layer != "portrait":
            torso = _colors(self._pictures.get(("torso", i), lambda: self._torso(i)), rows, columns)
            plate_with_torso = torso[:, :3] * torso[:, 3:] + plate * (1 - torso[:, 3:])
        if layer == "torso":
            target, background = plate_with_torso, plate
        else:
            target = _colors(self._pictures.get(("image", i), lambda: self._image(i)), rows, columns)
            background = plate if layer == "portrait" else plate_with_torso
        on_device = pixels.to(self.device)
        rays_o, rays_d = pixel_rays(self.poses[i].to(self.device), tuple(self.capture.intrinsics), on_device)
        return RayBatch(
            rays_o,
            rays_d,
            pixel_coords(on_device, self.height, self.width),
            target.to(self.device),
            background.to(self.device),
            inside(pixels, self.face(i)).to(self.device),
        )

    def randomize_background(self, batch: RayBatch, i: int, pixels: Tensor, noise: Tensor) -> None:
        """Change what is behind the head, where the capture's labels tell surely whether it covers the pixel or not.

        Where it does, the target stays; where it does not, the noise is the target too. Near the head's outline, and
        in a capture without labels, nothing changes.

        Args:
            batch: rays of frame i with layer "head"; changed in place.
            i: place in the split.
            pixels: [N, 2] rows and columns.
            noise: [K, 3] in [0, 1], for the first K of the pixels.
        """
        if not len(noise) or not self.capture.paths.labels(self.split.frame_ids[i]).is_file():
            return
        rows, columns = pixels[: len(noise)].unbind(1)
        sure = torch.from_numpy(self._pictures.get(("head", i), lambda: self._surely_head(i)))[rows, columns]
        behind, elsewhere = (sure != _UNSURE).to(self.device)[:, None], (sure == _ELSEWHERE).to(self.device)[:, None]
        noise = noise.to(self.device)
        batch.background_rgb[: len(noise)] = torch.where(behind, noise, batch.background_rgb[: len(noise)])
        batch.target_rgb[: len(noise)] = torch.where(elsewhere, noise, batch.target_rgb[: len(noise)])

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

    def _surely_head(self, i: int) -> np.ndarray:
        """[H, W] uint8."""
        head = (self.capture.labels(self.split.frame_ids[i]) == HEAD).astype(np.uint8)
        reach = np.ones(2 * (2 * max(1, round(self.height * _OUTLINE)) + 1,), np.uint8)
        sure = np.full(head.shape, _UNSURE, np.uint8)
        sure[cv2.dilate(head, reach) == 0] = _ELSEWHERE
        sure[cv2.erode(head, reach) == 1] = _HEAD
        return sure

    def _landmarks(self, i: int) -> np.ndarray:
        return self._pictures.get(("landmarks", i), lambda: self.capture.landmarks(self.split.frame_ids[i]))


class _PictureCache:
    """Arrays by key, the longest unused dropped when there are too many bytes of them."""

    def __init__(self, most_bytes: int):
        self._most_bytes, self._bytes = most_bytes, 0
        self._arrays: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def get(self, key: tuple, read: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._arrays:
            self._arrays[key] = read()
            self._bytes += self._arrays[key].nbytes
            while self._bytes > self._most_bytes and len(self._arrays) > 1:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        self._arrays.move_to_end(key)
        return self._arrays[key]


def _colors(picture: np.ndarray, rows: Tensor, columns: Tensor) -> Tensor:
    """[N, channels] float32 in [0, 1]."""
    return torch.from_numpy(picture)[rows, columns].float() / 255
