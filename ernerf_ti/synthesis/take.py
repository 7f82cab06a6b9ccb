"""The recording of a person into which a rendered head is pasted: its frames, and what its capture knows of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.data.capture_files import FPS, CaptureError
from ernerf_ti.data.crop import Crop
from ernerf_ti.media.frame_folder import source_digest
from ernerf_ti.media.video import VideoInfo, probe, read_frames
from ernerf_ti.media.video_formats import exact_rate
from ernerf_ti.portrait.camera import interpolate_poses, scene_from_capture
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import ping_pong

_HELD, _FADE = 3.0, 3.0  # frames of the capture from one with a pose: so far it holds, then it fades
_BLOCK_BYTES, _LEAST_BLOCK = 1 << 29, 8  # bytes and frames that are held where the recording is played backward


@dataclass(frozen=True)
class TakeMotion:
    """Head and eyes in n frames."""

    poses: Tensor
    """[n, 4, 4] pose_world_from_camera in the scene."""
    eye_closures: np.ndarray
    """[n] float32 in [0, 1]."""
    presence: np.ndarray
    """[n] in [0, 1]: 1 where the head's pose is known, 0 where it is not."""


@dataclass(frozen=True)
class Surroundings:
    """What the capture knows of a frame, in the crop at the size of the capture."""

    labels: np.ndarray
    """[h, w] uint8: 0 background, 1 head, 2 neck, 3 torso."""
    torso: np.ndarray
    """[h, w, 4] uint8 RGBA, straight alpha: neck and torso, extended under the head."""
    landmarks: np.ndarray
    """[68, 2] float32 x, y in pixels."""


