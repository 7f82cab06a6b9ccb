"""Frames of a capture on the training device: inputs of the fields, and pixels with their targets."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import AFTER, BEFORE
from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import HEAD, Split
from ernerf_ti.data.mouth import closed_mouths, lip_opening
from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays, scene_from_capture
from ernerf_ti.portrait.frame_index import FrameIndex, row
from ernerf_ti.portrait.records import FrameInputs, RayBatch
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.train.frame_store import FrameStore, decoding_threads
from ernerf_ti.train.pixel_sampling import (
    RectangleTable,
    eye_rectangle,
    eyes_rectangle,
    face_rectangle,
    head_rectangle,
    lips_rectangle,
    rectangle_table,
    square_corner,
    squares_pixels,
    with_means_between,
)
from ernerf_ti.train.rare_frames import rare_frame_probabilities

_IMAGE, _TORSO, _MARKS = slice(0, 3), slice(3, 7), 7  # channels of a frame
_UNSURE, _OUTSIDE, _HEAD, _REGION_BITS, _FACE_BIT = 0, 1, 2, 3, 4  # in the marks
_OUTLINE = 1 / 64  # of the image height, on either side of the head's outline: hair is translucent and labels err
_SQUARE_QUANTILE = 0.9


class FrameImages(NamedTuple):
    """The layers of a whole frame, [H, W, 3] in [0, 1]."""

    image: Tensor
    torso_over_background: Tensor


@dataclass(frozen=True)
class TrainingFrame:
    """A frame on the training device."""

    index: FrameIndex
    """In the split."""
    pixels: Tensor
    """[H W, 8] uint8: image, torso and marks, or [H W, 4]: the torso alone."""
    context: FrameIndex
    """Where its audio context begins in the table of windows."""

    def in_own_memory(self) -> "TrainingFrame":
        """A copy with its index on the device, which others can be loaded into."""
        index, context = (self.pixels.new_zeros(1, dtype=torch.int64) for _ in range(2))
        copy = TrainingFrame(index, torch.empty_like(self.pixels), context)
        copy.load(self)
        return copy

    def load(self, other: "TrainingFrame") -> None:
        """Take over another frame, of which index and context are numbers."""
        for own, new in ((self.index, other.index), (self.context, other.context)):
            assert isinstance(own, Tensor) and not isinstance(new, Tensor)
            own.fill_(new)
        self.pixels.copy_(other.pixels)


class TorsoBatch(NamedTuple):
    """N pixels of one frame with their training targets."""

    pixel_coords: Tensor
    """[N, 2] in [-1, 1], vertical coordinate first; see :func:`ernerf_ti.portrait.camera.pixel_coords`."""
    target_rgb: Tensor
    """[N, 3] in [0, 1], the captured torso over the background."""
    background_rgb: Tensor
    """[N, 3] in [0, 1], composited behind the rendered torso."""


class Squares(NamedTuple):
    """Squares in each frame, all of one side, in which parts of most frames fit."""

    side: int
    """In pixels."""
    corners: Tensor
    """[n, k] int64 first pixels of each frame's k squares."""


