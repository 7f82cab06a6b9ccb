"""Videos in: upright frames of any format at a constant rate, and what the files say about themselves."""

import functools
import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from ernerf_ti.media.container import (
    LONGEST_GAP,
    MOST_FILLED,
    decode,
    moving_tracks,
    open_media,
    sound_track,
    video_track,
)
from ernerf_ti.media.frame_folder import folder_size, frame_files, read_fitted
from ernerf_ti.media.picture import LARGEST_SIDE, Converter, Deinterlacer, Look, Shown, has_alpha

FOLDER_RATE = 25.0
"""Frames per second of a folder of pictures, if nothing else is said."""

# Pictures that are decoded to find the usual size: so many, and beyond these one in so many seconds.
_N_SAMPLED, _SAMPLED_EVERY = 60, 5.0
_FILLED = 1.0  # s without a new picture that count as filled in
_BEFORE = 0.5  # s that are decoded before the frame to begin with: deinterlacing looks back
_STILL = 0.2  # s without a new picture that is seen as a standstill
_REGULAR = 0.9  # of the gaps between frames are near the usual one in a video with a constant rate
_DEEPEST = 16  # frames that a decoder holds back to put them in order, at most (ITU-T H.264, A.3.1)
_BACK = 1.0  # s by which time stamps go back, and of pictures whose stamps are behind, if the clock began again
_PLAUSIBLE_ASPECT = Fraction(1, 8), Fraction(8)


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file, or of a folder of pictures."""

    width: int
    height: int
    """In pixels, as shown: upright, with square pixels. If the size changes, that which is shown longest."""
    rate: float
    """Mean frames per second, by the time stamps."""
    duration: float
    """Of the video track, in seconds, by the time stamps."""
    codec: str
    sound_rate: int | None
    """Samples per second; None without an audio track that can be decoded."""
    notes: tuple[str, ...] = ()
    """What is converted when frames are read, in words."""


@dataclass
class FrameCounts:
    """Statistics of :func:`read_frames`, final once it is exhausted."""

    read: int = 0
    """Frames in the file."""
    gaps: int = 0
    """Gaps of at least one missing frame, by the time stamps of a video with a constant rate."""
    written: int = 0
    """Frames yielded, and those before the one to begin with."""
    held: int = 0
    """Frames yielded again, since the file has no newer one for their time."""
    standstills: int = 0
    """Times without a new frame for more than 0.2 s."""
    longest_gap: float = 0.0
    """The longest time without a new frame, in seconds."""
    variable: bool = False
    """Whether the frame rate varies."""
    interlaced: int = 0
    """Frames that were deinterlaced."""
    resized: int = 0
    """Frames whose size is not the usual one."""


def probe(path: Path, folder_rate: float = FOLDER_RATE) -> VideoInfo:
    """Properties of a video, or of a folder of pictures.

    All packets of the video track are read, since headers may lack the rate and the duration, or be wrong.

    Args:
        path: any video that ffmpeg reads, or a folder of pictures.
        folder_rate: frames per second of the folder.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file, or no picture in the folder.
        ValueError: the file is not a video, has no frames, is truncated or damaged, or has colors that can't be shown.
    """
    path = Path(path)
    if files := frame_files(path):
        width, height = folder_size(files)
        return VideoInfo(width, height, folder_rate, len(files) / folder_rate, "pictures", None)
    return _scan(path).info


def read_frames(
    path: Path, rate: float, counts: FrameCounts | None = None, folder_rate: float = FOLDER_RATE, start: int = 0
) -> Iterator[np.ndarray]:
    """Frames as they are shown, at a constant rate: upright, progressive, with square pixels, in BT.709 colors.

    Frame k is the one whose time stamp is nearest to k / rate after the first frame, so that a video with another or
    a variable rate stays in sync with its sound to half a frame. All frames have the size that :func:`probe` gives.

    Args:
        path: any video that ffmpeg reads, or a folder of pictures, which are taken in the natural order of their names.
        rate: frames per second wanted.
        counts: updated while frames are read.
        folder_rate: frames per second of the folder.
        start: frame k to begin with. Where the file can be searched, those before the last key frame are not decoded.

    Yields:
        [H, W, 3] uint8 RGB.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: as :func:`probe`.
    """
    path = Path(path)
    counts = counts if counts is not None else FrameCounts()
    counts.written = start
    if files := frame_files(path):
        return _read_folder(files, rate, counts, folder_rate)
    return _read_file(path, rate, counts, start / rate)


def _read_folder(files: list[Path], rate: float, counts: FrameCounts, folder_rate: float) -> Iterator[np.ndarray]:
    size = folder_size(files)
    for k, file in enumerate(files):
        counts.read += 1
        until = (k + 0.5) / folder_rate if k + 1 < len(files) else (k + 1) / folder_rate - 0.5 / rate
        n = _n_frames_before(until, rate, counts)
        if n:
            image, resized = read_fitted(file, size)
            counts.resized += resized
            yield from _repeated(image, n, counts)


def _read_file(path: Path, rate: float, counts: FrameCounts, begin: float) -> Iterator[np.ndarray]:
    scanned = _scan(path)
    size = scanned.info.width, scanned.info.height
    with open_media(path) as file:
        stream = _require_track(path, file)
        stream.thread_type = "AUTO"
        convert, deinterlace = Converter(scanned.aspect, size), Deinterlacer(stream)
        source = _Source(path, file, stream, scanned.usual_gap, begin)
        before: Shown | None = None
        for shown in deinterlace(iter(source)):
            if before is not None:
                n = _n_frames_before((before.time + shown.time) / 2, rate, counts)
                if n:
                    yield from _repeated(convert(before.frame, before.look), n, counts)
            before = shown
            counts.read += 1
            counts.resized += shown.look.shown_size(shown.frame, scanned.aspect) != size
        if before is None:
            raise _no_frames(path)
        n = _n_frames_before(source.end - 0.5 / rate, rate, counts)
        if n:
            yield from _repeated(convert(before.frame, before.look), n, counts)
        counts.interlaced = deinterlace.n_interlaced
        rhythm = _Rhythm.of(np.array(source.times), scanned.usual_gap)
        counts.gaps, counts.variable = rhythm.n_missing, rhythm.variable
        counts.standstills, counts.longest_gap = rhythm.n_standstills, rhythm.longest


def _n_frames_before(until: float, rate: float, counts: FrameCounts) -> int:
    """How many frames follow before this time."""
    return max(0, int(np.ceil((until - 1e-9) * rate)) - counts.written)


def _repeated(image: np.ndarray, n: int, counts: FrameCounts) -> Iterator[np.ndarray]:
    for k in range(n):
        counts.written += 1
        counts.held += k > 0
        yield image


class _Source:
    """The decoded frames of a file, with times relative to the first."""

    def __init__(self, path: Path, file: InputContainer, stream: VideoStream, usual_gap: float, begin: float):
        self._path, self._file, self._stream, self._usual_gap = path, file, stream, usual_gap
        self._begin = max(0.0, begin - _BEFORE)
        self.times: list[float] = []
        self.end = 0.0
        """When the last frame so far is over, in seconds."""

    def __iter__(self) -> Iterator[Shown]:
        first, frames = self._first_frames()
        if self._file.format.name == "avi":
            frames = _with_times_in_order(frames)
        filled = 0.0
        for frame in frames:
            before = self.times[-1] if self.times else self._begin
            if frame.time is not None:
                first = frame.time if first is None else first
                time = frame.time - first
            else:
                time = before + self._usual_gap if self.times else 0.0
            if time - before > LONGEST_GAP:
                raise ValueError(
                    f"{self._path}: no frames from {before:.2f} to {time:.2f} s; the time stamps are damaged, convert "
                    "the file again"
                )
            if time - before > _FILLED:
                filled += time - before
                if filled > LONGEST_GAP + MOST_FILLED * (time - filled):
                    raise ValueError(
                        f"{self._path}: no frames for {filled:.2f} of the first {time:.2f} s; the time stamps are "
                        "damaged, convert the file again"
                    )
            self.times.append(time)
            length = frame.duration * frame.time_base if frame.duration and frame.time_base else self._usual_gap
            self.end = time + min(float(length), LONGEST_GAP)
            yield Shown(time, Look.of(self._path, self._stream, frame), frame)

    def _first_frames(self) -> tuple[float | None, Iterator[Any]]:
        """The time of the file's first frame, if it is known, and the frames from the last key frame before the time to
        begin at, or else all."""
        frames = decode(self._path, self._file, self._stream)
        first = next(frames, None) if self._begin else None
        if first is not None and first.time is not None and self._stream.time_base:
            begin = first.time + self._begin
            with suppress(av.error.FFmpegError):
                self._file.seek(int(begin / self._stream.time_base), stream=self._stream)
                later = decode(self._path, self._file, self._stream)
                found = next(later, None)
                if found is not None and found.time is not None and found.time <= begin:
                    return first.time, itertools.chain((found,), later)
                self._file.seek(0)
                frames, first = decode(self._path, self._file, self._stream), None
        self._begin = 0.0
        return None, frames if first is None else itertools.chain((first,), frames)


def _with_times_in_order(frames: Iterator[Any]) -> Iterator[Any]:
    """Decoded frames of an AVI file, which has no times of showing: those that ffmpeg makes up follow the order in the
    file, in which frames precede those that refer to them, and are put into the order of the frames here."""
    waiting: deque[Any] = deque()
    times: list[int] = []
    for frame in frames:
        if frame.pts is None:  # then none has one
            yield frame
            continue
        waiting.append(frame)
        heapq.heappush(times, frame.pts)
        if len(waiting) > _DEEPEST:
            waiting[0].pts = heapq.heappop(times)
            yield waiting.popleft()
    for frame in waiting:
        frame.pts = heapq.heappop(times)
        yield frame


@dataclass(frozen=True)
class _Rhythm:
    """How the frames of a video follow each other. Times in seconds."""

    usual_gap: float
    variable: bool
    n_missing: int
    n_standstills: int
    longest: float
    shortest: float

    @classmethod
    def of(cls, times: np.ndarray, default: float) -> "_Rhythm":
        gaps = np.diff(np.sort(times))
        gaps = gaps[gaps > 0]
        if not len(gaps):
            return cls(default, False, 0, 0, 0.0, 0.0)
        usual = float(np.median(gaps))
        # Time stamps in milliseconds are rounded, and the frames of 24 fps shown at 60 alternate.
        variable = float(np.mean(np.abs(gaps - usual) < max(0.1 * usual, 0.0025))) < _REGULAR
        n_missing = 0 if variable else int((gaps > 1.6 * usual).sum())
        return cls(
            *(usual, variable, n_missing, int((gaps > _STILL).sum())),
            *(float(gaps.max()), float(np.percentile(gaps, 2))),
        )


@dataclass(frozen=True)
class _Scan:
    info: VideoInfo
    aspect: Fraction
    """Width of a pixel, relative to its height."""
    usual_gap: float
    """Seconds between frames."""


def _scan(path: Path) -> _Scan:
    status = path.stat() if path.is_file() else None
    return _scan_file(path, *((status.st_size, status.st_mtime_ns) if status else (0, 0)))


class _Sample(NamedTuple):
    """A picture that was decoded in passing."""

    time: float
    """In seconds."""
    look: Look
    size: tuple[int, int]
    """Width and height as shown."""


@dataclass(frozen=True)
class _Packets:
    """What the packets of a track and some of its pictures tell."""

    times: np.ndarray
    """[n_frames] s"""
    end: float
    """When the last frame is over, in seconds."""
    samples: list[_Sample]
    """One or more, in the order of the file."""
    aspect: Fraction
    stored: tuple[int, int]
    """Width and height of the first picture in the file."""
    alpha: bool

    def seconds_of_sizes(self) -> dict[tuple[int, int], float]:
        """How long pictures of each size are shown."""
        seconds: dict[tuple[int, int], float] = {}
        until = [sample.time for sample in self.samples[1:]] + [max(self.end, self.samples[-1].time)]
        for sample, then in zip(self.samples, until, strict=True):
            seconds[sample.size] = seconds.get(sample.size, 0.0) + then - sample.time
        return seconds


@functools.lru_cache(maxsize=64)
def _scan_file(path: Path, size: int, changed_ns: int) -> _Scan:
    with open_media(path) as file:
        stream = _require_track(path, file)
        _require_moving(path, file)
        _require_size(path, stream.codec_context.width, stream.codec_context.height)
        packets = _look_through(path, file, stream)
        if len(packets.times) == 1 and file.format.name == "gif":
            raise _still(path)
        rhythm = _Rhythm.of(packets.times, packets.end - float(packets.times.max()))
        duration = packets.end - float(packets.times.min())
        sizes = packets.seconds_of_sizes()
        width, height = max(sizes, key=sizes.__getitem__)
        sound = sound_track(file)
        info = VideoInfo(
            *(width, height, len(packets.times) / duration, duration, stream.codec_context.name),
            sound.rate if sound is not None else None,
            tuple(_notes(file, stream, packets, rhythm)),
        )
        return _Scan(info, packets.aspect, rhythm.usual_gap)


def _look_through(path: Path, file: InputContainer, stream: VideoStream) -> _Packets:
    """Read the time stamps of all packets, and decode a picture from time to time."""
    context = stream.codec_context
    guessed = float(stream.average_rate or stream.guessed_rate or 0)
    default_gap = 1 / guessed if guessed else 1 / FOLDER_RATE
    shown: list[float | None] = []
    decoded: list[float | None] = []
    lengths: list[float] = []
    samples: list[_Sample] = []
    aspect, stored, alpha, damage = Fraction(1), (0, 0), False, None
    try:
        for packet in file.demux(stream):
            pts, dts = (None if t is None else float(t * packet.time_base) for t in (packet.pts, packet.dts))
            if packet.size and not packet.is_discard and not _is_hidden(context.name, packet):
                shown.append(pts)
                decoded.append(dts)
                lengths.append(float(packet.duration * packet.time_base) if packet.duration else 0.0)
            time = next((t for t in (pts, dts) if t is not None), len(shown) * default_gap)
            frame = None
            if not samples:
                try:
                    frame = next(iter(packet.decode()), None)
                except av.error.InvalidDataError as error:
                    damage = damage or error
            elif packet.is_keyframe and (len(samples) < _N_SAMPLED or time - samples[-1].time >= _SAMPLED_EVERY):
                with suppress(av.error.FFmpegError):  # reading reports it
                    frame = next(iter(packet.decode() or context.decode(None)), None)
            if frame is None:
                continue
            if not samples:
                aspect, stored, alpha = _pixel_aspect(stream), (frame.width, frame.height), has_alpha(frame)
            look = Look.of(path, stream, frame)
            samples.append(_Sample(time, look, look.shown_size(frame, aspect)))
            _require_size(path, *samples[-1].size)
            context.flush_buffers()
        if not samples and damage is not None:
            raise damage
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path}: the video data are damaged after {len(shown)} frames ({error.strerror}); copy or convert the "
            "file again"
        ) from None
    if not samples or not shown:
        raise _no_frames(path)
    stamps = [[t for t in times if t is not None] for times in (shown, decoded)]
    complete = [np.array(times) for times in stamps if len(times) == len(shown)]
    if complete:
        _require_one_clock(path, complete[-1], default_gap)
    times = complete[0] if complete else default_gap * np.arange(len(shown))
    last = int(times.argmax())
    length = lengths[last] or _Rhythm.of(times, default_gap).usual_gap
    return _Packets(times, float(times[last]) + min(length, LONGEST_GAP), samples, aspect, stored, alpha)


def _require_one_clock(path: Path, times: np.ndarray, gap: float) -> None:
    """Raise ValueError if time stamps in the order of the file begin again, as where files were put end to end: later
    frames would be lost among the earlier ones."""
    latest = np.maximum.accumulate(times)
    behind = np.append(np.zeros(_DEEPEST, bool), latest[:-_DEEPEST] - times[_DEEPEST:] > _BACK)
    if behind.sum() * gap > _BACK:
        at = latest[behind.argmax()] - times[0]
        raise ValueError(
            f"{path}: the time stamps of the pictures begin again after {at:.2f} s, as where recordings were put "
            "end to end; convert the file to MP4 first, or pass one recording"
        )


def _is_hidden(codec: str, packet: av.Packet) -> bool:
    """Whether a packet of VP8 is only referred to (RFC 6386, 9.1)."""
    return codec in ("vp8", "libvpx") and not bytes(packet)[0] & 0x10


def _pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel, relative to its height, by the container, else by the codec that has begun to decode."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    return aspect if _PLAUSIBLE_ASPECT[0] <= aspect <= _PLAUSIBLE_ASPECT[1] else Fraction(1)


def _notes(file: InputContainer, stream: VideoStream, packets: _Packets, rhythm: _Rhythm) -> Iterator[str]:
    if (n := len(moving_tracks(file))) > 1:
        yield f"{n} video tracks: track {stream.index} is used"
    source = packets.samples[0].look.encoding
    if source is not None:
        yield f"{source} is converted to SDR in BT.709"
    if packets.aspect != 1:
        aspect, (width, height) = packets.aspect, packets.stored
        shown = f"{max(1, round(width * aspect))}x{height}"
        yield f"pixels that are not square ({aspect.numerator}:{aspect.denominator}): {width}x{height} becomes {shown}"
    if any(sample.look.interlaced for sample in packets.samples):
        yield "interlaced: deinterlaced with bwdif, one frame from two fields"
    sizes = packets.seconds_of_sizes()
    if len(sizes) > 1:
        width, height = max(sizes, key=sizes.__getitem__)
        found = ", ".join(f"{w}x{h}" for w, h in sizes)
        yield f"the size of the picture changes ({found}): all frames are scaled to {width}x{height}"
    if packets.alpha:
        yield "transparent pixels are shown over black"
    if rhythm.variable:
        yield (
            f"variable frame rate: a new frame after {1000 * rhythm.shortest:.0f} to {1000 * rhythm.longest:.0f} ms, "
            f"mostly {1000 * rhythm.usual_gap:.0f} ms"
        )


def _require_track(path: Path, file: InputContainer) -> VideoStream:
    track = video_track(file)
    if track is None:
        got = "a file without a video track"
        if any(not other.codec_context for other in file.streams.video):
            got = "one in a codec that ffmpeg does not know"
        elif file.streams.video:
            got = "a file with a cover picture alone"
        raise ValueError(f"{path}: expected a video, got {got}; pass the video of the speaker")
    return track


def _require_moving(path: Path, file: InputContainer) -> None:
    brand = file.metadata.get("major_brand", "").strip()
    if file.format.name.endswith("_pipe") or file.format.name == "image2" or brand in ("avif", "heic", "heix", "mif1"):
        raise _still(path)


def _require_size(path: Path, width: int, height: int) -> None:
    if max(width, height) > LARGEST_SIDE:
        raise ValueError(
            f"{path}: expected pictures of up to {LARGEST_SIDE} pixels a side, got {width}x{height}; convert the video "
            "to a smaller size"
        )


def _still(path: Path) -> ValueError:
    return ValueError(f"{path}: expected a video, got a still picture; pass the video of the speaker")


def _no_frames(path: Path) -> ValueError:
    return ValueError(f"{path}: the video track has no frames; record or convert the video again")
