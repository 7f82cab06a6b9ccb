"""Weights that other packages carry. No code of theirs is run: only the file is read, and its content is checked."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ernerf_ti.media.files import file_digest


@dataclass(frozen=True)
class PackagedFile:
    """A file in one version of a package."""

    what: str
    """What the file holds, for messages."""
    package: str
    version: str
    path: str
    """Relative to the folder that the package is installed in."""
    sha256: str
    """Of its content."""
    extra: str
    """Extra of this package that installs it."""

    def is_installed(self) -> bool:
        """Whether the package is there, in whatever version."""
        try:
            return bool(metadata.distribution(self.package))
        except metadata.PackageNotFoundError:
            return False

    def find(self) -> Path:
        """Path of the file.

        Raises:
            FileNotFoundError: the package or the file is not installed.
            ValueError: the file's content is another one.
        """
        advice = f"pip install 'ernerf-ti[{self.extra}]'"
        try:
            path = Path(str(metadata.distribution(self.package).locate_file(self.path)))
        except metadata.PackageNotFoundError:
            path = None
        if path is None or not path.is_file():
            raise FileNotFoundError(
                f"{self.what}: expected the package {self.package} {self.version}, got none; {advice}"
            )
        digest = file_digest(path)
        if digest != self.sha256:
            raise ValueError(
                f"{path}: expected {self.what} with SHA-256 {self.sha256[:16]}..., got {digest[:16]}...; "
                f"install {self.package} {self.version} again: {advice}"
            )
        return path
