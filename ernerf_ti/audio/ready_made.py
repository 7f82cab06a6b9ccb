"""Files with windows of audio features: the `aud_*.npy` of a capture."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ernerf_ti.audio.extractors import FORMER_NAMES, current_name
from ernerf_ti.audio.speech_projection import SpeechProjection
from ernerf_ti.media.files import read_array, read_arrays, require_file, write_arrays
from ernerf_ti.media.whole_files import replacing


@dataclass(frozen=True)
class FeatureFormat:
    """Format of one extractor's files."""

    extractor: str
    file_name: str
    window: int
    """Feature steps in the window of a video frame."""
    dimension: int
    """Values per step."""

    def path(self, folder: Path) -> Path:
        """The file in a capture; the one that an earlier version named after the extractor's former name if only that
        exists."""
        current = Path(folder) / self.file_name
        former = [f"aud_{old}.npy" for old, new in FORMER_NAMES.items() if new == self.extractor]
        found = [path for path in (current, *map(current.with_name, former)) if path.is_file()]
        return found[0] if found else current


FORMATS = (
    FeatureFormat("deepspeech", "aud_ds.npy", 16, 29),
    FeatureFormat("esperanto", "aud_eo.npy", 16, 44),
    FeatureFormat("hubert", "aud_hu.npy", 2, 1024),
    FeatureFormat("ppg", "aud_ppg.npy", 16, 42),
    FeatureFormat("whisper", "aud_whisper.npy", 16, 106),
    FeatureFormat("mel", "aud_mel.npy", 16, 80),
    # The shape that ER-NeRF assumes for any other --asr_model. Its tools also write files of every kind to this name.
    FeatureFormat("other", "aud.npy", 16, 32),
)


def load_windows(folder: Path, extractor: str) -> np.ndarray:
    """Load the audio features of a capture.

    Args:
        folder: the capture.
        extractor: of one of FORMATS, or a former name.

    Returns:
        [T, window, dimension] float32, one window per video frame.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: an unknown extractor, or a file that is not in its format.
    """
    extractor = current_name(extractor)
    known = {f.extractor: f for f in FORMATS}
    if extractor not in known:
        raise ValueError(f"extractor: expected one of {', '.join(known)}, got {extractor!r}; choose one of these")
    expected, folder = known[extractor], Path(folder)
    path = expected.path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected {extractor} features, got no such file; {_advice(folder, expected)}")
    windows = _read(path)
    if windows.ndim != 3 or windows.shape[1:] != (expected.window, expected.dimension):
        likely = _format_of(windows)
        looks = f", which looks like {likely.extractor} ({likely.file_name})" if likely else ""
        raise ValueError(
            f"{path}: expected {extractor} features of shape [T, {expected.window}, {expected.dimension}], "
            f"got {list(windows.shape)}{looks}; use the extractor that the portrait was trained with"
        )
    return windows


def read_windows(path: Path) -> tuple[str, np.ndarray]:
    """Read a file of features and recognize the extractor by their shape.

    Returns:
        The extractor's name, and [T, window, dimension] float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file in none of the formats.
    """
    windows = _read(require_file(path, "windows of audio features", "extract them first"))
    likely = _format_of(windows)
    if likely is None:
        shapes = ", ".join(f"[T, {f.window}, {f.dimension}] ({f.extractor})" for f in FORMATS)
        raise ValueError(f"{path}: expected windows of shape {shapes}, got {list(windows.shape)}; extract them again")
    return likely.extractor, windows


def save_windows(folder: Path, extractor: str, windows: np.ndarray) -> Path:
    """Write features for :func:`load_windows`; the file appears when it is complete.

    Raises ValueError if the windows are not in the extractor's format.
    """
    extractor = current_name(extractor)
    expected = next((f for f in FORMATS if f.extractor == extractor), None)
    if expected is None or _format_of(windows) != expected:
        raise ValueError(
            f"windows: expected those of one of {', '.join(f.extractor for f in FORMATS)}, got {list(windows.shape)} "
            f"for {extractor!r}; pass the windows of that extractor"
        )
    path = Path(folder) / expected.file_name
    with replacing(path) as temporary:
        np.save(temporary, windows.astype(np.float32))
    return path


def projection_path(folder: Path) -> Path:
    """The file in a capture that goes with its Whisper features."""
    return Path(folder) / "aud_whisper.npz"


def save_projection(folder: Path, projection: SpeechProjection) -> None:
    values = {name: np.asarray(value) for name, value in projection.state_dict().items() if value is not None}
    write_arrays(projection_path(folder), **{"look_ahead": np.array(math.nan), **values})


def load_projection(folder: Path) -> SpeechProjection:
    """The projection that a capture's Whisper features were made with.

    Raises FileNotFoundError, or ValueError for a damaged file.
    """
    path = projection_path(folder)
    values: dict[str, Any] = read_arrays(path)
    if "look_ahead" in values and np.isnan(values["look_ahead"]).all():
        values["look_ahead"] = None
    return SpeechProjection.from_state(values, path)


def _read(path: Path) -> np.ndarray:
    """Numbers of any shape as float32."""
    advice = "extract the features again"
    values = read_array(path, advice)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected an .npy file of numbers, got something else ({values.dtype}); {advice}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: expected finite float32 numbers, got NaN, infinity or larger ones; extract the features again"
        )
    return values


def _format_of(windows: np.ndarray) -> FeatureFormat | None:
    return next((f for f in FORMATS if windows.ndim == 3 and windows.shape[1:] == (f.window, f.dimension)), None)


def _advice(folder: Path, expected: FeatureFormat) -> str:
    """ER-NeRF's own tools write aud.npy for every extractor, though its loader expects another name."""
    plain = folder / "aud.npy"
    if plain.is_file() and _format_of(_read(plain)) == expected:
        return f"{plain.name} in the same folder has its shape: rename it to {expected.file_name}"
    present = [f.extractor for f in FORMATS if f.file_name != plain.name and f.path(folder).is_file()]
    if present:
        return f"the folder has {', '.join(present)} features"
    return "extract the features first"
