"""Video files in: upright frames of any format."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from ernerf_ti.media.container import LONGEST_GAP, decode, open_media

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file."""

    width: int
    height: int
    """In pixels, upright."""
    rate: float
    """Mean frames per second."""
    duration: float
    """Of the video track, in seconds."""
    codec: str
    sound_rate: int | None
    """Samples per second; None without an audio track."""


@dataclass
class FrameCounts:
    """Statistics of :func:`read_frames`, final once it is exhausted."""

    read: int = 0
    """Frames in the file."""
    gaps: int = 0
    """Gaps of at least one missing frame, by the time stamps."""
    written: int = 0
    """Frames yielded."""


def probe(path: Path) -> VideoInfo:
    """Properties of a video.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file is not a video, has no frames, or is damaged.
    """
    with open_media(path) as file:
        stream = _video_stream(path, file)
        first = next(decode(path, file, stream), None)
        if first is None:
            raise _no_frames(path)
        width, height = first.width, first.height
        if _quarter_turns(first) % 2:
            width, height = height, width
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = (file.duration or 0) / av.time_base
        sound = file.streams.audio
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        return VideoInfo(width, height, rate, duration, stream.codec_context.name, sound[0].rate if sound else None)


def read_frames(path: Path, rate: float, counts: FrameCounts | None = None) -> Iterator[np.ndarray]:
    """Upright frames at a constant rate.

    Frame k is the one whose time stamp is nearest to k / rate after the first frame, so that a video with another or
    a variable rate stays in sync with its sound to half a frame.

    Args:
        path: any video that ffmpeg reads.
        rate: frames per second wanted.
        counts: updated while frames are read.

    Yields:
        [H, W, 3] uint8 RGB.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: as :func:`probe`.
    """
    counts = counts if counts is not None else FrameCounts()
    with open_media(path) as file:
        stream = _video_stream(path, file)
        stream.thread_type = "AUTO"
        nominal = 1 / float(stream.average_rate or stream.guessed_rate or rate)
        first = before = None
        for frame in decode(path, file, stream):
            time = frame.time if frame.time is not None else counts.read * nominal
            first = time if first is None else first
            current = (time - first, frame)
            counts.read += 1
            if before is not None:
                if current[0] - before[0] > LONGEST_GAP:
                    raise ValueError(
                        f"{path}: no frames from {before[0]:.2f} to {current[0]:.2f} s; the time stamps are damaged, "
                        "convert the file again"
                    )
                counts.gaps += current[0] - before[0] > 1.6 * nominal
                middle = (before[0] + current[0]) / 2
                yield from _repeat(before[1], middle, rate, counts)
            before = current
        if before is None:
            raise _no_frames(path)
        length = before[1].duration * before[1].time_base if before[1].duration else nominal
        yield from _repeat(before[1], before[0] + float(length) - 0.5 / rate, rate, counts)


def _video_stream(path: Path, file: InputContainer) -> VideoStream:
    if not file.streams.video:
        raise ValueError(f"{path}: expected a video, got a file without a video track; pass the video of the speaker")
    return file.streams.video[0]


def _no_frames(path: Path) -> ValueError:
    return ValueError(f"{path}: the video track has no frames; record or convert the video again")


def _repeat(frame: av.VideoFrame, until: float, rate: float, counts: FrameCounts) -> Iterator[np.ndarray]:
    """Yield the frame once for each output time before `until`."""
    image = None
    while counts.written / rate < until - 1e-9:
        image = _upright(frame) if image is None else image
        counts.written += 1
        yield image


def _upright(frame: av.VideoFrame) -> np.ndarray:
    # Without a color tag ffmpeg assumes BT.601, but players use BT.709 for high definition.
    untagged = int(frame.colorspace) == _UNSPECIFIED
    matrix = "ITU709" if untagged and frame.height >= 720 else None
    image = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, _quarter_turns(frame)))


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counterclockwise turns by 90 degrees: phones store how they were held."""
    return round(frame.rotation / 90)
