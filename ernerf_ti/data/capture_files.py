"""The files of a capture folder: their names, how they are read and how they are written.

The layout is that of ER-NeRF, so that captures can be exchanged in both directions:

    transforms_train.json      camera intrinsics, number and camera pose of each training frame
    transforms_val.json        the same for the held-out frames
    ori_imgs/K.jpg, K.lms      frame K; its 68 landmarks, one line `x y` in pixels each
    gt_imgs/K.jpg              the person of frame K composited over the background
    torso_imgs/K.png           neck and torso, RGBA, straight alpha
    parsing/K.png              labels as colors (optional here)
    bc.jpg                     the background
    aud.wav                    mono 16 kHz sound (optional here)
    aud_*.npy                  windows of audio features, one per frame; a file for each extractor
    aud_whisper.npz            what made features of Whisper's states (only written by this package)
    au.csv                     eye closure of each frame, in the column ` AU45_r` of OpenFace
    capture.json               how the capture was made (only written by this package)
    consent.json               who agreed to a portrait (optional; see :mod:`ernerf_ti.media.provenance.consent`)

Frames are numbered from 0, without padding. Poses are 4x4 `pose_world_from_camera` matrices in meters: the camera
follows OpenGL (x right, y up, looking along -z), the world is the head frame (x right in the image, y up, z out of the
face).
"""

import csv
import math
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ernerf_ti.audio.extractors import current_name
from ernerf_ti.audio.ready_made import FORMATS
from ernerf_ti.media.files import read_json, write_json, write_text
from ernerf_ti.media.images import write_image
from ernerf_ti.media.whole_files import replacing

FORMAT_VERSION = 1
FPS = 25.0
TRAIN_FRACTION = 10 / 11
"""Fraction of frames for training, from the start; the rest is held out (ER-NeRF's split)."""
BACKGROUND, HEAD, NECK, TORSO = range(4)

_BLINK_COLUMN = "AU45_r"
_CAMERA_KEYS = ("cx", "cy", "w", "h", "focal_len", "fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
_FARTHEST = 100.0  # m; of a camera from the head
_HIGHEST = 1e9  # of any number of a camera
LARGEST_SIDE = 1 << 14
"""Pixels, of a picture."""
MOST_FRAMES = 10_000_000
"""111 hours."""
_CLOSED = 2.0  # AU45 intensity of a closed eye; ER-NeRF clips there
# RGB values in the PNGs. ER-NeRF's tools write them as BGR, (255, 0, 0) for the head and so on.
_LABEL_COLORS = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)


class CaptureError(ValueError):
    """A capture that can't be used; the message lists all problems."""


@dataclass(frozen=True)
class CapturePaths:
    """Paths of the files of a capture."""

    folder: Path

    def frame(self, k: int) -> Path:
        return self.folder / "ori_imgs" / f"{k}.jpg"

    def landmarks(self, k: int) -> Path:
        return self.folder / "ori_imgs" / f"{k}.lms"

    def image(self, k: int) -> Path:
        return self.folder / "gt_imgs" / f"{k}.jpg"

    def torso(self, k: int) -> Path:
        return self.folder / "torso_imgs" / f"{k}.png"

    def labels(self, k: int) -> Path:
        return self.folder / "parsing" / f"{k}.png"

    def transforms(self, split: str) -> Path:
        return self.folder / f"transforms_{split}.json"

    @property
    def background(self) -> Path:
        return self.folder / "bc.jpg"

    @property
    def sound(self) -> Path:
        return self.folder / "aud.wav"

    @property
    def blinks(self) -> Path:
        return self.folder / "au.csv"

    @property
    def description(self) -> Path:
        return self.folder / "capture.json"

    def make_folders(self) -> None:
        for path in (self.frame(0), self.image(0), self.torso(0), self.labels(0)):
            path.parent.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Description:
    """Content of `capture.json`: how a capture was made."""

    width: int
    height: int
    n_frames: int
    """Frames of the video, including those without a pose."""
    extractor: str
    """Of the audio features."""
    feature_dimension: int
    fps: float = FPS
    crop: dict = field(default_factory=dict)
    """x, y, side in pixels of the source video; empty if there is none."""
    source: dict = field(default_factory=dict)
    """Properties of the video: name, sha256, size, rate, duration."""
    versions: dict = field(default_factory=dict)
    """Versions of the packages that made it."""
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Split:
    """Training frames, or held-out frames."""

    frame_ids: np.ndarray
    """[n] int64 frame numbers."""
    audio_ids: np.ndarray
    """[n] int64 indices of the audio windows."""
    poses: np.ndarray
    """[n, 4, 4] float64 pose_world_from_camera as stored."""

    def __len__(self) -> int:
        return len(self.frame_ids)


