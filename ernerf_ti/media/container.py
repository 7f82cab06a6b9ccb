"""Opening and decoding of video and sound files. PyAV brings its own ffmpeg."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ernerf_ti.media.files import require_file

LONGEST_GAP = 60.0
"""Seconds without a frame that are filled in; a longer gap is an error in the time stamps."""
MOST_FILLED = 20
"""What is filled in may have LONGEST_GAP and so many times the length of the rest; more is an error, too, since a few
damaged time stamps would make hours of nothing."""

# Titles of older programs are not in UTF-8. From 19 on PyAV escapes their bytes without being asked.
_METADATA_ERRORS: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
)
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
        ValueError: ffmpeg can't read it, or it is shorter than its own headers say.
    """
    path = require_file(path, "a video or sound file", "check the path")
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
        for signature, kind in _OTHER_KINDS:
            if start.startswith(signature):
                raise ValueError(f"{path}: expected a video or sound file, got {kind}")
        size = path.stat().st_size
        claimed = _claimed_size(file, size)
    if claimed > size:
        raise ValueError(
            f"{path}: the file is truncated, {size:,} of at least {claimed:,} bytes; copy or record it again"
        )
    try:
        return av.open(ffmpeg_name(path), **_METADATA_ERRORS)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path}: ffmpeg can't read this as video or sound ({error.strerror}); check the file, or convert it to "
            "MP4 or WAV"
        ) from None


def moving_tracks(file: InputContainer) -> list[VideoStream]:
    """The video tracks without cover pictures and the like."""
    other = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
    return [track for track in file.streams.video if not track.disposition & other]


def video_track(file: InputContainer) -> VideoStream | None:
    """The track with the moving pictures: the one that the file marks as default, else the largest. None if there is
    none that can be decoded; a cover picture is not a video."""
    tracks = [track for track in moving_tracks(file) if track.codec_context]
    marked = [track for track in tracks if track.disposition & Disposition.default]
    # Files without such marks have them on all tracks or on none.
    return max(marked or tracks, key=lambda track: track.width * track.height, default=None)


def sound_track(file: InputContainer) -> AudioStream | None:
    """The track with the voice: the one that the file marks as default, else the first. None if there is none that can
    be decoded."""
    tracks = [track for track in file.streams.audio if track.codec_context is not None]
    return next((track for track in tracks if track.disposition & Disposition.default), tracks[0] if tracks else None)


def decode(path: Path, file: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Any]:
    """Decoded frames of a stream. What can't be decoded before the first frame is left out: recordings that were cut
    may begin with pictures that refer to others before the cut.

    Raises ValueError, naming the file, where its data are damaged.
    """
    time = damage = None
    try:
        for packet in file.demux(stream):
            try:
                frames: list[Any] = packet.decode()
            except av.error.InvalidDataError as error:
                if time is not None:
                    raise
                damage = damage or error
                continue
            for frame in frames:
                time = frame.time if frame.time is not None else time or 0.0
                yield frame
        if time is None and damage is not None:
            raise damage
    except av.error.FFmpegError as error:
        where = "at the start" if time is None else f"after {time:.2f} s"
        raise ValueError(
            f"{path}: the {stream.type} data are damaged {where} ({error.strerror}); copy or convert the file again"
        ) from None


def _claimed_size(file: BinaryIO, size: int) -> int:
    """Bytes that the outermost headers of MP4, MOV, Matroska, WebM or AVI promise; 0 for another format.

    ffmpeg reads what there is of a file that breaks off, without an error.
    """
    file.seek(0)
    head = file.read(64)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _end_of_boxes(file, size)
    if head.startswith(b"\x1a\x45\xdf\xa3"):  # EBML
        length, at = _ebml_size(head, 4)
        file.seek(at + (length or 0))
        segment = file.read(12)
        if length is None or not segment.startswith(b"\x18\x53\x80\x67"):
            return 0
        content, after = _ebml_size(segment, 4)
        return 0 if content is None else at + length + after + content
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return 8 + int.from_bytes(head[4:8], "little")
    return 0


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last of the outermost boxes ends (ISO 14496-12, 4.2)."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
            break  # up to the end of the file, or bytes that belong to no box
        at += length
    return at


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """A number of variable length (RFC 8794, 4), None for "unknown", and where it ends."""
    first = data[at] if at < len(data) else 0
    n = 9 - first.bit_length()
    if n > 8:
        return None, at
    value = int.from_bytes(data[at : at + n], "big") & ((1 << 7 * n) - 1)
    return (None if value == (1 << 7 * n) - 1 else value), at + n
