"""Video files out: MP4, WebM, MOV and Matroska, with their sound beside the pictures."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Colorspace, VideoReformatter

from ernerf_ti.media.container import ffmpeg_name
from ernerf_ti.media.video_formats import (
    CODECS,
    CONTAINERS,
    DEFAULT_ENCODING,
    HARDWARE,
    Codec,
    Encoding,
    codec_of,
    encoder_options,
    exact_rate,
    sound_codecs,
)
from ernerf_ti.media.video_sound import EncodedSound, VideoSound, add_sound
from ernerf_ti.media.whole_files import DiskFullError, disk_full_error, is_disk_full, replacing

_BT709 = 1  # AVCOL_SPC_BT709, and so are the primaries and the transfer function called
_LIMITED = 1  # AVCOL_RANGE_MPEG: 16 to 235


class VideoWriter:
    """Writes frames one by one and the sound along with them; the file appears with :meth:`finish`.

    Pictures are written in BT.709 with limited range and square pixels. Codecs with halved color need even sizes: an
    odd width or height is made even by repeating the last column or row.

    Args:
        path: .mp4, .webm, .mov or .mkv; .webm (VP9) and .mov (ProRes 4444) have alpha unless `encoding` names a codec
            without it.
        rate: frames per second, see :func:`ernerf_ti.media.video_formats.exact_rate`.
        sound: None for no audio track.
        encoding: codec of the pictures and its options.
        metadata: tags of the file, such as title or comment.
        hardware: encode H.264 on an NVIDIA graphics card, which :func:`hardware_encoding_problem` must find able to.
        size: width and height of the frames, to open the encoder and the file now; None to do so with the first frame.
        n_frames: number of frames to come, to say how much room they need when the disk is full.

    Raises ValueError for an encoding that does not go with the path, or can't be opened at that size, and OSError if
    the file can't be created.
    """

    def __init__(
        self,
        path: Path,
        rate: float | Fraction,
        sound: VideoSound | None = None,
        encoding: Encoding = DEFAULT_ENCODING,
        metadata: dict[str, str] | None = None,
        hardware: bool = False,
        size: tuple[int, int] | None = None,
        n_frames: int | None = None,
    ):
        self._path = path = Path(path)
        self._codec = codec_of(path, encoding)
        sound_encoder, copied = sound_codecs(path, self._codec)
        if hardware and self._codec is CODECS["h264"]:
            self._codec = HARDWARE
        container = CONTAINERS[path.suffix.lower()]
        self.n_frames, self._expected = 0, n_frames
        self._rate = exact_rate(rate)
        self._n_channels = 4 if self._codec.has_alpha else 3
        self._shape: tuple[int, ...] | None = None
        self._reformatter = VideoReformatter()  # a frame's own would start threads for each frame
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(replacing(path))
            output = av.open(ffmpeg_name(self._temporary), "w", format=container.format, options=container.options)
            self._file = stack.enter_context(output)
            self._file.metadata.update(metadata or {})
            self._video = self._file.add_stream(self._codec.encoder, rate=self._rate)
            _configure(self._video.codec_context, self._codec, encoding)
            if self._codec is CODECS["hevc"] and container.format in ("mp4", "mov"):
                self._video.codec_context.codec_tag = "hvc1"  # Apple's players take no other
            self._sound = None
            if sound is not None:
                self._sound = add_sound(self._file, sound, sound_encoder, copied)
                stack.callback(self._sound.close)
            if size is not None:
                self._open(*size)
            self._stack = stack.pop_all()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures in the file, once it is open."""
        return self._video.width, self._video.height

    def write(self, image: np.ndarray) -> None:
        """Add a frame, and the sound until its end.

        Args:
            image: [H, W, 3] RGB, or for a format with alpha [H, W, 4] RGB and straight alpha; uint8.

        Raises:
            ValueError: a shape that differs from the first frame's or the format's, or that the encoder can't take.
            OSError: the file can't be written; a full disk is reported with the room that is needed and free.
        """
        if self._shape is None:
            self._open(image.shape[1], image.shape[0])
        if image.shape != self._shape:
            raise ValueError(
                f"frames: expected shape {list(self._shape or ())} (from the first frame and the format), "
                f"got {list(image.shape)} in frame {self.n_frames}; pass frames of one size"
            )
        height, width = image.shape[:2]
        if (self._video.height, self._video.width) != (height, width):
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        source = "rgba" if self._n_channels == 4 else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=source)
        frame = self._reformatter.reformat(frame, format=self._codec.pixel_format, dst_colorspace=Colorspace.ITU709)
        frame.color_primaries = frame.color_trc = _BT709  # ProRes takes them from the frames
        with self._naming_the_file():
            self._file.mux(self._video.encode(frame))
            self.n_frames += 1
            if self._sound is not None:
                self._sound.write_until(float(self.n_frames / self._rate))

    def write_sound(self, samples: np.ndarray) -> None:
        """Add sound that is not known in advance.

        Args:
            samples: [C, n] float32 in [-1, 1] in the rate and layout of the sound that the writer was given, which
                must itself be empty, and not of a file.
        """
        assert isinstance(self._sound, EncodedSound)
        with self._naming_the_file():
            self._sound.push(samples)

    def finish(self, before_rename: Callable[[Path], None] | None = None) -> None:
        """Flush the encoders, write the rest of the sound and close the file.

        Args:
            before_rename: called with the complete, closed temporary file, which it may replace in place, for
                signatures; if it raises, no file appears.

        Raises ValueError if there was no frame, and OSError as :meth:`write`.
        """
        if self.n_frames == 0:
            raise ValueError("frames: expected at least one, got none; check the range of frames")
        with self._naming_the_file():
            packets = self._video.encode(None)
            if self._codec is CODECS["hevc"] and self.n_frames <= 2:
                # libx265 takes the decoding times of the first frames from two later ones, and without them from memory
                # that it never wrote. Two frames are decoded in the order in which they are shown.
                for packet in packets:
                    packet.dts = packet.pts
            self._file.mux(packets)
            if self._sound is not None:
                self._sound.finish(float(self.n_frames / self._rate))
            self._file.close()
        if before_rename is not None:
            before_rename(self._temporary)
        self._stack.close()

    def close(self) -> None:
        """Discard the file unless it was finished."""
        # What can't be written any more does not matter now.
        with contextlib.suppress(_Discarded, av.error.FFmpegError, DiskFullError), self._stack.pop_all():
            raise _Discarded

    def _open(self, width: int, height: int) -> None:
        """Open the encoder and write the head of the file."""
        self._shape = (height, width, self._n_channels)
        even = self._codec.pixel_format.endswith("420p")
        self._video.width, self._video.height = (width + width % 2, height + height % 2) if even else (width, height)
        with self._naming_the_file(f"{self._codec.name} of {width}x{height} pixels and its sound"):
            self._file.start_encoding()

    @contextlib.contextmanager
    def _naming_the_file(self, what: str = "the video") -> Iterator[None]:
        """Turn errors of ffmpeg into one line that names the file."""
        try:
            yield
        except av.error.FFmpegError as error:
            reason = error.strerror or str(error)
            if not is_disk_full(error):
                raise OSError(f"{self._path}: can't write {what} ({reason}); choose another file or codec") from None
            written, needed = self._temporary.stat().st_size, None
            if self._expected is not None and 0 < self.n_frames < self._expected:
                needed = round(written * self._expected / self.n_frames)
            raise disk_full_error(self._path, self._path.parent, needed, written) from None


