"""Audio features that other tools have made: the `aud_*.npy` files of ER-NeRF captures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class FeatureFormat:
    """How the files of one extractor look."""

    extractor: str
    file_name: str
    window: int
    """Steps in the window of a video frame."""
    dimension: int
    """Features of a step."""


FORMATS = (
    FeatureFormat("deepspeech", "aud_ds.npy", 16, 29),
    FeatureFormat("esperanto", "aud_eo.npy", 16, 44),
    FeatureFormat("hubert", "aud_hu.npy", 2, 1024),
    FeatureFormat("senone", "aud_senone.npy", 16, 42),
    FeatureFormat("mel", "aud_mel.npy", 16, 80),
    # What ER-NeRF takes for every other --asr_model. The name is also that of its tools' files of any kind.
    FeatureFormat("other", "aud.npy", 16, 32),
)


def load_windows(folder: Path, extractor: str) -> np.ndarray:
    """Windows of a capture's audio features.

    Args:
        folder: the capture.
        extractor: whose features: "deepspeech", "esperanto", "hubert", "senone" or "mel".

    Returns:
        [T, window, dimension] float32, one window per video frame.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: an unknown extractor, or a file that is not of its format.
    """
    known = {f.extractor: f for f in FORMATS}
    if extractor not in known:
        raise ValueError(f"extractor: expected one of {', '.join(known)}, got {extractor!r}; choose one of these")
    expected, folder = known[extractor], Path(folder)
    path = folder / expected.file_name
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
    if not np.isfinite(windows).all():
        raise ValueError(f"{path}: expected finite numbers, got NaN or infinity; extract the features again")
    return windows.astype(np.float32)


def read_windows(path: Path) -> tuple[str, np.ndarray]:
    """Windows of a file whose extractor is known by their shape.

    Returns:
        The extractor's name, and [T, window, dimension] float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of none of the formats.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected windows of audio features, got no such file; extract them first")
    windows = _read(path)
    likely = _format_of(windows) if windows.ndim == 3 else None
    if likely is None:
        shapes = ", ".join(f"[T, {f.window}, {f.dimension}] ({f.extractor})" for f in FORMATS)
        raise ValueError(f"{path}: expected windows of shape {shapes}, got {list(windows.shape)}; extract them again")
    return likely.extractor, windows.astype(np.float32)


def save_windows(folder: Path, extractor: str, windows: np.ndarray) -> Path:
    """Write windows as :func:`load_windows` reads them; the file appears when it is complete.

    Raises ValueError if they are not of the extractor's format.
    """
    expected = next((f for f in FORMATS if f.extractor == extractor), None)
    if expected is None or windows.ndim != 3 or windows.shape[1:] != (expected.window, expected.dimension):
        raise ValueError(
            f"windows: expected those of one of {', '.join(f.extractor for f in FORMATS)}, got {list(windows.shape)} "
            f"for {extractor!r}; pass the windows of that extractor"
        )
    path = Path(folder) / expected.file_name
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, windows.astype(np.float32))
    temporary.replace(path)
    return path


def _read(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: expected an array that numpy reads, got {error}; extract the features again"
        ) from None


def _format_of(windows: np.ndarray) -> FeatureFormat | None:
    shape = windows.shape[1:]
    return next((f for f in FORMATS if (f.window, f.dimension) == shape), None)


def _advice(folder: Path, expected: FeatureFormat) -> str:
    """ER-NeRF's own tools write aud.npy whatever the extractor, and its loader looks for another name."""
    plain = folder / "aud.npy"
    if plain.is_file() and _format_of(_read(plain)) == expected:
        return f"{plain.name} in the same folder has its shape: rename it to {expected.file_name}"
    present = [f.extractor for f in FORMATS if f.file_name != plain.name and (folder / f.file_name).is_file()]
    if present:
        return f"the folder has features of {', '.join(present)}"
    return "extract the features first"
