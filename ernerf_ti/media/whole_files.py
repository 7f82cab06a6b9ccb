"""Files that appear whole or not at all, and what is left of them after a kill. Loads nothing heavy."""

import errno
import importlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp(\.\w+)?")
_UNUSED = 600.0  # s since the last write, after which a temporary file that can't be locked counts as left over
_RENAME_PAUSES = (0.1, 0.5, 2.0)  # s; shares and virus scanners hold files for moments
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# NumPy and torch's writer drop the error number.
_FULL_TEXT = re.compile(r"\d+ requested and \d+ written|unexpected pos \d+ vs \d+|file write failed")
_cleaned: set[str] = set()
_cleaning = threading.Lock()


class DiskFullError(OSError):
    """A file could not be written for lack of room; the message names it and says what is free."""


@contextmanager
def replacing(path: Path, n_bytes: int | None = None) -> Iterator[Path]:
    """A temporary file in the same folder, which is renamed to `path` if the block ends without an error.

    The name is random and the file is created exclusively, so that neither another process nor a symbolic link
    planted in the folder can redirect the writing. A symbolic link at `path` itself is kept, and its target is
    replaced. The first time that a process writes to a folder, it removes temporary files that killed ones have left.

    Args:
        path: the file.
        n_bytes: size that it will have, for the message about a full disk; None if it is unknown.

    Raises:
        OSError: naming `path`, if the file can't be created or renamed.
        DiskFullError: the block raised an error that says so.
        ValueError: `path` is a device or another special file.
    """
    asked, path = Path(path), _target(Path(path))
    _clean_once(path.parent)
    # Writers choose the format by the suffix, so it is kept.
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= 16 else ""
    try:
        temporary, lock = _create(path, suffix)
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full_error(asked, path.parent, n_bytes, 0) from None
        raise type(error)(
            f"{asked}: can't create the file ({error.strerror}); check that the folder exists and is writable"
        ) from None
    try:
        try:
            yield temporary
        except Exception as error:
            if is_disk_full(error):
                raise disk_full_error(asked, path.parent, n_bytes, temporary.stat().st_size) from error
            raise
        _rename(temporary, path, asked)
    finally:
        temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path`, named and removed as the temporary files of :func:`replacing`."""
    _clean_once(path.parent)
    folder = path.with_name(_temporary_name(path, ""))
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if lock is not None:
            _lock(lock)
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # a second Ctrl-C, or torchrun's end of all, stopped the first
            if lock is not None:
                os.close(lock)


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`, whose files move to `folder` under their names, in their order, if the block ends
    without an error; else those that were there stay. Raises as :func:`replacing`."""
    with temporary_folder(folder / "files") as temporary:
        yield temporary
        for file in sorted(temporary.iterdir()):
            _rename(file, _target(folder / file.name), folder / file.name)


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold a folder, which is made if it does not exist, so that no other process that asks does the same in it.

    The lock is on the folder itself: nothing is left in it, and it ends with the process, however that ends. A folder
    that was made here and is empty at the end is removed.

    Yields False if another process holds it, else True; also where folders can't be locked: on Windows, on some file
    systems, and between two computers that share a disk. Raises OSError if the folder can't be made.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not os.access(folder, os.R_OK):  # whoever writes there will say so
            yield True
            return
        with _tried_lock(folder) as is_free:
            yield is_free is not False
    finally:
        if is_new:
            with suppress(OSError):  # it is in use
                folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files and folders of :func:`replacing` and :func:`temporary_folder` that killed processes have
    left in a folder. Those of running processes, which hold a lock on them, stay."""
    try:
        names = os.listdir(folder)
    except OSError:  # no such folder, or one that can't be listed: whoever writes there will say so
        return
    for path in [Path(folder, name) for name in names if _TEMPORARY.fullmatch(name)]:
        with suppress(OSError):  # another process may finish or remove it
            if path.is_symlink() or not _is_left(path):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk is full or a file too large for it."""
    return disk_full_cause(error) is not None


def disk_full_cause(error: BaseException | None) -> BaseException | None:
    """The error itself or the first that led to it which says that a disk is full or a file too large for it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, DiskFullError) or (isinstance(error, OSError) and error.errno in _FULL):
            return error
        if isinstance(error, OSError | RuntimeError) and _FULL_TEXT.search(str(error)):
            return error
        error = error.__cause__ or error.__context__
    return None


