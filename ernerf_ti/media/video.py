"""Video files: frames and sound of any format in; mp4, webm and mov out. PyAV carries its own ffmpeg."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ernerf_ti.media.files import replacing

_SOUND_GAP = 0.04  # s; a longer gap between packets is silence, a shorter one rounding
_BT709, _UNSPECIFIED = 1, 2  # AVCOL_SPC_BT709, AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class _Format:
    """How a kind of file is written."""

    picture_codec: str
    pixels: str
    sound_codec: str
    options: dict[str, str]
    """Of the picture codec; {quality} is filled in."""
    channels: int
    """3 for RGB, 4 for RGB and straight alpha."""


_FORMATS = {
    ".mp4": _Format("libx264", "yuv420p", "aac", {"crf": "{quality}", "preset": "medium"}, 3),
    # For web pages and live production: a VP9 file shows its alpha in browsers and in OBS.
    ".webm": _Format(
        *("libvpx-vp9", "yuva420p", "libopus"),
        {"crf": "{quality}", "deadline": "realtime", "cpu-used": "6", "row-mt": "1", "auto-alt-ref": "0"},
        4,
    ),
    # For editors: ProRes 4444.
    ".mov": _Format("prores_ks", "yuva444p10le", "pcm_s16le", {"profile": "4444"}, 4),
}
VIDEO_SUFFIXES = tuple(_FORMATS)
TRANSPARENT_SUFFIXES = tuple(suffix for suffix, kind in _FORMATS.items() if kind.channels == 4)
"""Files that keep alpha."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself."""

    width: int
    height: int
    """In pixels, upright."""
    rate: float
    """Mean frames per second."""
    duration: float
    """Of the pictures, in seconds."""
    codec: str
    sound_rate: int | None
    """Samples per second; None without sound."""


@dataclass
class FrameCounts:
    """What :func:`read_frames` met; complete when it has ended."""

    read: int = 0
    """Frames in the file."""
    gaps: int = 0
    """Places where at least one frame is missing, by the time stamps."""
    written: int = 0


def probe(path: Path) -> VideoInfo:
    """Raises FileNotFoundError, or ValueError for a file without pictures."""
    with _open(path) as file:
        stream = _picture_stream(path, file)
        first = next(file.decode(stream), None)
        if first is None:
            raise ValueError(f"{path}: expected pictures, got a video stream without any; record the video again")
        width, height = first.width, first.height
        if _quarter_turns(first) % 2:
            width, height = height, width
        duration = float(stream.duration * stream.time_base) if stream.duration else (file.duration or 0) / av.time_base
        sound = file.streams.audio
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        return VideoInfo(width, height, rate, duration, stream.codec_context.name, sound[0].rate if sound else None)


def read_frames(path: Path, rate: float, counts: FrameCounts | None = None) -> Iterator[np.ndarray]:
    """Upright frames at a constant rate.

    Frame k is the one whose time stamp is nearest to k / rate after the first one, so that a video of
    another or of a varying rate stays in step with its sound to half a frame.

    Args:
        path: any video that ffmpeg reads.
        rate: frames per second wanted.
        counts: filled while the frames are read.

    Yields:
        [H, W, 3] uint8 RGB.

    Raises:
        FileNotFoundError, ValueError: as :func:`probe`.
    """
    counts = counts if counts is not None else FrameCounts()
    with _open(path) as file:
        stream = _picture_stream(path, file)
        stream.thread_type = "AUTO"
        nominal = 1 / float(stream.average_rate or stream.guessed_rate or rate)
        first = before = None
        for frame in file.decode(stream):
            time = frame.time if frame.time is not None else counts.read * nominal
            first = time if first is None else first
            current = (time - first, frame)
            counts.read += 1
            if before is not None:
                counts.gaps += current[0] - before[0] > 1.6 * nominal
                middle = (before[0] + current[0]) / 2
                yield from _repeat(before[1], middle, rate, counts)
            before = current
        if before is None:
            raise ValueError(f"{path}: expected pictures, got a video stream without any; record the video again")
        length = before[1].duration * before[1].time_base if before[1].duration else nominal
        yield from _repeat(before[1], before[0] + float(length) - 0.5 / rate, rate, counts)


