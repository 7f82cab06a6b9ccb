"""What the demo measures in pictures: how far the mouth and the eyelids are open, in portrait and ground truth."""

import dataclasses

import cv2
import numpy as np

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.synthetic.frame_state import FrameState
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait

_PATCH = 24, 16  # columns and rows to which the mouth is resized
_RIDGE = 30.0
_CLOSURES = np.array([1.0, 0.5, 0.0])
_EYE_PIXEL = 0.05  # of the displayed range: pixels that a blink changes by less are not used


class MouthMeter:
    """Opening of the mouth in a picture: ridge regression from its pixels, fitted to the true training frames.

    Args:
        person: ground truth of the openings.
        capture: the same frames as files.
    """

    def __init__(self, person: SyntheticPortrait, capture: Capture):
        ids = capture.train.frame_ids
        patches = np.stack([_mouth_patch(capture.image(k), capture.landmarks(k)) for k in ids])
        openings = person.mouths[ids, 0]
        self._mean, self._opening = patches.mean(0), float(openings.mean())
        centered = patches - self._mean
        # In the dual: there are fewer frames than pixels.
        gram = centered @ centered.T + _RIDGE * np.eye(len(centered))
        self._weights = centered.T @ np.linalg.solve(gram, openings - self._opening)

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> float:
        """Opening in meters in an image [H, W, 3] uint8 with the landmarks [68, 2] of the face."""
        return float((_mouth_patch(image, landmarks) - self._mean) @ self._weights) + self._opening


def _mouth_patch(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """[n] pixels below the nose, resized, in [0, 1]. Which ones does not depend on the mouth."""
    eyes = landmarks[36:48].mean(0)
    nose = landmarks[33]
    unit = float(np.linalg.norm(landmarks[45] - landmarks[36]))
    down = (nose - eyes) / max(1e-6, float(np.linalg.norm(nose - eyes)))
    center = nose + 0.45 * unit * down
    columns, rows = _PATCH
    across = np.array([down[1], -down[0]])
    scale = 1.1 * unit / columns
    matrix = np.column_stack((scale * across, scale * down, center - scale * (across * columns + down * rows) / 2))
    patch = cv2.warpAffine(image, matrix, _PATCH, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return patch.astype(np.float64).ravel() / 255


class LidMeter:
    """Aperture of the eyelids in a picture of a known state, by comparison with true pictures of that state.

    The picture of the eyes is projected on the difference between the true open and the true closed eyes. The result is
    0 for the closed and 1 for the open ones; an iris that shines through closed lids lies between. True pictures with
    known lids translate it into an aperture.

    Args:
        person: renders the true pictures.
        state: pose and mouth of the picture.
    """

    def __init__(self, person: SyntheticPortrait, state: FrameState):
        truths = [person.render_state(dataclasses.replace(state, blink=float(closure))) for closure in _CLOSURES]
        self._apertures = [lid_aperture(truth.landmarks) for truth in truths]
        self.true_apertures = self._apertures[0], self._apertures[-1]
        """Of the closed and of the open eyes."""
        closed, opened = (truths[i].image.astype(np.float64) / 255 for i in (0, -1))
        self._mask = np.abs(opened - closed).max(2) > _EYE_PIXEL
        self._closed = closed[self._mask]
        difference = opened[self._mask] - self._closed
        # Without its mean, so that a small error of the skin's brightness does not count.
        difference -= difference.mean(0)
        self._axis = difference / max(1e-12, float(np.square(difference).sum()))
        self._openness = [self.openness(truth.image) for truth in truths]

    def openness(self, image: np.ndarray) -> float:
        """How much of the open eyes is seen in an image [H, W, 3] uint8: 0 as in closed eyes, 1 as in open ones."""
        return float(((image[self._mask] / 255 - self._closed) * self._axis).sum())

    def __call__(self, image: np.ndarray) -> float:
        """Aperture of the lids in an image [H, W, 3] uint8, as :func:`lid_aperture`."""
        return float(np.interp(self.openness(image), self._openness, self._apertures))


def lid_aperture(landmarks: np.ndarray) -> float:
    """Eye aspect ratio [Soukupova and Cech 2016] of landmarks [68, 2], mean of both eyes.

    The distance between the lids over that between the corners of the eye.
    """
    ratios = []
    for i in (36, 42):
        eye = landmarks[i : i + 6].astype(np.float64)
        lids = np.linalg.norm(eye[1] - eye[5]) + np.linalg.norm(eye[2] - eye[4])
        ratios.append(lids / (2 * np.linalg.norm(eye[0] - eye[3])))
    return float(np.mean(ratios))
