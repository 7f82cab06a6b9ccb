"""A folder that is watched: what is dropped into it while the viewer runs is played or shown.

The window's toolkit hands on no files that are dropped onto it, so that a folder stands in.
"""

from pathlib import Path

SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus", ".mp4", ".mov", ".webm")
PICTURES = (".png", ".jpg", ".jpeg")


class Inbox:
    """New sounds and pictures of a folder, each once, when they have stopped growing.

    Args:
        folder: need not be there yet.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._known = self._look()
        self._growing: dict[Path, tuple[int, int]] = {}

    def new_files(self) -> list[Path]:
        """Those that are complete since the last call."""
        found, complete = self._look(), []
        for path, stamp in found.items():
            if self._known.get(path) == stamp:
                continue
            if self._growing.get(path) == stamp and stamp[0] > 0:
                self._known[path] = stamp
                complete.append(path)
            self._growing[path] = stamp
        return complete

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        try:
            for path in sorted(self.folder.iterdir()):
                if path.suffix.lower() in SOUNDS + PICTURES and path.is_file():
                    status = path.stat()
                    found[path] = (status.st_size, status.st_mtime_ns)
        except OSError:  # not there, or a file that went while we looked
            return found
        return found
