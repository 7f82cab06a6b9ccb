"""The table of speakers: a CSV file with one row per portrait."""

import csv
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ernerf_ti.batch.sources import PAGE, SUMMARY, is_url, source_exists
from ernerf_ti.data.capture_files import CapturePaths

COMMANDS = ("preprocess", "train", "synthesize", "evaluate")
"""Commands of a row in their order; a column of that name holds more options for it."""
_COLUMNS = ("name", "video", "sounds", *COMMANDS, "checks")
_REQUIRED = ("name", "video")
_NAME = re.compile(r"\w[\w.-]{0,99}")
_GIVEN = {
    "train": ("--view", "--resume"),
    "synthesize": ("--audio", "--output", "-o", "--depth", "--attention"),
    "evaluate": ("--video", "--output", "-o", "--capture"),
}
"""Options that a row does not take: they are given by the batch, name one file for all sounds, or would wait for a
person."""

CheckOptions = Callable[[str, list[str]], None]
"""Raises ValueError for arguments that a command does not take."""


@dataclass(frozen=True)
class Speaker:
    """One row of the table."""

    name: str
    """Name of the row's folder."""
    video: str
    """Path or URL of the video, or path of a capture folder."""
    is_capture: bool = False
    """Whether `video` is a capture already."""
    sounds: tuple[str, ...] = ()
    """Paths or URLs of the sounds to speak."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """More options, by command."""
    checks: bool = True
    """Whether the portrait is evaluated."""
    base: str = "."
    """Folder of the table; relative paths in options are relative to it."""


def read_speakers(path: Path, check: CheckOptions) -> list[Speaker]:
    """Read and check a whole table.

    Args:
        path: CSV file with a header, in UTF-8.
        check: parses the arguments of a command.

    Raises:
        FileNotFoundError, IsADirectoryError: no such table.
        ValueError: naming line and column.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a CSV file of speakers, got a folder; pass the file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a CSV file of speakers, got no such file; check the path")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or [])
            lines = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8 ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.reader.line_num}: not valid CSV ({error}); check the quotes") from None
    if not lines:
        raise ValueError(f"{path}: expected at least one speaker, got a header alone; add a row")
    speakers: dict[str, Speaker] = {}
    for number, cells in lines:
        speaker = _Row(path, number, cells).speaker(check)
        if speaker.name.casefold() in speakers:
            raise ValueError(
                f"{path} line {number}, column name: expected a name of its own, got {speaker.name!r} again; "
                "rename one of the rows"
            )
        speakers[speaker.name.casefold()] = speaker
    return list(speakers.values())


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for name in _REQUIRED:
        if name not in columns:
            raise ValueError(f"{path} line 1: expected a column {name}, got {', '.join(columns) or 'none'}; add it")
    for number, name in enumerate(columns):
        if name not in _COLUMNS:
            known = ", ".join(_COLUMNS)
            raise ValueError(f"{path} line 1, column {name!r}: expected one of {known}; remove or rename it")
        if name in columns[:number]:
            raise ValueError(f"{path} line 1, column {name}: it is there twice; remove one")


class _Row:
    """Cells of one line, with messages that name it."""

    def __init__(self, path: Path, number: int, cells: dict) -> None:
        self._path, self._number = path, number
        if None in cells:
            raise ValueError(f"{path} line {number}: more cells than columns; quote cells that contain commas")
        self._cells = {name: (text or "").strip() for name, text in cells.items()}
        for name, text in self._cells.items():
            if "\0" in text:
                raise self._error(name, "expected text, got a NUL character; save the table as plain text in UTF-8")

    def speaker(self, check: CheckOptions) -> Speaker:
        name = self._cells["name"]
        if not _NAME.fullmatch(name):
            raise self._error(
                "name", f"expected letters, digits, '.', '_' and '-', got {name!r}; it becomes the name of a folder"
            )
        if name.casefold() in (SUMMARY, PAGE):  # also where the case of names makes no difference
            raise self._error("name", f"expected another name than those of the batch's own files, got {name!r}")
        video = self._source("video", self._cells["video"], "a video or a capture folder")
        sounds = tuple(
            self._source("sounds", text.strip(), "a sound file")
            for text in self._cells.get("sounds", "").split(";")
            if text.strip()
        )
        stems = [Path(sound).stem for sound in sounds]
        for stem in stems:
            if stems.count(stem) > 1:
                raise self._error("sounds", f"expected sounds with names of their own, got {stem!r} twice; rename one")
        options = {command: tuple(self._options(command, check)) for command in COMMANDS}
        is_capture = not is_url(video) and CapturePaths(Path(video)).transforms("train").is_file()
        base = str(self._path.absolute().parent)
        return Speaker(name, video, is_capture, sounds, options, self._checks(), base)

    def _source(self, column: str, text: str, what: str) -> str:
        if not text:
            raise self._error(column, f"expected {what}, got nothing; fill the cell in")
        try:
            source = text if is_url(text) else str((self._path.absolute().parent / text).resolve())
            exists = source_exists(source)
        # Another package that a protocol needs, no access, or a circle of links.
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise self._error(column, f"{text}: {error}") from None
        if not exists:
            raise self._error(column, f"expected {what}, got no such file: {source}; check the path")
        return source

    def _options(self, command: str, check: CheckOptions) -> Iterator[str]:
        try:
            options = shlex.split(self._cells.get(command, ""))
        except ValueError as error:
            raise self._error(command, f"expected options as on a command line ({error}); check the quotes") from None
        for option in options:
            name = option.partition("=")[0] if option.startswith("--") else option[:2]  # -oFILE is -o FILE
            if name in ("-h", "--help", "--help-all", *_GIVEN.get(command, ())):
                raise self._error(command, f"{option} can't be given in a table; leave it out")
        try:
            check(command, options)
        except ValueError as error:
            raise self._error(command, f"{error}; see ernerf-ti {command} --help-all") from None
        yield from options

    def _checks(self) -> bool:
        text = self._cells.get("checks", "") or "yes"
        if text not in ("yes", "no"):
            raise self._error("checks", f"expected yes or no, got {text!r}")
        return text == "yes"

    def _error(self, column: str, message: str) -> ValueError:
        return ValueError(f"{self._path} line {self._number}, column {column}: {message}")
