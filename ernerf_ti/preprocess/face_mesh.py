"""Face Mesh landmarks in every frame of a video, averaged over jittered crops.

MediaPipe's Face Mesh with attention gives 478 points: the 468 of Kartynnik et al., "Real-time Facial Surface Geometry
from Monocular Video on Mobile GPUs" (2019), and 5 for each iris. Its error depends on the crop, so that averaging over
four slightly shifted, scaled and rotated crops halves the jitter.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from ernerf_ti.preprocess.face_detection import FaceDetector
from ernerf_ti.preprocess.mediapipe_models import quiet, solutions

N_POINTS = 478

# Mesh points of the 68 iBUG landmarks: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, lips 48-67. Both schemes
# count from the person's right, on the left of the image.
IBUG_POINTS = np.array(
    [127, 234, 93, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 323, 454, 356]
    + [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
    + [168, 197, 195, 4, 98, 97, 2, 326, 327]
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]
    + [78, 82, 13, 312, 308, 317, 14, 87]
)

# Shift in x and y as fractions of the crop's side, scale, rotation in degrees. The means are 0, 0, 1, 0.
_JITTER = ((0.03, 0.02, 0.94, 5.0), (-0.03, 0.03, 1.06, -5.0), (0.02, -0.03, 1.02, -2.5), (-0.02, -0.02, 0.98, 2.5))
_CROP_PER_BOX = 2.0  # the detector's box reaches from the brows to the chin; Face Mesh needs the whole head
_CROP_SIDE = 384  # px; the networks see 192, so that more would not help
_SAME_SIZE = 0.6  # of the largest face's size; smaller faces are not candidates for the tracked one
_LEAST_CROPS = 3
# In profile the mesh drifts off and the crops disagree. Frontal faces have a spread of 0.002 to 0.006.
_MAX_YAW = 55.0  # degrees
_MAX_SPREAD = 0.02  # of the face height


@dataclass(frozen=True)
class FaceTrack:
    """One face tracked over the frames of a video."""

    points: np.ndarray
    """[F, 478, 3] float32: x right and y down in px of the frame (0 at the top-left corner), z at the same scale,
    negative towards the camera. NaN where no mesh was found."""
    valid: np.ndarray
    """[F] bool: frames with a reliable mesh."""
    spread: np.ndarray
    """[F] float32: root mean square distance in px between the crops' points and their mean. NaN without mesh."""
    n_faces: np.ndarray
    """[F] int32: detected faces."""
    reasons: tuple[str, ...]
    """Why each frame is invalid, "" for valid ones."""


def track_face(frames: Iterable[np.ndarray], n_frames: int | None = None, progress: bool = False) -> FaceTrack:
    """Track the mesh of one face over the frames of a video.

    In each frame this is the largest face or, among several of about that size, the one nearest to the face of the
    previous frame. A frame is invalid without a face, if fewer than three crops yield a mesh, in profile (yaw beyond
    55 degrees), and if the crops disagree by more than 2 % of the face height. Only one frame is held in memory.
    Deterministic: frames are processed independently, and the jitter is fixed.

    Args:
        frames: [H, W, 3] uint8 RGB each, all of one size.
        n_frames: number of frames, for the progress bar.
        progress: show a progress bar.

    Raises:
        ImportError: mediapipe is not installed.
        ValueError: a frame is not [H, W, 3] uint8, there are no frames, or no frame shows a face.
    """
    with FaceDetector() as detect, _MeshFinder() as finder:
        bar = tqdm(frames, "tracking the face", n_frames, disable=not progress, unit="frame")
        # The crops of a frame are not kept: they would take 46 KB.
        found = [
            (mesh.mean(0) if len(mesh) else np.full((N_POINTS, 3), np.nan), crop_spread(mesh), len(mesh), n)
            for mesh, n in _follow(detect, finder, bar)
        ]
    if not found:
        raise ValueError("frames: expected at least one, got none; decode the video first")
    means, spreads, n_crops, n_faces = zip(*found, strict=True)
    if not any(n_crops):
        raise ValueError(
            f"video: no face found in {len(found)} frames; use a video of one person who faces the camera, with a face "
            "at least a tenth as wide as the video"
        )
    points, spread = np.stack(means), np.array(spreads)
    reasons = tuple(map(invalid_reason, points, spread, n_crops))
    return FaceTrack(
        points.astype(np.float32),
        np.array([not reason for reason in reasons]),
        spread.astype(np.float32),
        np.array(n_faces, np.int32),
        reasons,
    )


def ibug_landmarks(points: np.ndarray) -> np.ndarray:
    """Mesh points [..., 478, 2 or 3] -> [..., 68, 2] x and y of the iBUG landmarks.

    The jaw follows the contour of the mesh, unlike landmark trackers, which stay on the visible cheek.
    """
    return points[..., IBUG_POINTS, :2]


def mesh_yaw(points: np.ndarray) -> np.ndarray:
    """[..., 478, 3] -> [...] angle in degrees between the line through both cheeks and the image plane."""
    across = points[..., 454, :] - points[..., 234, :]
    return np.degrees(np.arctan2(across[..., 2], across[..., 0]))


