"""Speech and eye closures under which a portrait's head is measured, and the head under them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import taichi_kernels as tk
from ernerf_ti.portrait.frame_index import FrameIndex
from ernerf_ti.portrait.model.head_field import HeadField

_POINTS_PER_CHUNK = 2**12


class Conditions(NamedTuple):
    """C pairs of speech and eye closure."""

    audio_codes: Tensor
    """[C, A]."""
    eye_closures: Tensor
    """[C, 1]."""

    def __len__(self) -> int:  # of the pairs, not of the tuple
        return self.audio_codes.shape[0]


def rest(audio_codes: Tensor, eye_closures: Tensor) -> Conditions:
    """The condition that static cells are baked at: the mean code and the median closure of frames.

    Args:
        audio_codes: [n, A].
        eye_closures: [n].
    """
    return Conditions(audio_codes.mean(0, keepdim=True), eye_closures.median().view(1, 1))


def various_speech(audio_codes: Tensor, eye_closures: Tensor, n: int) -> Conditions:
    """Up to n codes that lie far apart, all with the median closure: each is the one farthest from those before it, and
    the first is the one farthest from the mean. Arguments as of :func:`rest`."""
    chosen = [int((audio_codes - audio_codes.mean(0)).norm(dim=1).argmax())]
    distance = torch.full((len(audio_codes),), torch.inf, device=audio_codes.device)
    for _ in range(min(n, len(audio_codes)) - 1):
        distance = torch.minimum(distance, (audio_codes - audio_codes[chosen[-1]]).norm(dim=1))
        chosen.append(int(distance.argmax()))
    return Conditions(audio_codes[chosen], eye_closures.median().expand(len(chosen), 1))


def various_closures(audio_codes: Tensor, eye_closures: Tensor, n: int) -> Conditions:
    """The mean code with n closures, evenly from the smallest to the largest. Arguments as of :func:`rest`."""
    share = torch.linspace(0, 1, n, device=eye_closures.device)
    closures = torch.lerp(eye_closures.min(), eye_closures.max(), share)
    return Conditions(audio_codes.mean(0).expand(n, -1), closures[:, None])


class MeasuredHead:
    """The head at points of its scene, under any condition and from any camera.

    Args:
        field: of the head.
        appearance_index: index of its appearance embedding; None for the mean one.
    """

    def __init__(self, field: HeadField, appearance_index: FrameIndex | None):
        self.field = field
        self._appearance = field.appearance(appearance_index)

    def chunks(self, points: Tensor) -> Iterator[tuple[slice, "MeasuredPoints"]]:
        """Rows of points [M, 3], and the points in them, a few thousand at a time."""
        for begin in range(0, len(points), _POINTS_PER_CHUNK):
            rows = slice(begin, begin + _POINTS_PER_CHUNK)
            yield rows, MeasuredPoints(self.field, self._appearance, points[rows].contiguous())


class MeasuredPoints:
    """Some points, encoded once.

    Args:
        field: of the head.
        appearance: [appearance_size] embedding.
        points: [M, 3] scene.
    """

    def __init__(self, field: HeadField, appearance: Tensor, points: Tensor):
        self._field, self._appearance, self._points = field, appearance, points
        self._features = field.position_encoder(points)

    def evaluate(self, code: Tensor, closure: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
        """Density [M] and color [M, 3].

        Args:
            code: [A] audio code.
            closure: [1] eye closure.
            camera: [3] position of the camera, scene.
        """
        directions = torch.nn.functional.normalize(self._points - camera, dim=1)
        harmonics = tk.spherical_harmonics(directions, self._field.config.direction_degree)
        inputs = (self._features, harmonics, code, closure, self._appearance)
        output = self._field.networks(*inputs, with_uncertainty=False, precision=self._field.precision)
        return output.sigmas, output.rgbs
