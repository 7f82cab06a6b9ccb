"""Frames of a video that is evaluated, and whether two videos show the same."""

import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.head_motion import eye_distance, head_position
from ernerf_ti.evaluation.mesh_metrics import Meshes
from ernerf_ti.evaluation.metric import ImageSequence
from ernerf_ti.media.video import read_frames

_KEPT = 8  # frames: SyncNet goes back by four
_ASPECT_TOLERANCE = 0.02
_SCALE_TOLERANCE = 0.1
_SHIFT_TOLERANCE = 0.25  # of the eye distance


class VideoFrames(ImageSequence):
    """Frames of a video at 25 fps, decoded when they are accessed.

    Only the last few frames are kept. Going back further decodes the video again from its start, so that access should
    be in ascending order.

    Args:
        path: video, or folder of pictures.
        n: number of frames.
        start: frame of the video that is the first of the sequence.
        size: width and height that frames are scaled to; None to leave them.
        folder_rate: frames per second of a folder.
    """

    def __init__(
        self, path: Path, n: int, start: int = 0, size: tuple[int, int] | None = None, folder_rate: float = FPS
    ):
        super().__init__(n, self._frame)
        self._path, self._start, self._size, self._folder_rate = path, start, size, folder_rate
        self._recent: deque[np.ndarray] = deque(maxlen=_KEPT)
        self._decoded = 0
        self._source: Iterator[np.ndarray] = iter(())

    def _frame(self, i: int) -> np.ndarray:
        if self._decoded == 0 or i < self._decoded - len(self._recent):
            self._recent.clear()
            self._decoded = 0
            frames = read_frames(self._path, FPS, folder_rate=self._folder_rate)
            self._source = itertools.islice(frames, self._start, None)
        while self._decoded <= i:
            self._recent.append(self._fitted(next(self._source)))
            self._decoded += 1
        return self._recent[i - self._decoded]

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        if self._size is None or (image.shape[1], image.shape[0]) == self._size:
            return image
        shrinks = image.shape[1] > self._size[0]
        return cv2.resize(image, self._size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def count_frames(paths: list[Path], starts: list[int], limit: int | None, folder_rate: float) -> int:
    """Number of frames that all videos have after their starts, up to a limit."""
    sources = [
        itertools.islice(read_frames(path, FPS, folder_rate=folder_rate), start, None)
        for path, start in zip(paths, starts, strict=True)
    ]
    return sum(1 for _ in itertools.islice(zip(*sources, strict=False), limit))


def check_shape(path: Path, size: tuple[int, int], reference: Path, reference_size: tuple[int, int]) -> None:
    """Raises ValueError if two sizes, width and height, have different shapes."""
    (width, height), (true_width, true_height) = size, reference_size
    if abs(width * true_height / (height * true_width) - 1) > _ASPECT_TOLERANCE:
        raise ValueError(
            f"{path}: expected pictures of the shape of the reference ({reference}, {true_width}x{true_height}), got "
            f"{width}x{height}; crop both videos to the same part of the picture"
        )


def framing(meshes: Meshes, true: Meshes) -> tuple[str, bool]:
    """How the face lies in the pictures of a video, compared with its reference, and whether that is the same place.

    Args:
        meshes, true: of the same frames.

    Returns:
        The comparison in words, and whether pictures can be compared pixel by pixel: the face is at most 10 % larger or
        smaller and a quarter of the eye distance away, by the medians over the frames. True where no frame has both.
    """
    both = meshes.valid & true.valid
    if not both.any():
        return "no frame with a face in both videos", True
    points, true_points = meshes.points[both], true.points[both]
    eyes, true_eyes = eye_distance(points), eye_distance(true_points)
    scale = float(np.median(eyes / true_eyes))
    right, down = np.median((head_position(points) - head_position(true_points)) / true_eyes[:, None], 0)
    text = (
        f"the face is {scale:.3f} times as large as in the reference, {100 * right:+.1f} % of the eye distance to the "
        f"right and {100 * down:+.1f} % down"
    )
    same = abs(scale - 1) <= _SCALE_TOLERANCE and float(np.hypot(right, down)) <= _SHIFT_TOLERANCE
    return text, same