def read_sound(path: Path, rate: int = 16_000) -> np.ndarray:
    """The sound, mixed to mono, from the first picture on (from its own begin if there are no pictures).

    Returns:
        [S] float32 in [-1, 1] at `rate` samples per second. Gaps between packets are silence.

    Raises:
        FileNotFoundError, ValueError: no such file, or one without sound.
    """
    begin = 0.0
    with _open(path) as file:
        if not file.streams.audio:
            raise ValueError(f"{path}: expected a sound track, got none; use a recording with the speaker's voice")
        if file.streams.video:
            picture = next(file.decode(file.streams.video[0]), None)
            begin = picture.time or 0.0 if picture is not None else 0.0
    with _open(path) as file:
        # The channels are averaged here: ffmpeg's own mix of two equal channels is 3 dB louder, and clips.
        layout = file.streams.audio[0].layout
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        parts, n = [], 0
        end = None  # of the packet before, s
        for frame in file.decode(file.streams.audio[0]):
            time = frame.time if frame.time is not None else (begin if end is None else end)
            if end is None:
                start = round((time - begin) * rate)
            elif time - end > _SOUND_GAP:
                silence = max(0, round((time - begin) * rate) - start - n)
                parts.append(np.zeros(silence, np.float32))
                n += silence
            end = time + frame.samples / frame.sample_rate
            for piece in resampler.resample(frame):
                parts.append(piece.to_ndarray().mean(0))
                n += piece.samples
        parts += [piece.to_ndarray().mean(0) for piece in resampler.resample(None)]
    if end is None:
        raise ValueError(f"{path}: expected sound, got a sound track without any; record it again")
    samples = np.concatenate(parts)
    return np.clip(np.pad(samples, (start, 0)) if start > 0 else samples[-start:], -1, 1)


class VideoWriter:
    """Writes pictures and sound, frame by frame; the file appears with :meth:`finish`.

    Args:
        path: an .mp4 (H.264, AAC); or with alpha a .webm (VP9, Opus) or a .mov (ProRes 4444, PCM).
        rate: frames per second.
        samples: [S] mono sound in [-1, 1].
        sound_rate: samples per second.
        quality: constant rate factor of H.264 and VP9; 18 is visually lossless, larger is smaller.
        metadata: tags of the file, as title or comment.

    Raises ValueError for another kind of file.
    """

    def __init__(
        self,
        path: Path,
        rate: float,
        samples: np.ndarray | None = None,
        sound_rate: int = 16_000,
        quality: int = 18,
        metadata: dict[str, str] | None = None,
    ):
        path = Path(path)
        if path.suffix.lower() not in _FORMATS:
            raise ValueError(
                f"{path}: expected a file that ends in {', '.join(_FORMATS)}, got {path.suffix or 'no suffix'}; "
                "choose one of these"
            )
        self._format = _FORMATS[path.suffix.lower()]
        self.n_frames = 0
        self._samples, self._sound_rate = samples, sound_rate
        self._shape: tuple[int, ...] | None = None
        self._stack = contextlib.ExitStack()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._stack.enter_context(replacing(path))
        self._file = self._stack.enter_context(av.open(str(temporary), "w", format=path.suffix[1:].lower()))
        self._file.metadata.update(metadata or {})
        self._pictures = self._file.add_stream(self._format.picture_codec, rate=Fraction(rate).limit_denominator(1001))
        self._pictures.pix_fmt = self._format.pixels
        for tag in ("colorspace", "color_primaries", "color_trc"):
            setattr(self._pictures.codec_context, tag, _BT709)
        self._pictures.options = {key: value.format(quality=quality) for key, value in self._format.options.items()}
        self._sound = None
        if samples is not None:
            self._sound = self._file.add_stream(self._format.sound_codec, rate=sound_rate, layout="mono")

    def write(self, image: np.ndarray) -> None:
        """Add a frame [H, W, 3] uint8 RGB, or [H, W, 4] RGB and straight alpha for a file with alpha.

        Raises ValueError for an odd size, another one than before, or another number of channels.
        """
        if self._shape is None:
            self._shape = (*image.shape[:2], self._format.channels)
            if image.shape[0] % 2 or image.shape[1] % 2:
                raise ValueError(
                    f"frames: expected an even width and height, got {image.shape[1]}x{image.shape[0]}; "
                    "video codecs need even sizes"
                )
            self._pictures.height, self._pictures.width = image.shape[:2]
        if image.shape != self._shape:
            raise ValueError(
                f"frames: expected shape {list(self._shape)} (from frame 0 and the kind of file), "
                f"got {list(image.shape)} in {self.n_frames}; pass frames of one size"
            )
        source = "rgba" if self._format.channels == 4 else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=source)
        self._file.mux(self._pictures.encode(frame.reformat(format=self._format.pixels, dst_colorspace="ITU709")))
        self.n_frames += 1

    def finish(self) -> None:
        """Write what is left, and the sound. Raises ValueError if there was no frame."""
        if self.n_frames == 0:
            raise ValueError("frames: expected at least one, got none; see whether the range of frames is empty")
        self._file.mux(self._pictures.encode(None))
        if self._sound is not None:
            _mux_sound(self._file, self._sound, np.asarray(self._samples, np.float32), self._sound_rate)
        self._stack.close()

    def close(self) -> None:
        """Drop the file, if it was not finished."""
        with contextlib.suppress(_Dropped), self._stack.pop_all():
            raise _Dropped