def _target(path: Path) -> Path:
    """Where a path leads, if it is a symbolic link."""
    if path.is_symlink():
        try:
            path = path.resolve(strict=False)
        except (OSError, RuntimeError) as error:
            raise OSError(f"{path}: expected a file to write, got a link that leads nowhere ({error})") from None
    # Renamed over, a device would be gone for the whole machine.
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a device or a pipe; pass the path of a file")
    return path


def _temporary_name(path: Path, suffix: str) -> str:
    ending = f".{secrets.token_hex(8)}.tmp{suffix}"
    stem = path.name.removesuffix(suffix)
    while len(os.fsencode(stem)) + len(os.fsencode(ending)) > 250:  # names may have 255 bytes
        stem = stem[: len(stem) // 2]
    return f".{stem}{ending}"


def _create(path: Path, suffix: str) -> tuple[Path, int | None]:
    """A new temporary file, and a descriptor with a lock on it that tells that its process lives."""
    while True:
        temporary = path.with_name(_temporary_name(path, suffix))
        file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if fcntl is None:  # on Windows an open file can't be renamed
            os.close(file)
            return temporary, None
        _lock(file)
        if os.fstat(file).st_nlink:
            return temporary, file
        os.close(file)  # removed by another process before it was locked


def _lock(file: int) -> None:
    with suppress(OSError):  # some file systems have no locks; there the age decides
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_left(path: Path) -> bool:
    """Whether no process holds the lock of a temporary file; where files can't be locked, whether it is old."""
    with _tried_lock(path) as is_free:
        return time.time() - path.lstat().st_mtime >= _UNUSED if is_free is None else is_free


@contextmanager
def _tried_lock(path: Path) -> Iterator[bool | None]:
    """Hold the lock of a file or folder, if no other process does.

    Yields whether this one holds it now; None on file systems without locks. Raises OSError if it can't be opened.
    """
    if fcntl is None:
        yield None
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        yield _try_lock(file)
    finally:
        os.close(file)


def _try_lock(file: int) -> bool | None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _clean_once(folder: Path) -> None:
    with _cleaning:
        if str(folder) in _cleaned:
            return
        _cleaned.add(str(folder))
    remove_leftovers(folder)


def _rename(temporary: Path, path: Path, asked: Path) -> None:
    for pause in (*_RENAME_PAUSES, None):
        try:
            temporary.replace(path)
            return
        except OSError as error:
            if pause is not None and not isinstance(error, IsADirectoryError | FileNotFoundError):
                time.sleep(pause)
                continue
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"{asked}: the folder was removed while the file was written") from None
            # Hours of work may be in the file.
            kept = path.with_name(f"{path.stem[:100]}.{secrets.token_hex(4)}{temporary.suffix}")
            where = "nothing was kept"
            with suppress(OSError):
                temporary.replace(kept)
                where = f"the complete file is {kept}"
            raise type(error)(f"{asked}: can't be replaced ({error.strerror}); {where}") from None


def disk_full_error(path: Path, folder: Path, needed: int | None, written: int) -> DiskFullError:
    """The error for a file that did not fit.

    Args:
        path: of the file, as the user named it.
        folder: on the disk.
        needed: bytes of the whole file; None if unknown.
        written: bytes before the disk was full.
    """
    try:
        free = f"{shutil.disk_usage(folder).free:,} bytes are free"
    except OSError:
        free = "how much is free is unknown"
    need = (
        f"{needed:,} bytes are needed"
        if needed is not None
        else f"more than the {written:,} bytes that were written are needed"
    )
    return DiskFullError(
        f"{path}: the disk is full, or files of this size are not allowed on it: {need}, {free}; make room and run "
        "the command again"
    )