class Take:
    """A recording with its capture.

    Args:
        video: file, or folder of pictures.
        capture: made of this video, with labels.
        crop: that of the capture.
        info: properties of the video.
    """

    def __init__(self, video: Path, capture: Capture, crop: Crop, info: VideoInfo):
        self.video, self.capture, self.crop = video, capture, crop
        self.size = info.width, info.height
        self.rate: Fraction = exact_rate(info.rate)
        """Frames per second."""
        # As many as read_frames yields: half a frame past the last one's begin.
        self.n_frames = max(1, int(np.ceil(info.duration * float(self.rate) - 0.5 - 1e-6)))
        ids = np.concatenate((capture.train.frame_ids, capture.val.frame_ids))
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        poses = np.concatenate((capture.train.poses, capture.val.poses))[order]
        self._poses = scene_from_capture(torch.from_numpy(poses))
        self._landmarks = lru_cache(8)(capture.landmarks)
        self._rate_of_pictures = info.rate

    def order(self, n: int) -> np.ndarray:
        """[n] numbers of the frames that are shown: forward and backward in turn."""
        return ping_pong(n, self.n_frames)

    def motion(self, order: np.ndarray) -> TakeMotion:
        """Poses and eye closures of frames, between those of the capture, which has 25 per second."""
        positions = self._positions(order)
        among = np.interp(positions, self._ids, np.arange(len(self._ids)))
        closures = np.interp(positions, self._ids, self.capture.eye_closures[self._ids])
        distance = np.abs(positions - self._ids[self._nearest(positions)])
        presence = 1 - np.clip((distance - _HELD) / _FADE, 0, 1)
        return TakeMotion(interpolate_poses(self._poses, among).float(), closures.astype(np.float32), presence)

    def surroundings(self, k: int) -> Surroundings:
        """Of frame k of the recording: masks of the nearest frame of the capture, landmarks between two."""
        position = self._positions(np.array([k]))
        nearest = int(self._ids[self._nearest(position)][0])
        place = float(np.interp(position[0], self._ids, np.arange(len(self._ids))))
        before, after = (self._landmarks(int(self._ids[i])) for i in (int(place), int(np.ceil(place))))
        return Surroundings(
            self.capture.labels(nearest),
            self.capture.torso(nearest),
            before + (place - int(place)) * (after - before),
        )

    def camera(self, trained: TrainedPortrait, size: int) -> TrainedPortrait:
        """The portrait before the camera of the capture, in squares of `size` pixels."""
        scale = size / self.capture.width
        fx, fy, cx, cy = (float(value) * scale for value in self.capture.intrinsics)
        return replace(trained, intrinsics=(fx, fy, cx, cy), size=(size, size))

    def frames(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Frames [H, W, 3] uint8 RGB in this order, as of :meth:`order`. A few are held at a time: what is played
        backward is read in blocks, from its end."""
        block = max(_LEAST_BLOCK, _BLOCK_BYTES // (3 * self.size[0] * self.size[1]))
        turns = np.flatnonzero(np.diff(order) == 0) + 1
        for lap in np.split(order, turns):
            if len(lap) == 1 or lap[0] < lap[1]:
                yield from self._read(int(lap[0]), len(lap))
                continue
            for begin in range(0, len(lap), block):
                part = lap[begin : begin + block]
                yield from reversed(list(self._read(int(part[-1]), len(part))))

    def _read(self, start: int, n: int) -> Iterator[np.ndarray]:
        """n frames from frame `start`; the last one is repeated if the file has fewer."""
        frame = None
        rate = float(self.rate)
        reader = read_frames(self.video, rate, folder_rate=self._rate_of_pictures, start=start)
        for _ in range(n):
            frame = next(reader, frame)
            if frame is None:
                raise ValueError(f"{self.video}: frame {start} can't be read; copy or convert the file again")
            yield frame

    def _positions(self, order: np.ndarray) -> np.ndarray:
        """Places among the frames of the capture."""
        return order * float(FPS / self.rate)

    def _nearest(self, positions: np.ndarray) -> np.ndarray:
        """Indices of the nearest frames with a pose."""
        return np.rint(np.interp(positions, self._ids, np.arange(len(self._ids)))).astype(int)


def open_take(video: Path, capture: Path | None, trained: TrainedPortrait) -> Take:
    """Open a recording with the capture that was made of it.

    Args:
        video: file, or folder of pictures.
        capture: folder of its capture; None for the capture that the portrait was trained on.
        trained: the portrait.

    Raises:
        FileNotFoundError, ValueError: no such file or capture, a capture of another video, or one without what is
            needed.
    """
    digest = source_digest(video)
    folder = _training_capture(video, trained) if capture is None else capture
    opened = open_capture(folder)
    source = opened.description.source if opened.description else {}
    found = opened.description.crop if opened.description else {}
    if not {"x", "y", "side"} <= set(found) or "sha256" not in source:
        raise CaptureError(
            f"{opened.paths.description}: expected the crop and the source of a capture that `ernerf-ti preprocess` "
            f"made, got none; {_advice(video)}"
        )
    if source["sha256"] != digest:
        raise CaptureError(
            f"{video}: expected the video that {folder} was made of ({source.get('name')}), got another one; "
            f"{_advice(video)}"
        )
    missing = [k for k in (*opened.train.frame_ids, *opened.val.frame_ids) if not opened.paths.labels(k).is_file()]
    if missing:
        raise CaptureError(
            f"{opened.paths.labels(missing[0])}: expected the labels of the frame, got no such file; {_advice(video)}"
        )
    info = probe(video, float(source.get("rate", FPS)))
    crop = Crop(int(found["x"]), int(found["y"]), int(found["side"]))
    if not (0 <= min(crop.x, crop.y) and 0 < crop.side <= min(info.width - crop.x, info.height - crop.y)):
        raise CaptureError(
            f"{opened.paths.description}: expected a crop inside the {info.width}x{info.height} video, got {crop}; "
            f"{_advice(video)}"
        )
    return Take(video, opened, crop, info)


def _training_capture(video: Path, trained: TrainedPortrait) -> Path:
    try:
        if trained.checkpoint is None:
            raise FileNotFoundError
        return RunFolder.find(trained.checkpoint).capture()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{trained.checkpoint}: the capture of the run is not where it was; pass the capture of {video} with "
            "--onto-capture"
        ) from None


def _advice(video: Path) -> str:
    return f"make a capture of it with `ernerf-ti preprocess {video} CAPTURE`, and pass it with --onto-capture CAPTURE"