def crop_spread(mesh: np.ndarray) -> float:
    """Root mean square distance in px of points [C, 478, 3] from their mean over C crops; NaN for C = 0."""
    if not len(mesh):
        return np.nan
    return float(np.sqrt(((mesh - mesh.mean(0))[..., :2] ** 2).sum(-1).mean()))


def invalid_reason(points: np.ndarray, spread: float, n_crops: int) -> str:
    """Why the mesh [478, 3] of a frame is unreliable, "" if it is not; arguments as in :class:`FaceTrack`."""
    if not n_crops:
        return "no face"
    if n_crops < _LEAST_CROPS:
        return f"mesh in {n_crops} of {len(_JITTER)} crops"
    if abs(mesh_yaw(points)) > _MAX_YAW:
        return f"profile: yaw {mesh_yaw(points):.0f} degrees"
    height = np.ptp(points[:468, 1])
    if spread > _MAX_SPREAD * height:
        return f"crops differ by {spread:.1f} px"
    return ""


def choose_face(boxes: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    """Choose the face to track from boxes [B, 3] of center x, center y and side, with B > 0.

    Without a previous box this is the largest one; otherwise the nearest to the previous one [3] among those with a
    side of at least 0.6 of the largest.
    """
    large = boxes[boxes[:, 2] >= _SAME_SIZE * boxes[:, 2].max()]
    if previous is None:
        return large[large[:, 2].argmax()]
    return large[np.hypot(*(large[:, :2] - previous[:2]).T).argmin()]


def jittered_crops(box: np.ndarray) -> np.ndarray:
    """[4, 2, 3] affine matrices from px of the frame to px of the crops around a box [3], as in `choose_face`."""
    x, y, side = box
    matrices = []
    for shift_x, shift_y, scale, degrees in _JITTER:
        zoom = _CROP_SIDE / (_CROP_PER_BOX * side * scale)
        cos, sin = zoom * np.cos(np.radians(degrees)), zoom * np.sin(np.radians(degrees))
        linear = np.array([[cos, -sin], [sin, cos]])
        center = np.array([x + shift_x * _CROP_PER_BOX * side, y + shift_y * _CROP_PER_BOX * side])
        matrices.append(np.column_stack((linear, _CROP_SIDE / 2 - linear @ center)))
    return np.stack(matrices)


def to_frame(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Mesh points [478, 3] in px of a crop -> px of the frame; z is scaled like x and y."""
    linear = np.linalg.inv(matrix[:, :2])
    xy = (points[:, :2] - matrix[:, 2]) @ linear.T
    return np.column_stack((xy, points[:, 2:] * np.sqrt(np.linalg.det(linear))))


def _follow(
    detect: FaceDetector, finder: "_MeshFinder", frames: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, int]]:
    """For each frame, the meshes [C, 478, 3] of the crops and the number of faces."""
    box = shape = None
    for k, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape != shape:
            raise ValueError(
                f"frame {k}: expected [H, W, 3] uint8 RGB of one size, got {frame.shape} {frame.dtype}; "
                "decode the video to rgb24"
            )
        boxes = detect(frame)
        if not len(boxes):
            yield np.empty((0, N_POINTS, 3)), 0
            continue
        box = choose_face(boxes, box)
        yield finder.meshes(frame, box), len(boxes)


class _MeshFinder(contextlib.AbstractContextManager):
    """MediaPipe's Face Mesh on crops, with coordinates in pixels."""

    def __init__(self) -> None:
        face_mesh = solutions().face_mesh
        with quiet():
            self._mesh = face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True)
            # Start it here: its threads write to stderr.
            self._mesh.process(np.zeros((_CROP_SIDE, _CROP_SIDE, 3), np.uint8))
        self._warm = False

    def __exit__(self, *exception: object) -> None:
        self._mesh.close()

    def meshes(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """[C, 478, 3] meshes of the jittered crops, without those that have none, in px of the frame."""
        shrink = max(1, int(_CROP_PER_BOX * box[2] / (2 * _CROP_SIDE)))
        if shrink > 1:  # linear interpolation would alias
            frame = cv2.resize(frame, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        meshes = []
        for matrix in jittered_crops(box / shrink):
            # Pixel centers are at half-integers here and at integers in OpenCV.
            half = np.full(2, 0.5)
            warp = np.column_stack((matrix[:, :2], matrix @ np.append(half, 1) - half))
            crop = cv2.warpAffine(frame, warp, (_CROP_SIDE, _CROP_SIDE), borderMode=cv2.BORDER_REPLICATE)
            with self._quiet_at_first():
                faces = self._mesh.process(crop).multi_face_landmarks
            if faces:
                mesh = np.array([(point.x, point.y, point.z) for point in faces[0].landmark]) * _CROP_SIDE
                meshes.append(to_frame(mesh, matrix) * shrink)
                self._warm = True
        return np.array(meshes).reshape(-1, N_POINTS, 3)

    def _quiet_at_first(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._warm else quiet()
