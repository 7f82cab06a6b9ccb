"""SyncNet's confidence and distance (Sync-C, LSE-C; LSE-D) of talking pictures."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.metric import Measured, NotComputed, Pictures, SequenceMetric, Setting, measured_frames
from ernerf_ti.evaluation.syncnet import (
    FACE_SIDE,
    FRAMES,
    SHIFTS,
    Synchrony,
    SyncNet,
    face_vectors,
    sound_vectors,
    synchrony,
)
from ernerf_ti.evaluation.syncnet_cepstra import cepstra
from ernerf_ti.evaluation.weights import SYNCNET, find_weights, load_exactly, read_weights, what_is_missing

_SAMPLES_PER_FRAME = round(SAMPLE_RATE / FPS)
_FOREHEAD = 0.3  # of the landmarks' height, which ends at the brows; SyncNet's detector sees the forehead too
_MARGIN = 0.4  # the published crop, in half sides of the detected box
_SMOOTHING = 13
_GREY = (110, 110, 110)
_LEAST_WINDOWS = 2 * SHIFTS


class Sync(SequenceMetric):
    """One of SyncNet's two numbers.

    Args:
        kind: "confidence": how much nearer lips and sound are at the best offset than at a usual one;
            "distance": how near.
        folder: of the weights.
        device: where the networks run.
    """

    unit = ""
    needs_truth = False

    def __init__(self, kind: Literal["confidence", "distance"], folder: Path, device: torch.device | str = "cpu"):
        self.kind, self._device = kind, device
        self._weights = find_weights(SYNCNET, folder)
        self.name = f"SyncNet {kind}"
        self.better = "higher" if kind == "confidence" else "lower"
        self.how = (
            f"{SYNCNET.names[0]} on the longest row of neighboring frames, sound moved by up to {SHIFTS} frames; "
            f"face crops of {FACE_SIDE} pixels around the capture's landmarks and the forehead, in place of S3FD's box"
        )

    def missing(self) -> NotComputed | None:
        return what_is_missing(self._weights, lambda: self._network)

    def measure(self, setting: Setting, seed: int) -> Measured | NotComputed:
        found = setting.pictures.once("synchrony", lambda _: self._synchrony(setting))
        if isinstance(found, NotComputed):
            return found
        begin, synchronous = found
        values = np.full(len(setting), np.nan)
        chosen = synchronous.confidences if self.kind == "confidence" else synchronous.distances
        values[begin : begin + len(chosen)] = chosen
        return measured_frames(values, setting.times, seed, f"offset {synchronous.offset} frames")

    def _synchrony(self, setting: Setting) -> tuple[int, Synchrony] | NotComputed:
        if setting.samples is None:
            return NotComputed("the capture has no sound")
        row = longest_row(setting.times)
        first = int(setting.times[row.start])
        samples = setting.samples[first * _SAMPLES_PER_FRAME :][: (row.stop - row.start) * _SAMPLES_PER_FRAME]
        n = min(row.stop - row.start, len(samples) // _SAMPLES_PER_FRAME)
        n_windows = n - FRAMES  # the published evaluation leaves the last one out too
        if n_windows < _LEAST_WINDOWS:
            return NotComputed(f"expected {_LEAST_WINDOWS + FRAMES} neighboring frames with sound or more, got {n}")
        boxes = face_boxes(np.stack([setting.landmarks(i) for i in range(row.start, row.start + n)]))

        def face(i: int) -> np.ndarray:
            return face_picture(setting.pictures[row.start + i], boxes[i])

        def vectors(_: Pictures) -> Tensor:
            return face_vectors(self._network, face, n, self._device)[:n_windows]

        faces = setting.pictures.once(("face vectors", row.start, n), vectors)
        sounds = sound_vectors(self._network, cepstra(samples), n_windows, self._device)
        return row.start, synchrony(faces, sounds)

    @cached_property
    def _network(self) -> SyncNet:
        network = SyncNet()
        load_exactly(network, read_weights(self._weights), self._weights)
        return network.to(self._device).eval().requires_grad_(False)


def longest_row(times: np.ndarray) -> slice:
    """Where times [n] go on by one frame at a time for longest."""
    ends = np.flatnonzero(np.diff(times) != 1) + 1
    edges = np.concatenate(([0], ends, [len(times)]))
    k = int(np.diff(edges).argmax())
    return slice(int(edges[k]), int(edges[k + 1]))


def face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """[n, 68, 2] landmarks -> [n, 3] center x, y and half side in pixels, medians over 13 frames."""
    low, high = landmarks.min(1).astype(np.float64), landmarks.max(1).astype(np.float64)
    low[:, 1] -= _FOREHEAD * (high[:, 1] - low[:, 1])
    boxes = np.column_stack(((low + high) / 2, (high - low).max(1) / 2))
    padded = np.pad(boxes, ((_SMOOTHING // 2, _SMOOTHING // 2), (0, 0)), "edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHING, axis=0), -1)


def face_picture(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 and a box [3] -> [224, 224, 3]: the face with a margin at the sides and twice that below it."""
    x, y, half = box
    side = 2 * half * (1 + _MARGIN)
    left, top = x - side / 2, y - half
    scale = FACE_SIDE / side
    # Pixel centers are at +0.5 in our coordinates and at whole numbers in OpenCV's.
    matrix = np.array([[scale, 0, scale * (0.5 - left) - 0.5], [0, scale, scale * (0.5 - top) - 0.5]])
    return cv2.warpAffine(
        picture,
        matrix,
        (FACE_SIDE, FACE_SIDE),
        flags=cv2.INTER_LINEAR,
        borderValue=_GREY,
        borderMode=cv2.BORDER_CONSTANT,
    )
