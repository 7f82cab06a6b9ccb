"""A watched folder: audio and images copied into it while the viewer runs are played or shown.

The window toolkit does not report files dropped onto the window; the folder takes their place.
"""

from pathlib import Path

SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus", ".mp4", ".mov", ".webm")
PICTURES = (".png", ".jpg", ".jpeg")


class Inbox:
    """New audio and image files in a folder, each reported once, when it has stopped growing.

    Args:
        folder: may not exist yet.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._known = self._look()
        self._growing: dict[Path, tuple[int, int]] = {}

    def new_files(self) -> list[Path]:
        """Files completed since the last call."""
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
        except OSError:  # no such folder, or a file was removed meanwhile
            return found
        return found
