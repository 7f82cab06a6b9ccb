"""Checks of paths given on a command line, before anything takes time. Nothing here loads torch.

Folders of the wrong kind are recognized, and the demo's folder is understood as its run or its capture.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ernerf_ti.data.capture_files import CapturePaths
from ernerf_ti.media.whole_files import remove_leftovers, temporary_folder
from ernerf_ti.run.folder import RunFolder

_VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


def existing_file(path: Path, what: str) -> Path:
    """A file that is read. `what` names it in messages, as in "a video".

    Raises FileNotFoundError, or ValueError for a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path}: expected {what}, got a folder; pass a file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected {what}, got no such file; check the path")
    return path


def output_file(path: Path) -> Path:
    """A file that is written. Raises ValueError for a folder, or for a path below a file."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a folder; add a file name")
    return _below_folders(path, "a file to write")


def output_folder(path: Path) -> Path:
    """A folder that is written to. Raises ValueError for a file, or for a path below a file."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: expected a folder to write to, got a file; pass another path")
    return _below_folders(path, "a folder to write to")


def new_folder(path: Path) -> Path:
    """A folder that is written to, and that is new or empty. What killed processes have left there is removed.

    Raises ValueError for a folder with files, for a file, or for a path below a file.
    """
    output_folder(path)
    remove_leftovers(path)
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(
            f"{path}: expected a new or an empty folder, got one with files; pass another path, or delete that folder"
        )
    return path


def run_folder(path: Path) -> Path:
    """A run folder that holds a checkpoint, or a checkpoint file; raises as :meth:`RunFolder.find`."""
    if path.is_file() and path.suffix.lower() in _VIDEO_SUFFIXES:
        raise ValueError(
            f"{path}: expected a run folder or a checkpoint, got a video; make a capture of it and train first: "
            f"ernerf-ti preprocess {path} CAPTURE, then ernerf-ti train CAPTURE RUN"
        )
    found = RunFolder.find(path).path
    return path if path.is_file() or found == path else _understood(path, found)


def capture_folder(path: Path) -> Path:
    """A capture folder. Raises FileNotFoundError, or ValueError for something else that can be recognized."""
    if path.is_file():
        raise ValueError(
            f"{path}: expected a capture folder, got a file; make a capture of a video first: "
            f"ernerf-ti preprocess {path} CAPTURE"
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: expected a capture folder, got no such folder; make one of a video: "
            f"ernerf-ti preprocess VIDEO {path}"
        )
    if not is_capture(path):
        if is_capture(path / "capture"):
            return _understood(path, path / "capture")
        if RunFolder(path).checkpoint.is_file():
            raise ValueError(f"{path}: expected a capture folder, got a run folder; pass the capture it was trained on")
    return path


def is_capture(path: Path) -> bool:
    """Whether a folder has a capture's list of training frames."""
    return CapturePaths(path).transforms("train").is_file()


def make_parent(path: Path) -> Path:
    """Make the folder that a file will be written to, and try to write there; returns the path itself.

    Raises OSError if it can't be done.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a link of that name leads nowhere" if path.parent.is_symlink() else error.strerror
        raise type(error)(f"{path}: can't make the folder {path.parent} ({reason}); pass another path") from None
    folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(
            f"{path}: can't write to the folder {folder} ({error.strerror}); check its permissions, or pass "
            "another path"
        ) from None
    return path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, whose content appears under `path` once the block has ended without an error.

    Args:
        path: no such folder yet, or one without files of the same names.
    """
    if path.exists():
        with temporary_folder(path / "content") as temporary:
            yield temporary
            for child in temporary.iterdir():
                child.rename(path / child.name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path) as temporary:
        inner = temporary / path.name
        inner.mkdir()
        yield inner
        inner.rename(path)


def _below_folders(path: Path, what: str) -> Path:
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise ValueError(f"{path}: expected {what}, got a path below the file {parent}; pass another path")
    return path


def _understood(path: Path, inner: Path) -> Path:
    print(f"{path}: using {inner}", file=sys.stderr)
    return inner
