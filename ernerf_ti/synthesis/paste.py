"""A rendered head over a recording of the person: matte, what shows beside the head, and color.

In the crop of the capture the result is

    I = (1 - M) T + M [H + (1 - a) ((1 - F) T + F B)]

with the recording T, the rendered head H premultiplied by its opacity a, and the matte M. F is 1 where the recording
shows the moving part of the head and T must not be seen beside the rendered one: an open jaw under a closed one. There
B shows: the capture's neck and torso, which preprocessing extended under the head and before which the head was
trained, and beside them the nearest background of the recording. Elsewhere the recording itself is behind the head.

The outline of hair and ears is the recording's: there M rises inside the head. Along jaw and cheeks, which move, M
covers the union of both heads and falls outside of it.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ernerf_ti.data.capture_files import BACKGROUND, HEAD
from ernerf_ti.data.crop import Crop
from ernerf_ti.process.prefetch import ahead
from ernerf_ti.synthesis.options import Part
from ernerf_ti.synthesis.take import Surroundings, Take

_BRIDGE, _CHIN, _NOSE_BASE = 27, 8, 33  # of the 68 landmarks
_LOWER_LIDS = (40, 41, 46, 47)
_JAW = slice(3, 14)
# Lengths in units of the distance from the bridge of the nose to the chin.
_MIXED = 0.03  # around the recording's jaw: pixels mixed with it
_MARGIN = 0.04  # outside of the jaw, before the blend begins
_BAND, _HAIR_BAND = 0.08, 0.2  # width of the blend outside the jaw, and inside the hair's outline
_THIN = 0.03  # radius of what is too thin for a neck
_STREAK = 0.06  # standard deviation of the average across the streaks of its extension
_SMOOTH = 0.02  # standard deviation of the blur of what is continued under the head
_OPENING = 0.2  # by which the rendered jaw may be lower than the recording's
_SIDE = 0.12  # width of the blend inside the cheeks, if the lower face alone is pasted
_COLOR_REACH = 0.3  # standard deviation of the window over which colors are compared
_COLOR_GRID = 64  # pixels a side, at which they are
_COLOR_MEMORY = 0.8  # share of the correction before that is kept from frame to frame
_DOUBT, _OUTLIER = 0.05, 12.0  # weight of the mean correction; gray levels that count as another thing
_SOLID = 0.95  # opacity of the inside of the rendered head


@dataclass(frozen=True)
class Patch:
    """What is put over the crop of a frame."""

    color: np.ndarray
    """[h, w, 3] float32, 0 to 255, premultiplied."""
    opacity: np.ndarray
    """[h, w] float32 in [0, 1]; exactly 0 where the frame is left as it is."""

    def over(self, frame: np.ndarray, crop: Crop) -> np.ndarray:
        """Put it over a frame.

        Args:
            frame: [H, W, 3] uint8 RGB, which stays as it is.
            crop: its part that is covered.

        Returns:
            [H, W, 3] uint8 RGB. Pixels outside of the patch are those of the frame.
        """
        rows, columns = (_extent(self.opacity.any(axis), crop.side / len(self.opacity)) for axis in (1, 0))
        if rows is None or columns is None:
            return frame
        layers = np.dstack((self.color, self.opacity))
        layers = _resized(layers, crop.side)[rows, columns]
        result = frame.copy()
        inside = result[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side][rows, columns]
        opacity = np.clip(layers[..., 3:], 0, 1)
        mixed = np.clip(inside * (1 - opacity) + layers[..., :3], 0, 255)
        np.copyto(inside, np.rint(mixed).astype(np.uint8), where=opacity > 0)
        return result


class Paster:
    """Makes the patches of successive frames.

    Colors are corrected to those of the recording by a smooth field, the same in neighboring frames: the mean
    difference around each place where both show the resting part of the head, without outliers.

    Args:
        part: what is pasted.
    """

    def __init__(self, part: Part = "face"):
        self._part = part
        self._correction: np.ndarray | None = None

    def __call__(self, rendered: np.ndarray, seen: np.ndarray, around: Surroundings, presence: float = 1.0) -> Patch:
        """The patch of a frame.

        Args:
            rendered: [s, s, 4] uint8, the head alone, straight alpha.
            seen: [s, s, 3] uint8 RGB, the recording in the crop.
            around: what the capture knows of the frame.
            presence: share of the patch, see :class:`ernerf_ti.synthesis.take.TakeMotion`.
        """
        size = len(seen)
        scale = size / len(around.labels)
        places = _Places(around.landmarks * scale, size)
        recorded = _resized((around.labels == HEAD).astype(np.float32), size) > 0.5
        opacity = rendered[..., 3:].astype(np.float32) / 255
        inside = _distance(recorded)
        matte = presence * places.matte(_distance(recorded | (opacity[..., 0] > 0.5)), self._part)[..., None]
        filled = (places.moving * _rise((inside / places.unit + _MIXED) / _MIXED))[..., None]
        behind = _behind(around, seen, inside < -_MARGIN * places.unit, places.unit)
        share = opacity + (1 - opacity) * filled
        resting = (opacity[..., 0] > _SOLID) & (inside > places.unit * _MARGIN) & places.resting
        correction = self._corrected(rendered[..., :3], seen, resting, places.unit / size)
        color = opacity * (rendered[..., :3] + correction) + (1 - opacity) * filled * behind
        return Patch(matte * color, (matte * share)[..., 0])

    def _corrected(self, rendered: np.ndarray, seen: np.ndarray, resting: np.ndarray, unit: float) -> np.ndarray:
        """[s, s, 3] smooth correction of the colors. `unit` is relative to the size."""
        grid = (_COLOR_GRID, _COLOR_GRID)
        weight = cv2.resize(resting.astype(np.float32), grid, interpolation=cv2.INTER_AREA)
        difference = (seen.astype(np.float32) - rendered) * resting[..., None]
        difference = cv2.resize(difference, grid, interpolation=cv2.INTER_AREA) / np.maximum(weight, 1e-3)[..., None]
        if weight.sum() > 1:
            middle = np.median(difference[weight > 0.5], axis=0) if (weight > 0.5).any() else np.zeros(3)
            distance = np.abs(difference - middle).max(-1)
            weight = weight / (1 + (distance / _OUTLIER) ** 2)
            mean = (weight[..., None] * difference).sum((0, 1)) / max(float(weight.sum()), 1e-3)
            sigma = _COLOR_REACH * unit * _COLOR_GRID
            sums = cv2.GaussianBlur(np.dstack((difference * weight[..., None], weight)), (0, 0), sigma)
            found = (sums[..., :3] + _DOUBT * mean) / (sums[..., 3:] + _DOUBT)
            memory = 0.0 if self._correction is None else _COLOR_MEMORY
            before = found if self._correction is None else self._correction
            self._correction = (memory * before + (1 - memory) * found).astype(np.float32)
        if self._correction is None:
            return np.zeros((1, 1, 3), np.float32)
        return cv2.resize(self._correction, seen.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def paste_frames(
    take: Take,
    order: np.ndarray,
    presence: np.ndarray,
    pictures: Iterable[tuple[np.ndarray, ...]],
    place: int,
    part: Part,
    with_alpha: bool,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Paste rendered heads into a recording, whose frames are decoded in a thread of their own.

    Args:
        take: the recording.
        order: [n] its frames, as of :meth:`ernerf_ti.synthesis.take.Take.order`.
        presence: [n], as of :class:`ernerf_ti.synthesis.take.TakeMotion`.
        pictures: n tuples of images, one of them the head as of :class:`Paster`.
        place: of that one in the tuples.
        part: what is pasted.
        with_alpha: whether the frames get an alpha channel, which is opaque.

    Yields:
        The tuples with the frames [H, W, 3 or 4] uint8 in place of the heads.
    """
    paster = Paster(part)
    with contextlib.closing(ahead(take.frames(order))) as frames:
        for k, of_take, frame, of_frame in zip(order, presence, frames, pictures, strict=True):
            images = list(of_frame)
            if of_take > 0:
                seen = take.crop(frame, len(images[place]))
                patch = paster(images[place], seen, take.surroundings(int(k)), float(of_take))
                frame = patch.over(frame, take.crop)
            images[place] = np.dstack((frame, np.full(frame.shape[:2], 255, np.uint8))) if with_alpha else frame
            yield tuple(images)


