"""Opening and decoding of video and sound files. PyAV brings its own ffmpeg."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from ernerf_ti.media.files import require_file

LONGEST_GAP = 60.0
"""Seconds without a frame that are filled in; a longer gap is an error in the time stamps."""

_OTHER_KINDS = (
    (b"<!doctype html", "a web page; download the video itself"),
    (b"<html", "a web page; download the video itself"),
    (b"pk\x03\x04", "a ZIP archive; unpack it first"),
)


def ffmpeg_name(path: Path) -> str:
    """The path as a URL of ffmpeg, which would take the text before a colon in a file name for a protocol."""
    return f"file:{path}"


def open_media(path: Path) -> InputContainer:
    """Open a video or sound file for reading, as a context manager.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: ffmpeg can't read it.
    """
    path = require_file(path, "a video or sound file", "check the path")
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
    for signature, kind in _OTHER_KINDS:
        if start.startswith(signature):
            raise ValueError(f"{path}: expected a video or sound file, got {kind}")
    try:
        # Titles of older programs are not in UTF-8.
        return av.open(ffmpeg_name(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path}: ffmpeg can't read this as video or sound ({error.strerror}); check the file, or convert it to "
            "MP4 or WAV"
        ) from None


def decode(path: Path, file: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Any]:
    """Decoded frames of a stream; raises ValueError, naming the file, where its data are damaged."""
    time = None
    try:
        frames: Iterator[Any] = file.decode(stream)
        for frame in frames:
            time = frame.time
            yield frame
    except av.error.FFmpegError as error:
        where = "at the start" if time is None else f"after {time:.2f} s"
        raise ValueError(
            f"{path}: the {stream.type} data are damaged {where} ({error.strerror}); copy or convert the file again"
        ) from None
