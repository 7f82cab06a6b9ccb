"""A capture folder, checked when it is opened and read as needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ernerf_ti.audio.extractors import WHISPER, current_name
from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.audio.ready_made import FORMATS, load_projection, load_windows
from ernerf_ti.audio.speech_projection import SpeechProjection
from ernerf_ti.data.capture_files import (
    FPS,
    CaptureError,
    CapturePaths,
    Description,
    Split,
    labels_of,
    read_blinks,
    read_description,
    read_landmarks,
    read_transforms,
)
from ernerf_ti.data.frame_selection import FrameSelection
from ernerf_ti.media.images import read_image
from ernerf_ti.media.provenance.consent import Consent, read_consent
from ernerf_ti.media.sound import read_sound

_TOLERANCE = 5  # frames that the sound may be longer or shorter: extractors differ at the ends
_ANY_FEATURES = "aud.npy"  # written by ER-NeRF's tools for every extractor
_ALL_FRAMES = FrameSelection()
_OTHER_RATES = (24.0, 30.0, 50.0, 60.0, 23.976, 29.97, 48.0, 59.94)  # the more likely first


@dataclass(frozen=True)
class Capture:
    """A capture folder that passed the checks of :func:`open_capture`; images are read on access."""

    folder: Path
    width: int
    height: int
    intrinsics: np.ndarray
    """[4] float64: fx, fy, cx, cy in pixels."""
    train: Split
    val: Split
    extractor: str
    eye_closures: np.ndarray
    """[n_frames] float32 in [0, 1] by frame number: 0 open, 1 closed."""
    description: Description | None
    """None for captures made by other tools."""
    consent: Consent | None = None
    """Who agreed to a portrait; None if that is not recorded."""

    @property
    def paths(self) -> CapturePaths:
        return CapturePaths(self.folder)

    @cached_property
    def audio_windows(self) -> np.ndarray:
        """[T, window, C] float32, one window per frame of the video."""
        return load_windows(self.folder, self.extractor)

    @cached_property
    def projection(self) -> SpeechProjection | None:
        """What made features of Whisper's states; None for other features."""
        return load_projection(self.folder) if self.extractor == WHISPER else None

    @cached_property
    def background(self) -> np.ndarray:
        """[H, W, 3] uint8 RGB."""
        return self._image(self.paths.background, 3)

    def frame(self, k: int) -> np.ndarray:
        """Frame k of the video, [H, W, 3] uint8 RGB."""
        return self._image(self.paths.frame(k), 3)

    def image(self, k: int) -> np.ndarray:
        """The person of frame k composited over the background, [H, W, 3] uint8 RGB."""
        return self._image(self.paths.image(k), 3)

    def torso(self, k: int) -> np.ndarray:
        """Neck and torso of frame k without the head, [H, W, 4] uint8 RGBA, straight alpha."""
        return self._image(self.paths.torso(k), 4)

    def labels(self, k: int) -> np.ndarray:
        """[H, W] uint8: 0 background, 1 head, 2 neck, 3 torso."""
        path = self.paths.labels(k)
        colors = self._image(path, 3)
        try:
            return labels_of(colors)
        except CaptureError as error:
            raise CaptureError(f"{path}: {error}") from None

    def landmarks(self, k: int) -> np.ndarray:
        """[68, 2] float32 x, y in pixels, in iBUG 300-W order. Raises CaptureError for points far outside."""
        path = self.paths.landmarks(k)
        landmarks, side = read_landmarks(path), max(self.width, self.height)
        if landmarks.min() < -side or landmarks.max() > 2 * side:
            raise CaptureError(
                f"{path}: expected points in or near the {self.width}x{self.height} pixels, got "
                f"{landmarks.min():g} to {landmarks.max():g}; track the video again"
            )
        return landmarks

    def _image(self, path: Path, channels: int) -> np.ndarray:
        image = read_image(path)
        if image.shape != (self.height, self.width, channels):
            raise CaptureError(
                f"{path}: expected {self.width}x{self.height} pixels with {channels} channels (from the transforms), "
                f"got {image.shape[1]}x{image.shape[0]} with {image.shape[2]}; preprocess the video again"
            )
        return image


