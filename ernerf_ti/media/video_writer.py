"""Video files out: MP4, WebM and MOV with sound."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import ArrayLike

from ernerf_ti.media.container import ffmpeg_name
from ernerf_ti.media.files import replacing
from ernerf_ti.media.sound import mux_sound

QUALITY = 18
"""Default quality of videos."""
_BT709 = 1  # AVCOL_SPC_BT709


@dataclass(frozen=True)
class _Format:
    """How a kind of file is written."""

    video_codec: str
    pixel_format: str
    audio_codec: str
    options: dict[str, str]
    """Of the video codec; {quality} is filled in."""
    channels: int
    """3 for RGB, 4 for RGB and straight alpha."""


_FORMATS = {
    ".mp4": _Format("libx264", "yuv420p", "aac", {"crf": "{quality}", "preset": "medium"}, 3),
    # For web pages and live production: browsers and OBS show the alpha of VP9.
    ".webm": _Format(
        *("libvpx-vp9", "yuva420p", "libopus"),
        {"crf": "{quality}", "deadline": "realtime", "cpu-used": "6", "row-mt": "1", "auto-alt-ref": "0"},
        4,
    ),
    # For video editors: ProRes 4444.
    ".mov": _Format("prores_ks", "yuva444p10le", "pcm_s16le", {"profile": "4444"}, 4),
}
# NVENC. Its constant quality is on the scale of the CRF; a bit rate of 0 lets it alone decide.
_HARDWARE = _Format(
    *("h264_nvenc", "yuv420p", "aac"),
    {"preset": "p5", "tune": "hq", "rc": "vbr", "cq": "{quality}", "b": "0", "profile": "high"},
    3,
)
VIDEO_SUFFIXES = tuple(_FORMATS)
TRANSPARENT_SUFFIXES = tuple(suffix for suffix, kind in _FORMATS.items() if kind.channels == 4)
"""Formats with an alpha channel."""


class VideoWriter:
    """Writes frames one by one, then the sound; the file appears with :meth:`finish`.

    Args:
        path: .mp4 (H.264, AAC); with alpha .webm (VP9, Opus) or .mov (ProRes 4444, PCM).
        rate: frames per second.
        samples: [S] mono sound in [-1, 1]; None for no audio track.
        sound_rate: samples per second.
        quality: constant rate factor (CRF) of H.264 and VP9, or constant quality of NVENC; 18 is visually lossless,
            higher gives smaller files.
        metadata: tags of the file, such as title or comment.
        hardware: encode an .mp4 on an NVIDIA graphics card, which :func:`hardware_encoding_problem` must find able to.

    Raises ValueError for any other suffix, and OSError if the file can't be created.
    """

    def __init__(
        self,
        path: Path,
        rate: float,
        samples: ArrayLike | None = None,
        sound_rate: int = 16_000,
        quality: int = QUALITY,
        metadata: dict[str, str] | None = None,
        hardware: bool = False,
    ):
        path = Path(path)
        if path.suffix.lower() not in _FORMATS:
            raise ValueError(
                f"{path}: expected a name that ends in {', '.join(_FORMATS)}, got {path.suffix or 'no suffix'}; "
                "choose one of these"
            )
        self._format = _HARDWARE if hardware and path.suffix.lower() == ".mp4" else _FORMATS[path.suffix.lower()]
        self.n_frames = 0
        self._samples, self._sound_rate = samples, sound_rate
        self._shape: tuple[int, ...] | None = None
        self._reformatter = VideoReformatter()  # a frame's own would start threads for each frame
        self._stack = contextlib.ExitStack()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._stack.enter_context(replacing(path))
        output = av.open(ffmpeg_name(self._temporary), "w", format=path.suffix[1:].lower())
        self._file = self._stack.enter_context(output)
        self._file.metadata.update(metadata or {})
        self._video = self._file.add_stream(self._format.video_codec, rate=Fraction(rate).limit_denominator(1001))
        _configure(self._video.codec_context, self._format, quality)
        self._audio = None
        if samples is not None:
            self._audio = self._file.add_stream(self._format.audio_codec, rate=sound_rate, layout="mono")

    def write(self, image: np.ndarray) -> None:
        """Add a frame.

        Args:
            image: [H, W, 3] RGB, or for a format with alpha [H, W, 4] RGB and straight alpha; uint8.

        Raises ValueError for an odd size, or a shape that differs from the first frame's or the format's.
        """
        if self._shape is None:
            self._shape = (*image.shape[:2], self._format.channels)
            if image.shape[0] % 2 or image.shape[1] % 2:
                raise ValueError(
                    f"frames: expected an even width and height, got {image.shape[1]}x{image.shape[0]}; "
                    "resize them, as video codecs need even sizes"
                )
            self._video.height, self._video.width = image.shape[:2]
        if image.shape != self._shape:
            raise ValueError(
                f"frames: expected shape {list(self._shape)} (from the first frame and the format), "
                f"got {list(image.shape)} in frame {self.n_frames}; pass frames of one size"
            )
        source = "rgba" if self._format.channels == 4 else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=source)
        frame = self._reformatter.reformat(frame, format=self._format.pixel_format, dst_colorspace=Colorspace.ITU709)
        self._file.mux(self._video.encode(frame))
        self.n_frames += 1

    def finish(self, before_rename: Callable[[Path], None] | None = None) -> None:
        """Flush the encoder, write the sound and close the file.

        Args:
            before_rename: called with the complete, closed temporary file, which it may replace in place, for
                signatures; if it raises, no file appears.

        Raises ValueError if there was no frame.
        """
        if self.n_frames == 0:
            raise ValueError("frames: expected at least one, got none; check the range of frames")
        self._file.mux(self._video.encode(None))
        if self._audio is not None:
            mux_sound(self._file, self._audio, np.asarray(self._samples, np.float32), self._sound_rate)
        self._file.close()
        if before_rename is not None:
            before_rename(self._temporary)
        self._stack.close()

    def close(self) -> None:
        """Discard the file unless it was finished."""
        with contextlib.suppress(_Discarded), self._stack.pop_all():
            raise _Discarded


def hardware_encoding_problem(width: int, height: int, rate: float) -> str | None:
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
                codec = av.codec.Codec(_HARDWARE.video_codec, "w").create("video")
                codec.width, codec.height = width, height
                codec.framerate = Fraction(rate).limit_denominator(1001)
                codec.time_base = 1 / codec.framerate
                _configure(codec, _HARDWARE, QUALITY)
                image = np.zeros((height, width, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(image).reformat(format=_HARDWARE.pixel_format)
                frame.pts = 0
                n_bytes = sum(packet.size for packet in [*codec.encode(frame), *codec.encode(None)])
            except (av.error.FFmpegError, ValueError) as error:
                text = log[0][2] if log else getattr(error, "strerror", None) or str(error)
                return f"{_HARDWARE.video_codec} can't be used ({' '.join(text.split())})"
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    return None if n_bytes else f"{_HARDWARE.video_codec} can't be used (it encoded a frame to nothing)"


def _configure(codec: VideoCodecContext, kind: _Format, quality: int) -> None:
    codec.pix_fmt = kind.pixel_format
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.options = {key: value.format(quality=quality) for key, value in kind.options.items()}


class _Discarded(Exception):
    """Raised inside the context of :func:`replacing`, so that the temporary file is discarded."""


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: float,
    samples: np.ndarray | None = None,
    sound_rate: int = 16_000,
    quality: int = QUALITY,
    metadata: dict[str, str] | None = None,
) -> int:
    """Write frames, all of one even size; arguments and errors as for :class:`VideoWriter`.

    Returns:
        The number of frames.
    """
    writer = VideoWriter(path, rate, samples, sound_rate, quality, metadata)
    try:
        for image in frames:
            writer.write(image)
        writer.finish()
    finally:
        writer.close()
    return writer.n_frames