class TrainingFrames:
    """Frames of a split of a capture.

    Poses, eye closures, audio windows and rectangles are tables on the device. A frame is chosen by an index on the
    host, which makes a view of a table, or on the device; neither waits for anything.

    Args:
        capture: the capture.
        split: `capture.train` or `capture.val`.
        device: of all tensors but `poses` and `windows`.
        frame_memory: bytes for frames that stay on the device; others are read again each time they are used.
        with_regions: read the capture's segmentation, which random backgrounds need.
        dials: [n_frames, D] values of the dials by frame number; None for none.
    """

    def __init__(
        self,
        capture: Capture,
        split: Split,
        device: torch.device | str = "cpu",
        frame_memory: int = 0,
        with_regions: bool = False,
        dials: np.ndarray | None = None,
    ):
        self.capture, self.split, self.device = capture, split, torch.device(device)
        self.height, self.width = capture.height, capture.width
        self.poses = scene_from_capture(torch.from_numpy(split.poses)).float()
        """[n, 4, 4] pose_world_from_camera, scene; on the CPU."""
        self.windows = torch.from_numpy(capture.audio_windows)
        """[T, steps, C] audio windows of the whole recording; on the CPU."""
        self._frame_memory, self._with_regions = frame_memory, with_regions
        self._device_poses = self.poses.to(self.device)
        self._eye_closures = torch.from_numpy(capture.eye_closures[split.frame_ids])[:, None].to(self.device)
        self._dials = None if dials is None else torch.from_numpy(dials[split.frame_ids]).to(self.device)
        self._context_begins = np.minimum(split.audio_ids, len(self.windows) + BEFORE).tolist()
        self._silence: Tensor | None = None
        self._torso = _TORSO
        self._store = self._new_store()

    def __len__(self) -> int:
        return len(self.split)

    @property
    def n_pixels(self) -> int:
        """Pixels of a frame."""
        return self.height * self.width

    def own_windows(self) -> Tensor:
        """[n, steps, C] audio windows of the split's frames; on the CPU."""
        return self.windows[torch.from_numpy(self.split.audio_ids).clamp(max=len(self.windows) - 1)]

    def add_silence(self, windows: Tensor) -> None:
        """Append windows of silence to the table, before any frame is used; see :attr:`silent_contexts`.

        Args:
            windows: [P, L, steps, C] of P pauses.
        """
        assert "_padded_windows" not in vars(self)
        self._silence = windows

    @cached_property
    def silent_contexts(self) -> np.ndarray:
        """[n] int, where the audio contexts begin that are silent throughout; none without silence."""
        if self._silence is None:
            return np.zeros(0, int)
        n_pauses, length = self._silence.shape[:2]
        begins = len(self.windows) + 2 * BEFORE + AFTER + length * np.arange(n_pauses)[:, None]
        return (begins + np.arange(length - BEFORE - AFTER + 1)).ravel()

    @cached_property
    def closed_mouths(self) -> np.ndarray:
        """[m] int, frames of the split whose mouth is closed."""
        return closed_mouths(lip_opening(np.stack(self._landmarks)))

    @cached_property
    def rarity(self) -> np.ndarray:
        """[n] float64 probabilities of the frames by how rare they are."""
        closures = self.capture.eye_closures[self.split.frame_ids]
        return rare_frame_probabilities(closures, np.stack(self._landmarks), self.split.poses)

    @cached_property
    def background(self) -> Tensor:
        """[H W, 3] float32 in [0, 1]."""
        return (torch.from_numpy(self.capture.background).float() / 255).view(-1, 3).to(self.device)

    @cached_property
    def parts(self) -> RectangleTable:
        """The rectangles of lips, eyes and head of each frame."""
        rectangles = (lips_rectangle, eyes_rectangle, head_rectangle)
        return rectangle_table(
            [[rectangle(points, self.height, self.width) for rectangle in rectangles] for points in self._landmarks],
            self.device,
        )

    def squares(self, part: Literal["lips", "eyes"], least_side: int = 1) -> Squares:
        """Squares around the lips of each frame, or around each of its two eyes.

        Args:
            part: what they are around.
            least_side: in pixels, where the frame is as large.
        """
        size = self.height, self.width
        rectangles = [
            [lips_rectangle(points, *size)] if part == "lips" else [eye_rectangle(points, eye, *size) for eye in (0, 1)]
            for points in self._landmarks
        ]
        sides = [max(r.row1 - r.row0, r.column1 - r.column0) for of_frame in rectangles for r in of_frame]
        fitting = int(np.quantile(sides, _SQUARE_QUANTILE, method="higher"))
        side = min(max(fitting, least_side), *size)
        corners = [[square_corner(r, side, *size) for r in of_frame] for of_frame in rectangles]
        return Squares(side, torch.tensor(corners, device=self.device))

    def use(self, torso_only: bool) -> None:
        """Choose what to hold of each frame: all that the head stages need, or the torso alone, half as much."""
        torso = slice(0, 4) if torso_only else _TORSO
        if torso != self._torso:
            self.close()
            self._torso = torso
            self._store = self._new_store()

    def announce(self, coming: list[int]) -> None:
        """Say which frames will be used soon, so that threads can read them."""
        self._store.announce(coming)

    def close(self) -> None:
        """Stop the threads that read frames, until the next announcement."""
        self._store.close()

    def frame(self, i: int, context: int | None = None) -> TrainingFrame:
        """Frame i of the split, with its pixels, which must not be changed.

        Args:
            i: index in the split.
            context: one of :attr:`silent_contexts` in place of the frame's own audio context.
        """
        return TrainingFrame(i, self._store.get(i), self._context_begins[i] if context is None else context)

    def pose(self, i: FrameIndex) -> Tensor:
        """[4, 4] pose_world_from_camera of frame i of the split, scene."""
        return row(self._device_poses, i)

    def inputs(self, i: FrameIndex, trained: bool = True, context: FrameIndex | None = None) -> FrameInputs:
        """Inputs of the fields for frame i of the split.

        Args:
            i: index in the split.
            trained: whether the frame is trained on, and has its own appearance embedding.
            context: where its audio context begins in the table of windows; None for its own, with i a number.
        """
        n = BEFORE + AFTER
        if context is None:
            assert not isinstance(i, Tensor)
            context = self._context_begins[i]
        if isinstance(context, Tensor):
            window = self._padded_windows.index_select(0, context + torch.arange(n, device=self.device))
        else:
            window = self._padded_windows[context : context + n]
        dials = None if self._dials is None else row(self._dials, i)
        return FrameInputs(window, row(self._eye_closures, i), i if trained else None, self.pose(i), dials=dials)

    def images(self, i: int) -> FrameImages:
        """The layers of frame i of the split."""
        layers = (self._store.get(i) / 255).view(self.height, self.width, -1)
        background = self.background.view(self.height, self.width, 3)
        return FrameImages(layers[..., _IMAGE], _over(layers[..., _TORSO], background))

    def rays(self, frame: TrainingFrame, pixels: Tensor, colors: Tensor | None = None) -> RayBatch:
        """Rays of a frame. The target is the frame, to be rendered over the captured torso over the background.

        Args:
            frame: of the split.
            pixels: [N] indices of pixels.
            colors: [K, 3] in [0, 1], for the first K of the pixels: they replace the background, and outside of the
                head also the target, where the segmentation is certain. Near the head's outline, and in a capture
                without segmentation, nothing changes.
        """
        values = frame.pixels.index_select(0, pixels)
        layers, marks = values / 255, values[:, _MARKS]
        target, behind = layers[:, _IMAGE], _over(layers[:, _TORSO], self.background.index_select(0, pixels))
        if colors is not None and len(colors):
            k = len(colors)
            regions = (marks[:k] & _REGION_BITS)[:, None]
            behind[:k] = torch.where(regions != _UNSURE, colors, behind[:k])
            target[:k] = torch.where(regions == _OUTSIDE, colors, target[:k])
        pose = self.pose(frame.index)
        return RayBatch(
            pose[:3, 3].expand(len(pixels), 3).contiguous(),
            self._directions.index_select(0, pixels) @ pose[:3, :3].t(),
            target,
            behind,
            marks >= _FACE_BIT,
        )

    def dense_rays(self, frame: TrainingFrame, corners: Tensor, side: int) -> RayBatch:
        """Rays of squares of a frame, through its pixels and halfway between them.

        Args:
            frame: of the split.
            corners: [k] int64 first pixels of the squares.
            side: of the squares, in pixels.

        Returns:
            k (2 side - 1)^2 rays, square by square, row by row. Targets between pixels are the means of their
            neighbors, and in the face where all of these are.
        """
        batch = self.rays(frame, squares_pixels(corners, side, self.width))
        values = torch.cat((batch.target_rgb, batch.background_rgb, batch.face_mask[:, None]), 1)
        values = with_means_between(with_means_between(values.view(-1, side, side, 7), 1), 2).flatten(0, 2)
        steps = torch.arange(2 * side - 1, device=self.device) / 2
        corners = corners[:, None, None]
        rows, columns = torch.broadcast_tensors(corners // self.width + steps[:, None], corners % self.width + steps)
        pixels = torch.stack((rows.flatten(), columns.flatten()), 1)
        rays = pixel_rays(self.pose(frame.index), tuple(self.capture.intrinsics), pixels)
        return RayBatch(*rays, values[:, :3], values[:, 3:6], values[:, 6] == 1)

    def torso(self, frame: TrainingFrame, pixels: Tensor, colors: Tensor) -> TorsoBatch:
        """Pixels of a frame. The target is the captured torso over the background.

        Args:
            frame: of the split.
            pixels: [N] indices of pixels.
            colors: [K, 3] in [0, 1], replace the background of the first K of the pixels.
        """
        layer = frame.pixels.index_select(0, pixels)[:, self._torso] / 255
        background = self.background.index_select(0, pixels)
        background[: len(colors)] = colors
        return TorsoBatch(self._coords.index_select(0, pixels), _over(layer, background), background)

    @cached_property
    def _padded_windows(self) -> Tensor:
        """[T + 12, C, steps]: the windows after 4 times the first one and before 8 times the last one; then silence.

        Windows k to k + 7 are the audio context of frame k (:func:`ernerf_ti.audio.context.audio_context`).
        """
        last = len(self.windows) - 1
        indices = torch.arange(-BEFORE, len(self.windows) + BEFORE + AFTER).clamp(0, last)
        windows = self.windows[indices]
        if self._silence is not None:
            windows = torch.cat((windows, self._silence.flatten(0, 1)))
        return windows.transpose(1, 2).contiguous().to(self.device)

    @cached_property
    def _directions(self) -> Tensor:
        """[H W, 3] unit directions of the pixels' rays, camera axes."""
        pixels = all_pixels(self.height, self.width)
        return pixel_rays(torch.eye(4), tuple(self.capture.intrinsics), pixels)[1].to(self.device)

    @cached_property
    def _coords(self) -> Tensor:
        """[H W, 2] normalized coordinates of the pixels."""
        return pixel_coords(all_pixels(self.height, self.width, self.device), self.height, self.width)

    @cached_property
    def _landmarks(self) -> list[np.ndarray]:
        return [self.capture.landmarks(k) for k in self.split.frame_ids]

    def _new_store(self) -> FrameStore:
        read, n_channels = (self._read, 8) if self._torso == _TORSO else (self._read_torso, 4)
        shape = (self.n_pixels, n_channels)
        return FrameStore(read, shape, self.device, self._frame_memory, decoding_threads(self.device))

    def _read(self, i: int) -> np.ndarray:
        """[H W, 8] uint8: image, torso and marks."""
        k = self.split.frame_ids[i]
        marks = self._regions(k)
        face = face_rectangle(self.capture.landmarks(k), self.height, self.width)
        marks[face.row0 : face.row1, face.column0 : face.column1] |= _FACE_BIT
        frame = np.empty((self.height, self.width, 8), np.uint8)
        in_order = [channel for c in range(8) for channel in (c, c)]
        cv2.mixChannels([self.capture.image(k), self.capture.torso(k), marks], [frame], in_order)
        return frame.reshape(-1, 8)

    def _read_torso(self, i: int) -> np.ndarray:
        """[H W, 4] uint8 RGBA."""
        return self.capture.torso(self.split.frame_ids[i]).reshape(-1, 4)

    def _regions(self, k: int) -> np.ndarray:
        """[H, W] uint8: _HEAD or _OUTSIDE where the segmentation is certain, else _UNSURE."""
        regions = np.full((self.height, self.width), _UNSURE, np.uint8)
        if not self._with_regions or not self.capture.paths.labels(k).is_file():
            return regions
        head = (self.capture.labels(k) == HEAD).astype(np.uint8)
        reach = np.ones(2 * (2 * max(1, round(self.height * _OUTLINE)) + 1,), np.uint8)
        regions[cv2.dilate(head, reach) == 0] = _OUTSIDE
        regions[cv2.erode(head, reach) == 1] = _HEAD
        return regions


def _over(torso: Tensor, background_rgb: Tensor) -> Tensor:
    """[..., 4] straight color and alpha over [..., 3]."""
    alpha = torso[..., 3]
    return over(torso[..., :3] * alpha[..., None], alpha, background_rgb)
