"""Inputs and the output folder of a batch: local paths, or URLs that fsspec can open (s3://, gs://, file://)."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ernerf_ti.media.whole_files import replacing

SUMMARY, PAGE = "summary.json", "index.html"
"""Files of a batch beside the folders of its rows."""
_URL = re.compile(r"\w[\w+.-]*://")
_END = 1 << 20  # bytes of each end of a file that its fingerprint reads


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path."""
    return _URL.match(text) is not None


def source_exists(source: str) -> bool:
    """Whether a file or folder is there. For URLs raises ImportError if their protocol needs another package, and
    whatever the file system raises without access."""
    if not is_url(source):
        return Path(source).exists()
    system, path = _file_system(source)
    return bool(system.exists(path))


def fingerprint(source: str) -> str:
    """SHA-256 of what tells one input from another: size and both ends of a file, names and sizes in a folder.

    The place of a file and its time do not matter, so that inputs may be moved and copied.
    """
    if not is_url(source) and Path(source).is_dir():
        entries = [f"{entry.name} {entry.stat().st_size}" for entry in os.scandir(source) if entry.is_file()]
        return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()
    if is_url(source):
        system, path = _file_system(source)
        opened = system.open(path, "rb")
    else:
        opened = open(source, "rb")  # noqa: SIM115, closed below
    with opened as file:
        size = file.seek(0, os.SEEK_END)
        total = hashlib.sha256(str(size).encode())
        for start in {0, max(0, size - _END)}:
            file.seek(start)
            total.update(file.read(_END))
    return total.hexdigest()


def fetched(source: str, folder: Path) -> Path:
    """The local path of an input; a URL is copied into `folder` unless it is there already."""
    if not is_url(source):
        return Path(source)
    system, path = _file_system(source)
    # The digest keeps inputs apart that have one name in different places; the stem names the result.
    target = folder / hashlib.sha256(source.encode()).hexdigest()[:12] / Path(path).name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            system.get_file(path, str(temporary))
    return target


class LocalOutput:
    """The output folder of a batch on a disk, possibly one that several machines share."""

    is_remote = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes | None:
        """Content of a file by its path in the folder; None if there is none."""
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(content)

    @contextmanager
    def row(self, name: str) -> Iterator[Path]:
        """The folder of a row, to work in."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        yield folder

    def save(self, name: str) -> None:
        """What was done in the folder of a row is kept."""


class RemoteOutput:
    """The output folder of a batch behind a URL. Rows are worked on in a local folder and copied there."""

    is_remote = True

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._system, self._path = _file_system(self._url)
        self._saved: dict[Path, tuple[int, int]] = {}

    def read(self, name: str) -> bytes | None:
        path = f"{self._path}/{name}"
        if not self._system.exists(path):
            return None
        content: bytes = self._system.cat_file(path)
        return content

    def write(self, name: str, content: bytes) -> None:
        self._system.makedirs(os.path.dirname(f"{self._path}/{name}"), exist_ok=True)
        self._system.pipe_file(f"{self._path}/{name}", content)

    @contextmanager
    def row(self, name: str) -> Iterator[Path]:
        folder = self._folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            for path in self._system.find(f"{self._path}/{name}"):
                target = folder / path.rpartition(f"{self._path.lstrip('/')}/{name}/")[2]
                target.parent.mkdir(parents=True, exist_ok=True)
                self._system.get_file(path, str(target))
                self._saved[target] = _state(target)
            yield folder
        finally:
            try:
                self.save(name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def save(self, name: str) -> None:
        """Copy files that are new or changed, and delete those that are gone. row.json is the last one, so that it
        never claims more than there is."""
        folder = self._folder(name)
        for path in [path for path in self._saved if path.is_relative_to(folder) and not path.exists()]:
            self._system.rm_file(f"{self._path}/{name}/{path.relative_to(folder).as_posix()}")
            del self._saved[path]
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        for path in sorted(paths, key=lambda path: path == folder / "row.json"):
            if path.is_relative_to(folder / "inputs") or self._saved.get(path) == _state(path):
                continue
            target = f"{self._path}/{name}/{path.relative_to(folder).as_posix()}"
            self._system.makedirs(os.path.dirname(target), exist_ok=True)
            state = _state(path)
            self._system.put_file(str(path), target)
            self._saved[path] = state

    def _folder(self, name: str) -> Path:
        """The same on each machine: preprocessing compares the paths of its inputs with those of the last time."""
        user = os.getuid() if hasattr(os, "getuid") else 0
        digest = hashlib.sha256(self._url.encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"ernerf-ti-batch-{user}" / digest / name


def open_output(output: str) -> LocalOutput | RemoteOutput:
    """The output folder behind a path or URL."""
    return RemoteOutput(output) if is_url(output) else LocalOutput(Path(output).absolute())


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, path
