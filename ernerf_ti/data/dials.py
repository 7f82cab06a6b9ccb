"""Expression dials of a capture: how far each frame's face deviates from neutral, measured on its face mesh.

`ernerf-ti preprocess` keeps the mesh of every frame, with irises, and the person's mean shape. Aligned with the mean
shape by points that move with the skull, the mesh of a frame tells the expression whatever the pose, the distance and
the size of the picture are. What a portrait knows of a frame anyway is taken out of it by linear regression: blinks
from all dials; mouth opening, yaw and pitch from brows and smile. (From the gaze they are not: who looks at the camera
turns the eyes against the head.) A smile is averaged over time, too: lips that widen and round for a sound are left to
the speech, which would otherwise not learn to move them.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernerf_ti.data.capture_files import CaptureError
from ernerf_ti.media.files import read_arrays
from ernerf_ti.portrait.camera import SCENE_SCALE
from ernerf_ti.portrait.config import DIAL_GROUPS
from ernerf_ti.portrait.model.dials import MARGIN

LARGEST = 2.5
"""Standard deviations that values are clipped to."""

_N_POINTS = 478
# Of the mesh, the person's right first. Rigid: corners of the eyes, bridge and sides of the nose, temples, cheekbones.
_EYE_CORNERS = np.array([33, 133, 362, 263])
_RIGID = np.array(
    [*_EYE_CORNERS, 168, 6, 197, 195, 193, 417, 122, 351, 196, 419, 174, 399, 217, 437, 127, 356, 34, 264]
    + [116, 345, 117, 346, 118, 347, 234, 454]
)
_UPPER_BROWS = np.array([70, 63, 105, 66, 107, 336, 296, 334, 293, 300])
_LOWER_BROWS = np.array([46, 53, 52, 65, 55, 285, 295, 282, 283, 276])
_UPPER_LIDS, _LOWER_LIDS = np.array([159, 386]), np.array([145, 374])
_IRISES = np.array([468, 473])
_MOUTH_CORNERS = np.array([61, 291])
_UPPER_LIP, _LOWER_LIP = np.array([82, 13, 312]), np.array([87, 14, 317])
_CHIN = 152
_CLOSED = 0.5  # eye closure from which irises are not seen
_SMILE_FRAMES = 25  # of the Hann window, 1 s; syllables take about 0.2
_MAD = 1.4826  # standard deviations of normal values per median absolute deviation
_LEAST_SPREAD = 1e-3  # of the eye distance, 0.06 mm: less is noise of the landmarks


class CaptureDials(NamedTuple):
    """D dials of a capture."""

    values: np.ndarray
    """[n_frames, D] float32 by frame number, in standard deviations from neutral, the median of the capture."""
    boxes: np.ndarray
    """[D, 2, 2, 2] float32 where they may act, see :class:`ernerf_ti.portrait.model.dials.Dials`."""


def read_dials(folder: Path, names: tuple[str, ...], eye_closures: np.ndarray) -> CaptureDials:
    """Measure dials on the mesh that `ernerf-ti preprocess` has left in a capture.

    Args:
        folder: the capture.
        names: of the dials, single ones of DIAL_GROUPS.
        eye_closures: [n_frames] in [0, 1], 0 open, 1 closed.

    Raises:
        CaptureError: the capture has no mesh, as those of other tools and of the synthetic person, or a damaged one.
    """
    mesh, head = (folder / "preprocess" / name for name in ("mesh.npz", "head.npz"))
    for path in (mesh, head):
        if not path.is_file():
            raise CaptureError(
                f"{path}: expected the face mesh that dials are measured on, got no such file; preprocess the video "
                "with `ernerf-ti preprocess`, or train without --portrait.head.dials"
            )
    tracked, shape = read_arrays(mesh), read_arrays(head).get("shape", np.zeros(0))
    points, valid = tracked.get("points", np.zeros(0)), tracked.get("valid", np.zeros(0, bool))
    n = len(eye_closures)
    if points.shape != (n, _N_POINTS, 3) or valid.shape != (n,) or shape.shape != (_N_POINTS, 3):
        raise CaptureError(
            f"{mesh}: expected points [{n}, {_N_POINTS}, 3] and a shape [{_N_POINTS}, 3] in {head.name}, got "
            f"{list(points.shape)} and {list(shape.shape)}; preprocess the video again"
        )
    points = np.where(valid[:, None, None], points, np.nan)
    measured = dial_values(points, shape, eye_closures)
    boxes = dial_boxes(shape)
    return CaptureDials(
        np.stack([measured[name] for name in names], 1).astype(np.float32),
        np.stack([boxes[name] for name in names]).astype(np.float32),
    )


def dial_values(points: np.ndarray, shape: np.ndarray, eye_closures: np.ndarray) -> dict[str, np.ndarray]:
    """Values of all dials.

    brows: height of the eyebrows above the corners of the eyes. smile: distance of the corners of the mouth, plus their
    height above the middle of the lips, averaged over a second. gaze-x, gaze-y: place of the irises between the corners
    of the eyes, to the right of the picture and up, interpolated where the eyes are closed.

    Args:
        points: [F, 478, 3] mesh in pixels, x right, y down, z away from the camera; NaN in frames without a face.
        shape: [478, 3] mean mesh in the head frame, x right, y up, z out of the face.
        eye_closures: [F] in [0, 1].

    Returns:
        [F] by name, in standard deviations from the median, both estimated robustly; at most 2.5.

    Raises ValueError if fewer than 2 frames show a face with open eyes.
    """
    seen = np.isfinite(points).all((1, 2))
    is_open = seen & (eye_closures < _CLOSED)
    if is_open.sum() < 2:
        raise ValueError(
            f"points: expected at least 2 frames of a face with open eyes, got {is_open.sum()} of {len(points)}; "
            "record a longer video"
        )
    aligned, turns = _aligned(points[seen].astype(np.float64), shape)
    closure = eye_closures[seen].astype(np.float64)
    distance = np.linalg.norm(shape[_EYE_CORNERS[:2]].mean(0) - shape[_EYE_CORNERS[2:]].mean(0))
    at = aligned / distance
    opening = np.linalg.norm(at[:, _UPPER_LIP] - at[:, _LOWER_LIP], axis=-1).mean(1)
    corners, eyes = at[:, _MOUTH_CORNERS], at[:, _EYE_CORNERS]
    brows = at[:, np.append(_UPPER_BROWS, _LOWER_BROWS), 1].mean(1) - eyes[..., 1].mean(1)
    width = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1)
    lift = corners[..., 1].mean(1) - at[:, [_UPPER_LIP[1], _LOWER_LIP[1]], 1].mean(1)
    gaze = at[:, _IRISES].mean(1) - eyes.mean(1)
    known = [closure, opening, opening**2, *turns.T]
    values = {
        "brows": (brows, known, seen),
        "smile": (width + lift, known, seen),
        "gaze-x": (gaze[:, 0], [closure], is_open),
        "gaze-y": (gaze[:, 1], [closure], is_open),
    }
    frames = np.arange(len(points))
    result = {}
    for name, (value, others, used) in values.items():
        of_used = used[seen]
        residual = _unexplained(value[of_used], np.stack(others, 1)[of_used])
        of_frames = np.interp(frames, np.flatnonzero(used), residual)
        if name == "smile":
            of_frames = _averaged(of_frames)
        of_frames -= np.median(of_frames)
        spread = max(_MAD * float(np.median(np.abs(of_frames))), _LEAST_SPREAD)
        result[name] = (of_frames / spread).clip(-LARGEST, LARGEST)
    return result


def dial_boxes(shape: np.ndarray) -> dict[str, np.ndarray]:
    """Where each dial may act: [2, 2, 2] two boxes with their lowest and highest x and z in the scene, by name.

    The brows' box reaches from the upper lids, where its mask is 0, to the middle of the forehead, the eyes' ones are
    their openings with the lids, and that of the smile is the mouth with the cheeks, from the lower lids to half-way
    between lips and chin.

    Args:
        shape: [478, 3] mean mesh in the head frame, meters.
    """
    x, y = shape[:, 0], shape[:, 1]
    corners, brows = x[_EYE_CORNERS], x[_UPPER_BROWS]
    upper_lids, lower_lids = y[_UPPER_LIDS], y[_LOWER_LIDS]
    unit = np.abs(corners[:2].mean() - corners[2:].mean())

    def box(sides: np.ndarray, low: float, high: float) -> np.ndarray:
        return SCENE_SCALE * np.array([[low, sides.min()], [high, sides.max()]])

    above_lids = upper_lids.max() + MARGIN / SCENE_SCALE
    brows_box = box(np.append(brows - 0.1 * unit, brows + 0.1 * unit), above_lids, y[_UPPER_BROWS].max() + 0.35 * unit)
    eye_boxes = [
        box(sides, low - 0.02 * unit, high + 0.02 * unit)
        for sides, low, high in zip(corners.reshape(2, 2), lower_lids, upper_lids, strict=True)
    ]
    below_lips = (y[_LOWER_LIP].min() + y[_CHIN]) / 2
    smile_box = box(corners, below_lips, lower_lids.min() - 0.15 * unit)
    boxes = {"brows": [brows_box] * 2, "smile": [smile_box] * 2, "gaze": eye_boxes}
    return {name: np.stack(boxes[group]) for group, names in DIAL_GROUPS.items() for name in names}


def _aligned(points: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Meshes [F, 478, 3] in the head frame, by the similarity that fits the rigid points best [Umeyama 1991], and the
    yaw and pitch [F, 2] of the head in the picture, radians."""
    points = points * (1, -1, -1)
    means, target = points[:, _RIGID].mean(1, keepdims=True), shape[_RIGID].mean(0)
    rigid, rigid_target = points[:, _RIGID] - means, shape[_RIGID] - target
    u, sizes, v = np.linalg.svd(np.swapaxes(rigid, 1, 2) @ rigid_target)
    sizes[:, 2] *= np.sign(np.linalg.det(u @ v))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]
    rotations = u @ v  # row vectors in the picture to those in the head frame
    scales = sizes.sum(1) / (rigid**2).sum((1, 2))
    forwards = rotations[:, :, 2]  # of the face, in the axes of the picture
    turns = np.stack((np.arctan2(forwards[:, 0], forwards[:, 2]), np.arcsin(forwards[:, 1].clip(-1, 1))), 1)
    return scales[:, None, None] * ((points - means) @ rotations) + target, turns


def _averaged(values: np.ndarray) -> np.ndarray:
    """Mean of values [F] over the frames around each, with Hann weights."""
    weights = np.hanning(_SMILE_FRAMES + 2)[1:-1]
    sums, totals = (np.convolve(x, weights)[len(weights) // 2 :][: len(x)] for x in (values, np.ones_like(values)))
    return sums / totals


def _unexplained(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What is left of values [F] that a linear function of others [F, K] does not explain."""
    others = np.column_stack((np.ones(len(others)), others))
    return values - others @ np.linalg.lstsq(others, values, rcond=None)[0]
