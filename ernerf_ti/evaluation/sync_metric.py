"""SyncNet's confidence (Sync-C, LSE-C) and distance (LSE-D) of talking faces."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from ernerf_ti.evaluation.metric import (
    ImageSequence,
    MetricValue,
    NotComputed,
    SequenceMetric,
    Setting,
    mean_over_frames,
)
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
from ernerf_ti.evaluation.weights import SYNCNET, find_weights, load_exactly, loading_problem, read_weights
from ernerf_ti.synthesis.driving import SAMPLES_PER_FRAME

_FOREHEAD = 0.3  # of the landmarks' height, which ends at the brows; SyncNet's face detector includes the forehead
_MARGIN = 0.4  # the published crop, relative to half the side of the detected box
_SMOOTHING = 13  # frames, as published
_GRAY = (110, 110, 110)
_MIN_WINDOWS = 2 * SHIFTS


class Sync(SequenceMetric):
    """One of SyncNet's two scores.

    Args:
        kind: "confidence" is how much closer lips and sound are at the best offset than at a typical one; "distance" is
            how close they are there.
        folder: folder of the weights.
        device: where the networks run.
    """

    unit = ""
    needs_truth = False

    def __init__(self, kind: Literal["confidence", "distance"], folder: Path, device: torch.device | str = "cpu"):
        self.kind, self._device = kind, device
        self._weights = find_weights(SYNCNET, folder)
        self.name = f"SyncNet {kind}"
        self.better = "higher" if kind == "confidence" else "lower"
        self.description = (
            f"{SYNCNET.names[0]} on the longest run of consecutive frames, with the sound shifted by up to {SHIFTS} "
            f"frames. Faces are cropped to {FACE_SIDE} pixels around the landmarks and the forehead, where "
            "the published evaluation uses the S3FD face detector."
        )

    def missing(self) -> NotComputed | None:
        return loading_problem(self._weights, lambda: self._network)

    def measure(self, setting: Setting, seed: int) -> MetricValue | NotComputed:
        found = setting.images.cached("synchrony", lambda _: self._synchrony(setting))
        if isinstance(found, NotComputed):
            return found
        start, result = found
        values = np.full(len(setting), np.nan)
        scores = result.confidences if self.kind == "confidence" else result.distances
        values[start : start + len(scores)] = scores
        return mean_over_frames(values, setting.times, seed, f"offset {result.offset} frames")

    def _synchrony(self, setting: Setting) -> tuple[int, Synchrony] | NotComputed:
        """Index of the first frame, and the synchrony of those that follow it."""
        if setting.samples is None:
            return NotComputed("there is no sound")
        run = longest_run(setting.times)
        first = int(setting.times[run.start])
        samples = setting.samples[first * SAMPLES_PER_FRAME :][: (run.stop - run.start) * SAMPLES_PER_FRAME]
        n = min(run.stop - run.start, len(samples) // SAMPLES_PER_FRAME)
        n_windows = n - FRAMES  # the published evaluation leaves the last one out too
        if n_windows < _MIN_WINDOWS:
            return NotComputed(f"expected {_MIN_WINDOWS + FRAMES} consecutive frames with sound or more, got {n}")
        boxes = face_boxes(np.stack([setting.landmarks(i) for i in range(run.start, run.start + n)]))

        def face(i: int) -> np.ndarray:
            return face_crop(setting.images[run.start + i], boxes[i])

        def vectors(_: ImageSequence) -> Tensor:
            return face_vectors(self._network, face, n, self._device)[:n_windows]

        faces = setting.images.cached(("face vectors", run.start, n), vectors)
        sounds = sound_vectors(self._network, cepstra(samples), n_windows, self._device)
        return run.start, synchrony(faces, sounds)

    @cached_property
    def _network(self) -> SyncNet:
        assert not isinstance(self._weights, NotComputed)  # :meth:`missing` says so
        network = SyncNet()
        load_exactly(network, read_weights(self._weights), self._weights)
        return network.to(self._device).eval().requires_grad_(False)


def longest_run(times: np.ndarray) -> slice:
    """The longest run of consecutive frame numbers in times [n] int."""
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


def face_crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 and a box [3] -> [224, 224, 3]: the face with a margin at the sides and twice that below it."""
    x, y, half = box
    side = 2 * half * (1 + _MARGIN)
    left, top = x - side / 2, y - half
    scale = FACE_SIDE / side
    # Pixel centers are at half-integers in our coordinates, and at integers in OpenCV's.
    matrix = np.array([[scale, 0, scale * (0.5 - left) - 0.5], [0, scale, scale * (0.5 - top) - 0.5]])
    return cv2.warpAffine(
        image,
        matrix,
        (FACE_SIDE, FACE_SIDE),
        flags=cv2.INTER_LINEAR,
        borderValue=_GRAY,
        borderMode=cv2.BORDER_CONSTANT,
    )