class _Places:
    """Regions of the face in a picture of `size` pixels a side, by its landmarks [68, 2]."""

    def __init__(self, landmarks: np.ndarray, size: int):
        down = landmarks[_CHIN] - landmarks[_BRIDGE]
        self.unit = max(float(np.linalg.norm(down)), 1.0)
        """Pixels from the bridge of the nose to the chin."""
        down = down / self.unit

        def below(points: np.ndarray) -> np.ndarray:
            """How far below the bridge of the nose, in units."""
            return (points - landmarks[_BRIDGE]) @ down / self.unit

        centers = np.stack(np.meshgrid(*(np.arange(size, dtype=np.float32) + 0.5,) * 2), -1)
        self._below = below(centers)
        opened = landmarks[_JAW] + _OPENING * self.unit * down
        outline = cv2.convexHull(np.concatenate((landmarks, opened)).astype(np.float32))[:, 0]
        face = np.zeros((size, size), np.uint8)
        cv2.fillPoly(face, [np.round((outline - 0.5) * 16).astype(np.int32)], (1,), shift=4)
        self._inside = _distance(face.astype(bool)) / self.unit  # units inside the face
        near = 1 - _rise((-self._inside - 0.05) / 0.25)
        self.moving = near * _rise((self._below - 0.25) / 0.35)
        """[size, size] in [0, 1]: jaw and cheeks, which move in speech, and what is just outside of them."""
        self.resting = self._below < 0.5
        """[size, size] bool: what moves with the head alone."""
        self._lids, self._nose = (float(below(landmarks[[*ids]]).mean()) for ids in (_LOWER_LIDS, (_NOSE_BASE,)))

    def matte(self, inside: np.ndarray, part: Part) -> np.ndarray:
        """[size, size] in [0, 1], by the distance [size, size] to the outline of the union of both heads, px."""
        band = _HAIR_BAND + self.moving * (_BAND - _HAIR_BAND)
        outward = self.moving * (_MARGIN + _BAND)
        matte = _rise((inside / self.unit + outward) / band)
        if part == "face":
            begin, end = (self._lids + share * (self._nose - self._lids) for share in (0.2, 0.9))
            matte = matte * _rise((self._below - begin) / (end - begin))
            at_jaw = _rise((self._below - self._nose) / 0.25)
            matte = matte * _rise((self._inside + at_jaw * _SIDE) / _SIDE)
        return matte