def split_frames(n: int) -> int:
    """Number of training frames out of n; the others, at least one if n > 1, are held out."""
    return int(n * TRAIN_FRACTION)


def write_transforms(
    folder: Path, focal: float, size: tuple[int, int], frame_ids: Sequence[int] | np.ndarray, poses: np.ndarray
) -> None:
    """Write both transforms files, with the first 10/11 of the frames for training.

    Args:
        folder: the capture.
        focal: in pixels.
        size: width, height in pixels; the principal point is at the center.
        frame_ids: [n] numbers of the frames with a pose.
        poses: [n, 4, 4] pose_world_from_camera.

    Raises:
        ValueError: fewer than two frames.
    """
    if len(frame_ids) < 2:
        raise ValueError(
            f"frame_ids: expected at least 2 frames with a pose, one for training and one held out, "
            f"got {len(frame_ids)}; use a longer video in which the face is visible"
        )
    n_train = split_frames(len(frame_ids))
    for name, part in (("train", slice(0, n_train)), ("val", slice(n_train, None))):
        frames = [
            {"img_id": int(k), "aud_id": int(k), "transform_matrix": pose.tolist()}
            for k, pose in zip(frame_ids[part], poses[part], strict=True)
        ]
        camera = {"focal_len": float(focal), "cx": size[0] / 2, "cy": size[1] / 2, "w": size[0], "h": size[1]}
        write_json(CapturePaths(folder).transforms(name), {**camera, "frames": frames})


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write [H, W] labels (0 background, 1 head, 2 neck, 3 torso) in ER-NeRF's colors."""
    write_image(path, _LABEL_COLORS[labels])


