"""The folders that an evaluation renders its frames to, and keeps them in."""

import re
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from ernerf_ti.media.whole_files import remove_leftovers, temporary_folder
from ernerf_ti.process.ranks import Ranks

_MARK = ".ernerf-ti-frames"
_MARK_TEXT = "Frames rendered by `ernerf-ti evaluate`. The next evaluation removes them.\n"
_FRAME = re.compile(r"\d{5,}\.png")


class FramesFolder(AbstractContextManager):
    """Rendered frames of one evaluation, one folder for each setting.

    They are rendered to a temporary folder, which is gone when the context ends, so that those of an earlier evaluation
    stay until this one has succeeded. Of these, only frames are ever removed, by their names, and only where an
    evaluation has left its mark: a folder of somebody else is refused, and other files in a folder of ours stay.

    Args:
        path: of the frames that are kept.
        ranks: the processes that render them; the first one makes and removes the folders.
    """

    def __init__(self, path: Path, ranks: Ranks):
        self.path = path
        self._ranks = ranks
        self._exits = ExitStack()
        self._rendered: Path | None = None

    def temporary(self) -> Path:
        """The folder to render to, the same in all processes, made by this call.

        Raises ValueError in the first process if the folder of the kept frames has files that no evaluation has marked.
        """
        made = None
        if self._ranks.is_first:
            self._check()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            made = self._exits.enter_context(temporary_folder(self.path))
        self._rendered = self._ranks.of_first(made)
        assert self._rendered is not None
        return self._rendered

    def replace(self, keep: bool) -> None:
        """Remove the frames of an earlier evaluation, and move those of this one to their place if they are kept."""
        self._remove_frames()
        if not keep or self._rendered is None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _MARK).write_text(_MARK_TEXT)
        for setting in sorted(self._rendered.iterdir()):
            (self.path / setting.name).mkdir(exist_ok=True)  # it may have files of somebody else
            for file in setting.iterdir():
                file.replace(self.path / setting.name / file.name)

    def __exit__(self, *error: object) -> None:
        self._exits.close()

    def _check(self) -> None:
        if self.path.exists() and not self._is_marked() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(
                f"{self.path}: expected no such folder or one made by an evaluation, got other files; "
                "choose another output folder"
            )

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