def open_capture(folder: Path, extractor: str | None = None, frames: FrameSelection = _ALL_FRAMES) -> Capture:
    """Open and check a capture made by this package, ER-NeRF or RAD-NeRF.

    Args:
        folder: the capture.
        extractor: of the audio features. None for the one in capture.json, or else the first of FORMATS whose file
            exists.
        frames: frames to use; files of all others may be missing.

    Raises:
        CaptureError: the folder is not a capture, or files are missing or inconsistent, one line for each.
    """
    folder = Path(folder)
    _require_folder(folder)
    paths = CapturePaths(folder)
    problems: list[str] = []

    def attempt(read: Callable[..., Any], *arguments: object) -> Any:
        try:
            return read(*arguments)
        except (OSError, ValueError) as error:
            problems.append(str(error))
            return None

    description = attempt(read_description, paths.description) if paths.description.exists() else None
    splits = {name: attempt(read_transforms, paths.transforms(name)) for name in ("train", "val")}
    if problems:  # nothing else can be checked without these
        raise _error(folder, problems)
    (intrinsics, size, train), (val_intrinsics, val_size, val) = splits["train"], splits["val"]
    if val_size != size or not np.allclose(val_intrinsics, intrinsics):
        problems.append(
            f"{paths.transforms('val')}: expected the camera of transforms_train.json, "
            f"{_camera_text(intrinsics, size)}, got {_camera_text(val_intrinsics, val_size)}; track again"
        )
    shared = np.intersect1d(train.frame_ids, val.frame_ids)
    if len(shared):
        problems.append(
            f"{paths.transforms('val')}: expected frames that are not in transforms_train.json, got {len(shared)} of "
            f"them (first: img_id {shared[0]}); track again"
        )
    ids = np.concatenate((train.frame_ids, val.frame_ids, train.audio_ids, val.audio_ids))
    n_frames = description.n_frames if description else int(ids.max()) + 1

    def has_image(k: int) -> bool:
        return paths.image(k).is_file()

    train, val = frames.of_split(train, "train", has_image), frames.of_split(val, "val", has_image)
    frame_ids = np.concatenate((train.frame_ids, val.frame_ids))
    if description:
        largest = max(frame_ids.max(), train.audio_ids.max(), val.audio_ids.max())
        problems += _description_problems(paths, description, size, largest)
    problems += _image_problems(paths, size, frame_ids)
    eye_closures = attempt(read_blinks, paths.blinks, n_frames)
    consent = attempt(read_consent, folder)
    extractor = extractor or (description.extractor if description else _first_extractor(folder))
    extractor = current_name(extractor)
    windows = attempt(load_windows, folder, extractor)
    if extractor == WHISPER:
        attempt(load_projection, folder)
    if windows is not None:
        problems += _sound_problems(paths, description, extractor, windows, n_frames)
    if problems:
        raise _error(folder, problems)
    eye_closures = frames.smooth_closures(eye_closures, (train, val))
    width, height = size
    return Capture(folder, width, height, intrinsics, train, val, extractor, eye_closures, description, consent)


def _require_folder(folder: Path) -> None:
    if folder.is_file():
        raise CaptureError(
            f"{folder}: expected a capture folder, got a file; run `ernerf-ti preprocess {folder} CAPTURE` on a video "
            "first"
        )
    if not folder.is_dir():
        raise CaptureError(
            f"{folder}: expected a capture folder, got no such folder; make one with `ernerf-ti preprocess VIDEO "
            f"{folder}`"
        )
    if not any(CapturePaths(folder).transforms(name).is_file() for name in ("train", "val")):
        content = "a folder without transforms_train.json" if any(folder.iterdir()) else "an empty folder"
        raise CaptureError(
            f"{folder}: expected a capture folder, got {content}; make one with `ernerf-ti preprocess VIDEO CAPTURE`"
        )