class _Dropped(Exception):
    """Raised within the file's context, so that it does not take its place."""


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: float,
    samples: np.ndarray | None = None,
    sound_rate: int = 16_000,
    quality: int = 18,
    metadata: dict[str, str] | None = None,
) -> int:
    """Write frames, all of one even size; arguments and errors as :class:`VideoWriter`.

    Returns:
        How many frames were written.
    """
    writer = VideoWriter(path, rate, samples, sound_rate, quality, metadata)
    try:
        for image in frames:
            writer.write(image)
        writer.finish()
    finally:
        writer.close()
    return writer.n_frames


def _mux_sound(file, stream, samples: np.ndarray, rate: int) -> None:
    context = stream.codec_context
    context.open(strict=False)
    # A codec of fixed frames says their length once it is open; for others any will do.
    resampler = av.AudioResampler(
        format=context.format, layout="mono", rate=context.sample_rate, frame_size=context.frame_size or 1024
    )
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        file.mux(stream.encode(piece))
    file.mux(stream.encode(None))


def _open(path: Path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a video or sound file, got no such file")
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: expected a file that ffmpeg reads, got {error.strerror}; convert it first") from None


def _picture_stream(path: Path, file):
    if not file.streams.video:
        raise ValueError(f"{path}: expected a video, got a file without pictures; pass the video of the speaker")
    return file.streams.video[0]


def _repeat(frame, until: float, rate: float, counts: FrameCounts) -> Iterator[np.ndarray]:
    """The frame as often as output times before `until` are left."""
    image = None
    while counts.written / rate < until - 1e-9:
        image = _upright(frame) if image is None else image
        counts.written += 1
        yield image


def _upright(frame) -> np.ndarray:
    # Files without a color tag: ffmpeg assumes BT.601, players take BT.709 for high definition.
    untagged = int(frame.colorspace) == _UNSPECIFIED
    matrix = "ITU709" if untagged and frame.height >= 720 else None
    image = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, _quarter_turns(frame)))


def _quarter_turns(frame) -> int:
    """Counter-clockwise, as phones note how they were held."""
    return round(frame.rotation / 90)