def hardware_encoding_problem(width: int, height: int, rate: float | Fraction) -> str | None:
    """Why H.264 can't be encoded on an NVIDIA graphics card here; None if it can: the encoder was given a frame.

    Args:
        width, height: of the frames, in pixels; the encoders have limits.
        rate: frames per second.
    """
    # The error itself says no more than that the operation failed; the log says why.
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as log:
            try:
                codec = av.codec.Codec(HARDWARE.encoder, "w").create("video")
                codec.width, codec.height = width, height
                codec.framerate = exact_rate(rate)
                codec.time_base = 1 / codec.framerate
                _configure(codec, HARDWARE, DEFAULT_ENCODING)
                image = np.zeros((height, width, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(image).reformat(format=HARDWARE.pixel_format)
                frame.pts = 0
                n_bytes = sum(packet.size for packet in [*codec.encode(frame), *codec.encode(None)])
            except (av.error.FFmpegError, ValueError) as error:
                text = log[0][2] if log else getattr(error, "strerror", None) or str(error)
                return f"{HARDWARE.encoder} can't be used ({' '.join(text.split())})"
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    return None if n_bytes else f"{HARDWARE.encoder} can't be used (it encoded a frame to nothing)"


def _configure(context: VideoCodecContext, codec: Codec, encoding: Encoding) -> None:
    if codec is CODECS["av1"]:
        os.environ.setdefault("SVT_LOG", "1")  # errors alone; it writes to stderr past ffmpeg
    context.pix_fmt = codec.pixel_format
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    context.sample_aspect_ratio = Fraction(1)
    context.options = encoder_options(codec, encoding)


class _Discarded(Exception):
    """Raised inside the context of :func:`replacing`, so that the temporary file is discarded."""


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: float | Fraction,
    samples: np.ndarray | None = None,
    sound_rate: int = 16_000,
    encoding: Encoding = DEFAULT_ENCODING,
    metadata: dict[str, str] | None = None,
) -> int:
    """Write frames of one size, and [S] mono or [C, S] samples; arguments and errors as for :class:`VideoWriter`.

    Returns:
        The number of frames.
    """
    sound = None if samples is None else VideoSound.of_samples(samples, sound_rate)
    with contextlib.closing(VideoWriter(path, rate, sound, encoding, metadata)) as writer:
        for image in frames:
            writer.write(image)
        writer.finish()
        return writer.n_frames