def _description_problems(paths: CapturePaths, made: Description, size: tuple[int, int], largest_id: int) -> list[str]:
    problems = []
    if abs(made.fps - FPS) > 1e-6:
        problems.append(
            f"{paths.description}: expected {FPS:g} frames per second, got {made.fps:g}; "
            "preprocess the video again, which resamples it to 25"
        )
    if (made.width, made.height) != size:
        problems.append(
            f"{paths.description}: expected {size[0]}x{size[1]} pixels (from transforms_train.json), "
            f"got {made.width}x{made.height}; preprocess the video again"
        )
    if largest_id >= made.n_frames:
        problems.append(
            f"{paths.description}: expected more than {largest_id} frames (the largest img_id or aud_id), "
            f"got n_frames {made.n_frames}; preprocess the video again"
        )
    return problems


def _image_problems(paths: CapturePaths, size: tuple[int, int], frame_ids: np.ndarray) -> list[str]:
    problems = []
    for what, path_of in (("images", paths.image), ("torso layers", paths.torso), ("landmarks", paths.landmarks)):
        missing = [k for k in frame_ids if not path_of(k).is_file()]
        if missing:
            problems.append(
                f"{path_of(0).parent}: expected {what} of {len(frame_ids)} frames (from the transforms), "
                f"got {len(frame_ids) - len(missing)} (first missing: {path_of(missing[0]).name}); preprocess again"
            )
    if not paths.background.is_file():
        problems.append(
            f"{paths.background}: expected the background image, got no such file; preprocess the video again"
        )
    for path in (paths.background, paths.image(frame_ids[0]), paths.torso(frame_ids[0])):
        if not path.is_file():
            continue
        try:
            height, width = read_image(path).shape[:2]
        except ValueError as error:
            problems.append(str(error))
            continue
        if (width, height) != size:
            problems.append(
                f"{path}: expected {size[0]}x{size[1]} pixels (from the transforms), got {width}x{height}; "
                "trackers round an odd size down: preprocess the video again at an even size"
            )
    return problems


def _sound_problems(
    paths: CapturePaths, made: Description | None, extractor: str, windows: np.ndarray, n_frames: int
) -> list[str]:
    problems = []
    if made and extractor == made.extractor and windows.shape[2] != made.feature_dimension:
        problems.append(
            f"{paths.description}: expected feature_dimension {windows.shape[2]} (from the {extractor} features), "
            f"got {made.feature_dimension}; extract the features again"
        )
    lengths = [(f"the {extractor} features", len(windows))]
    if paths.sound.is_file():
        try:
            samples = read_sound(paths.sound, SAMPLE_RATE)
            lengths.append((str(paths.sound), round(len(samples) / SAMPLE_RATE * FPS)))
        except ValueError as error:
            problems.append(str(error))
    for what, n in lengths:
        if abs(n - n_frames) > _TOLERANCE:
            rate = min(_OTHER_RATES, key=lambda rate: abs(n - n_frames * FPS / rate))
            likely = abs(n - n_frames * FPS / rate) <= _TOLERANCE + 0.001 * n
            hint = f"the frames seem to have been extracted at {rate:g} fps: " if likely else ""
            problems.append(
                f"{what}: expected sound for {n_frames} frames at {FPS:g} fps ({n_frames / FPS:.2f} s), "
                f"got {'more' if n > n_frames else 'less'}, for {n} ({n / FPS:.2f} s); "
                f"{hint}take frames and sound from the same video at {FPS:g} fps"
            )
    return problems


def _first_extractor(folder: Path) -> str:
    named = [f for f in FORMATS if f.file_name != _ANY_FEATURES]
    present = [f.extractor for f in named if f.path(folder).is_file()]
    return present[0] if present else FORMATS[0].extractor


def _camera_text(intrinsics: np.ndarray, size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} with focal length {intrinsics[0]:g}"


def _error(folder: Path, problems: list[str]) -> CaptureError:
    if len(problems) == 1:
        return CaptureError(problems[0])
    return CaptureError(f"{folder}: {len(problems)} problems with this capture:\n- " + "\n- ".join(problems))
