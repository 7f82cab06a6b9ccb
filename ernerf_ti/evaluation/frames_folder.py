"""The folder that rendered frames are written to, and removed from."""

import shutil
from pathlib import Path

_MARK = ".ernerf-ti-frames"
_MARK_TEXT = "Frames rendered by `ernerf-ti evaluate`. The next evaluation empties this folder.\n"


def prepare_frames_folder(folder: Path) -> None:
    """Make an empty folder for rendered frames, or empty one that an earlier evaluation made.

    Raises ValueError for a folder with files that we did not write.
    """
    remove_frames_folder(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder}: expected no such folder or one made by an evaluation, got other files; "
            "choose another output folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).write_text(_MARK_TEXT)


def remove_frames_folder(folder: Path) -> None:
    """Remove the folder with its frames if :func:`prepare_frames_folder` made it; leave any other alone."""
    if (folder / _MARK).is_file() and not folder.is_symlink():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        shutil.rmtree(folder)  # the mark last: a removal that is interrupted can be repeated
