"""The folder that rendered frames are written to, and removed from."""

import re
from contextlib import suppress
from pathlib import Path

from ernerf_ti.media.whole_files import remove_leftovers

_MARK = ".ernerf-ti-frames"
_MARK_TEXT = "Frames rendered by `ernerf-ti evaluate`. The next evaluation removes them.\n"
_FRAME = re.compile(r"\d{5,}\.png")


class FramesFolder:
    """Rendered frames of one evaluation, one folder for each setting.

    Only frames are ever removed, by their names, and only where an evaluation has left its mark: a folder of somebody
    else is refused, and other files in a folder of ours stay.
    """

    def __init__(self, path: Path):
        self.path = path
        self._is_prepared = False

    def prepare(self) -> None:
        """Make the folder, or remove the frames of an earlier evaluation from it.

        Raises ValueError for a folder with files that no evaluation has marked as its own.
        """
        self._remove_frames()
        if self.path.exists() and not self._is_marked() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(
                f"{self.path}: expected no such folder or one made by an evaluation, got other files; "
                "choose another output folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _MARK).write_text(_MARK_TEXT)
        self._is_prepared = True

    def remove(self) -> None:
        """Remove the frames, and the folder if nothing else is in it; nothing before :meth:`prepare`."""
        if self._is_prepared:
            self._remove_frames()

    def _remove_frames(self) -> None:
        if not self._is_marked():
            return
        for folder in self.path.iterdir():
            if folder.is_dir() and not folder.is_symlink():
                for file in folder.iterdir():
                    if _FRAME.fullmatch(file.name):
                        file.unlink()
                remove_leftovers(folder)
                with suppress(OSError):  # other files are there
                    folder.rmdir()
        if [file.name for file in self.path.iterdir()] == [_MARK]:
            (self.path / _MARK).unlink()  # last: a removal that is interrupted can be repeated
            self.path.rmdir()

    def _is_marked(self) -> bool:
        return (self.path / _MARK).is_file() and not self.path.is_symlink()