def _behind(around: Surroundings, seen: np.ndarray, beside: np.ndarray, unit: float) -> np.ndarray:
    """[s, s, 3] float32: what is behind the head, by the mask [s, s] of what is surely beside it."""
    size = len(seen)
    torso, head = _resized(around.torso.astype(np.float32), size), _resized((around.labels == HEAD) * 1.0, size)
    # Mixed pixels along the outline, which were taken for torso and extended, are thin.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, round(_THIN * unit)) + 1,) * 2)
    cover = cv2.morphologyEx(np.clip(torso[..., 3] / 255, 0, 1), cv2.MORPH_OPEN, disc)
    cover = cv2.GaussianBlur(cover, (0, 0), 0.7)[..., None]
    # Each column was continued by a single pixel: their colors are averaged.
    weight = cover * (head > 0.5)[..., None]
    layers = np.dstack((torso[..., :3] * weight, weight)).astype(np.float32)
    sums = cv2.GaussianBlur(layers, (0, 0), sigmaX=_STREAK * unit, sigmaY=max(_SMOOTH * unit, 0.5))
    color = np.where(sums[..., 3:] > 1e-3, sums[..., :3] / np.maximum(sums[..., 3:], 1e-3), torso[..., :3])
    background = beside & (_resized((around.labels == BACKGROUND) * 1.0, size) > 0.5)
    return color * cover + _continued(seen, background, _SMOOTH * unit) * (1 - cover)


def _continued(image: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray:
    """[h, w, 3] float32: the known pixels, and elsewhere a blur, by `sigma` px, of the nearest known ones."""
    if not known.any():
        return image.astype(np.float32)
    unknown = (~known).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colors = np.zeros((nearest.max() + 1, 3), np.float32)
    colors[nearest[known]] = image[known]
    continued = colors[nearest]
    return np.where(known[..., None], continued, cv2.GaussianBlur(continued, (0, 0), max(sigma, 0.5)))


def _distance(mask: np.ndarray) -> np.ndarray:
    """[h, w] float32 pixels to the outline of a mask, positive inside."""
    inside, outside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 5) for m in (mask, ~mask))
    farthest = float(sum(mask.shape))  # where there is no outline
    return np.minimum(inside, farthest) - np.minimum(outside, farthest)


def _rise(x: np.ndarray) -> np.ndarray:
    """From 0 at 0 to 1 at 1, smoothly."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if len(image) == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if len(image) > size else cv2.INTER_CUBIC)


def _extent(some: np.ndarray, scale: float) -> slice | None:
    """The range of the True, scaled, with a margin for interpolation; None if there are none."""
    found = np.flatnonzero(some)
    if not len(found):
        return None
    return slice(max(0, int((found[0] - 3) * scale)), int(np.ceil((found[-1] + 4) * scale)))