def labels_of(colors: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 RGB of parsing/K.png -> [H, W] uint8 labels; raises CaptureError for other colors."""
    weights = np.array([1, 1 << 8, 1 << 16], np.uint32)
    packed, labels = colors @ weights, np.full(colors.shape[:2], 255, np.uint8)
    for label, color in enumerate(_LABEL_COLORS):
        labels[packed == color @ weights] = label
    if (labels == 255).any():
        raise CaptureError("labels: expected the four colors of ER-NeRF, got others; preprocess the video again")
    return labels


def write_landmarks(path: Path, landmarks: np.ndarray) -> None:
    """Write [68, 2] x, y in pixels."""
    write_text(path, "".join(f"{x:.9g} {y:.9g}\n" for x, y in landmarks))


def read_landmarks(path: Path) -> np.ndarray:
    """[68, 2] float32; raises CaptureError for a file in another format."""
    try:
        landmarks = np.array([line.split() for line in Path(path).read_text().splitlines()], np.float32)
    except ValueError as error:
        raise CaptureError(f"{path}: expected 68 lines `x y`, got {error}; track the video again") from None
    if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
        raise CaptureError(
            f"{path}: expected 68 lines of 2 finite numbers, got shape {list(landmarks.shape)}; track the video again"
        )
    return landmarks


def write_blinks(path: Path, eye_closures: np.ndarray, seen: np.ndarray) -> None:
    """Write au.csv in OpenFace's format.

    Args:
        path: the file.
        eye_closures: [n_frames] in [0, 1], 0 open, 1 closed. Closed is written as AU45 intensity 2, as ER-NeRF reads
            it.
        seen: [n_frames] bool, whether the face was found.
    """
    # OpenFace puts a space before every column but the first, and ER-NeRF requires it.
    lines = [f"frame, timestamp, success, {_BLINK_COLUMN}"]
    for k, (closure, success) in enumerate(zip(eye_closures, seen, strict=True)):
        lines.append(f"{k + 1}, {k / FPS:.2f}, {int(success)}, {_CLOSED * closure:.9g}")
    write_text(path, "\n".join(lines) + "\n")


def read_blinks(path: Path, n_frames: int) -> np.ndarray:
    """Eye closure of each frame from a CSV of OpenFace, with or without the space in ` AU45_r`.

    Returns:
        [n_frames] float32 in [0, 1]: AU45 intensity clipped to [0, 2], halved.

    Raises:
        CaptureError: no such column, a value that is not a number, or fewer rows than frames.
        FileNotFoundError: no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: expected eye closures for {n_frames} frames, got no such file; "
            "preprocess the video, or save OpenFace's CSV under this name"
        )
    try:
        values = _read_blink_column(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise CaptureError(f"{path}: not a CSV file ({error}); run OpenFace's FeatureExtraction again") from None
    if len(values) < n_frames:
        raise CaptureError(
            f"{path}: expected a row for each of {n_frames} frames, got {len(values)}; "
            "run the blink detection on the whole 25 fps video"
        )
    return (np.clip(values[:n_frames], 0, _CLOSED) / _CLOSED).astype(np.float32)


def _read_blink_column(path: Path) -> list[float]:
    values = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        names = [name.strip() for name in next(rows, [])]
        if _BLINK_COLUMN not in names:
            raise CaptureError(
                f"{path}: expected a column {_BLINK_COLUMN}, got {', '.join(names) or 'an empty file'}; "
                "run OpenFace's FeatureExtraction with -aus"
            )
        column = names.index(_BLINK_COLUMN)
        for number, row in enumerate(rows):
            if not row:
                continue
            text = row[column].strip() if column < len(row) else ""
            try:
                values.append(float(text))
            except ValueError:
                values.append(math.nan)
            if not math.isfinite(values[-1]):
                raise CaptureError(
                    f"{path}: expected a number for {_BLINK_COLUMN} in row {number + 1} (frame {number}), "
                    f"got {text!r}; fill in the value or create the file again"
                )
    return values


def write_sound(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    """Write mono samples in [-1, 1] as 16-bit WAV."""
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def write_description(path: Path, description: Description) -> None:
    write_json(path, asdict(description))


def read_description(path: Path) -> Description:
    """Read capture.json; raises CaptureError for another format version, other fields or values. Former names of
    extractors are replaced by those of today."""
    content = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise CaptureError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {version}; "
            "use the version of ernerf-ti that made the capture, or preprocess the video again"
        )
    known = set(Description.__dataclass_fields__)
    needed = {"width", "height", "n_frames", "extractor", "feature_dimension"}
    if not needed <= set(content) <= known:
        wrong = sorted(needed - set(content) | set(content) - known)
        raise CaptureError(
            f"{path}: expected the fields {', '.join(sorted(known))}, got unknown or missing ones "
            f"({', '.join(wrong)}); preprocess the video again"
        )
    _check_kinds(path, content)
    for name, most in (("width", LARGEST_SIDE), ("height", LARGEST_SIDE), ("n_frames", MOST_FRAMES), ("fps", 1000)):
        if name in content and (isinstance(content[name], bool) or not 1 <= content[name] <= most):
            raise CaptureError(
                f"{path}: expected {name} from 1 to {most}, got {str(content[name])[:40]}; preprocess the video again"
            )
    extractor, known_extractors = current_name(content["extractor"]), sorted({f.extractor for f in FORMATS})
    if extractor not in known_extractors:
        raise CaptureError(
            f"{path}: expected extractor one of {', '.join(known_extractors)}, got {str(extractor)[:40]!r}; "
            "preprocess the video again"
        )
    return Description(**{**content, "extractor": extractor})


def _check_kinds(path: Path, content: dict) -> None:
    """Raise CaptureError, naming the field, unless the values of capture.json are of their types."""
    number, text, record = ((int, float), "number"), ((str,), "text"), ((dict,), "record")
    whole = ((int,), "number")
    kinds = {
        **dict.fromkeys(("width", "height", "n_frames", "feature_dimension"), whole),
        **{"fps": number, "extractor": text, "crop": record, "source": record, "versions": record},
        **{"crop.x": whole, "crop.y": whole, "crop.side": whole},
        **{"source.name": text, "source.sha256": text, "source.rate": number},
    }
    for name, (types, kind) in kinds.items():
        outer, _, inner = name.rpartition(".")
        values = content.get(outer, {}) if outer else content  # records come before what is in them
        value = values.get(inner)
        if inner in values and (not isinstance(value, types) or isinstance(value, bool)):
            raise CaptureError(
                f"{path}: expected {name} to be a {kind}, got {repr(value)[:40]}; preprocess the video again"
            )
    rate = content.get("source", {}).get("rate", FPS)
    if not 0 < rate <= _HIGHEST:
        raise CaptureError(f"{path}: expected source.rate above 0, got {str(rate)[:40]}; preprocess the video again")


def read_transforms(path: Path) -> tuple[np.ndarray, tuple[int, int], Split]:
    """Read a transforms file of this package, ER-NeRF or RAD-NeRF.

    Returns:
        [4] float64 fx, fy, cx, cy in pixels; width, height in pixels; and the frames.

    Raises:
        CaptureError: no frames, fields that are missing, or values that can't be right.
        FileNotFoundError: no such file.
    """
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not frames:
        raise CaptureError(f"{path}: expected a list of frames, got none; track the video again")
    size, intrinsics = _camera(path, content)
    try:
        frame_ids = np.array([frame["img_id"] for frame in frames], np.int64)
        audio_ids = np.array([frame.get("aud_id", frame["img_id"]) for frame in frames], np.int64)
        poses = np.array([frame["transform_matrix"] for frame in frames], np.float64)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CaptureError(
            f"{path}: expected img_id, aud_id and a 4x4 transform_matrix in each frame, got {error!r}; "
            "track the video again"
        ) from None
    if poses.shape[1:] != (4, 4):
        raise CaptureError(
            f"{path}: expected a 4x4 transform_matrix in each frame, got {list(poses.shape[1:])}; track the video again"
        )
    ids = np.concatenate((frame_ids, audio_ids))
    if len(np.unique(frame_ids)) < len(frame_ids) or ids.min() < 0 or ids.max() > MOST_FRAMES:
        raise CaptureError(
            f"{path}: expected non-negative img_id and aud_id and each img_id once, got negative or repeated ones, or "
            f"ones above {MOST_FRAMES}; track the video again"
        )
    wrong = ~np.all(np.isfinite(poses), (1, 2))
    rotations = np.where(wrong[:, None, None], np.eye(3), poses[:, :3, :3])
    wrong |= np.abs(rotations @ rotations.swapaxes(1, 2) - np.eye(3)).max((1, 2)) > 1e-3
    wrong |= np.linalg.det(rotations) < 0
    wrong |= (poses[:, 3] != (0, 0, 0, 1)).any(1)
    wrong |= np.linalg.norm(np.where(wrong[:, None], 0, poses[:, :3, 3]), axis=1) > _FARTHEST
    if wrong.any():
        raise CaptureError(
            f"{path}: expected each transform_matrix to be a rotation and a translation of at most {_FARTHEST:g} m, "
            f"got something else in {wrong.sum()} of {len(wrong)} frames (first: img_id {frame_ids[wrong.argmax()]}); "
            "track the video again"
        )
    return intrinsics, size, Split(frame_ids, audio_ids, poses)


def _camera(path: Path, content: dict) -> tuple[tuple[int, int], np.ndarray]:
    """Size and intrinsics, with the keys and the precedence of torch-ngp and the projects based on it."""
    for key in _CAMERA_KEYS:
        value = content.get(key)
        if value is not None and not (isinstance(value, int | float) and 0 < value <= _HIGHEST):
            shown = repr(value)[:40]
            raise CaptureError(f"{path}: expected a positive number for {key}, got {shown}; track the video again")
    cx, cy = content.get("cx"), content.get("cy")
    # Without a size, they take twice the integer part of the principal point.
    width = content.get("w") or (None if cx is None else int(cx) * 2)
    height = content.get("h") or (None if cy is None else int(cy) * 2)
    if width is None or height is None:
        raise CaptureError(f"{path}: expected cx and cy, or w and h, got neither; track the video again")
    width, height = int(width), int(height)
    if width % 2 or height % 2:
        raise CaptureError(
            f"{path}: expected an even width and height, got {width}x{height}; preprocess again at an even size"
        )
    cx, cy = width / 2 if cx is None else cx, height / 2 if cy is None else cy
    fx = fy = content.get("focal_len")
    if fx is None:
        fx = content.get("fl_x") or content.get("fl_y")
        fy = content.get("fl_y") or content.get("fl_x")
    if fx is None and ("camera_angle_x" in content or "camera_angle_y" in content):
        angles = content.get("camera_angle_x"), content.get("camera_angle_y")
        fx, fy = (
            None if angle is None else side / (2 * math.tan(angle / 2))
            for side, angle in zip((width, height), angles, strict=True)
        )
        fx, fy = fx or fy, fy or fx
    if fx is None or fy is None:
        raise CaptureError(
            f"{path}: expected a focal length (focal_len, fl_x or camera_angle_x), got none; track the video again"
        )
    side = max(width, height)
    if not (2 <= min(width, height) and side <= LARGEST_SIDE):
        raise CaptureError(f"{path}: expected a size from 2 to {LARGEST_SIDE}, got {width}x{height}; track again")
    if not (0.01 * side < min(fx, fy) and max(fx, fy) < 1000 * side and max(cx, cy) < 10 * side):
        raise CaptureError(
            f"{path}: expected a focal length of about the size of the picture and a principal point near its center, "
            f"got fx, fy, cx, cy {fx:g}, {fy:g}, {cx:g}, {cy:g} for {width}x{height} pixels; track the video again"
        )
    return (width, height), np.array([fx, fy, cx, cy], np.float64)
