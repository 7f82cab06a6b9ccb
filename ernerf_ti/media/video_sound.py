"""The sound of a video that is written: copied from the user's file where that is exact, else encoded."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import OutputContainer

from ernerf_ti.media.container import decode, open_media
from ernerf_ti.media.sound import probe_sound, sound_chunks
from ernerf_ti.media.sound_track import default_track

_BIT_RATE, _PER_FURTHER_CHANNEL = 192_000, 64_000  # bits per second of one or two channels, and of each one more
_AAC_LIMIT = 6  # bits per sample and channel
_SAME_TIME = 0.0005  # s
_MATROSKA_ROUNDING = 0.002  # s; its time stamps are in milliseconds
_PIECE = 4096  # samples
_STANDARD_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")


@dataclass(frozen=True)
class VideoSound:
    """Sound for :class:`ernerf_ti.media.video_writer.VideoWriter`, read while the pictures are written."""

    rate: int
    """Samples per second."""
    layout: str
    """ffmpeg's name of the channels, such as "mono" or "5.1(side)"."""
    chunks: Callable[[int], Iterator[np.ndarray]]
    """Sample rate -> [C, n] float32 pieces of the sound; the rate is the sound's own or one that a codec needs."""
    duration: float | None = None
    """Seconds to which encoded sound is padded with silence or cut; None for all of it."""
    file: Path | None = None
    """Where the sound comes from, unchanged: its packets may be copied."""

    @classmethod
    def of_file(cls, path: Path, duration: float | None = None) -> "VideoSound":
        """The sound of a video or sound file with its rate and channels; errors as of
        :func:`ernerf_ti.media.sound.probe_sound`."""
        info = probe_sound(path)
        return cls(info.rate, info.layout, lambda rate: sound_chunks(path, rate), duration, path)

    @classmethod
    def of_samples(cls, samples: np.ndarray, rate: int) -> "VideoSound":
        """[S] mono, or [C, S], samples in [-1, 1]."""
        samples = np.atleast_2d(np.asarray(samples, np.float32))

        def pieces(wanted: int) -> Iterator[np.ndarray]:
            source = av.AudioResampler(format="flt", layout=layout, rate=wanted) if wanted != rate else None
            for begin in range(0, samples.shape[1], _PIECE):
                piece = samples[:, begin : begin + _PIECE]
                if source is None:
                    yield piece
                else:
                    yield from map(_samples, source.resample(_frame(piece, layout, rate, begin)))
            if source is not None:
                yield from map(_samples, source.resample(None))

        layout = _STANDARD_LAYOUTS[len(samples) - 1]
        return cls(rate, layout, pieces)

    def lasting(self, seconds: float) -> "VideoSound":
        """The same sound for a video of another length."""
        return replace(self, duration=seconds)


def add_sound(
    file: OutputContainer, sound: VideoSound, encoder: str, copied: frozenset[str]
) -> "CopiedSound | EncodedSound":
    """Add a track to an output file.

    Args:
        file: open for writing, without packets so far.
        sound: for the track.
        encoder: of sound that can't be copied.
        copied: codecs of sound that the file takes, by their names in ffmpeg.
    """
    if sound.file is not None:
        first = _exact_start(sound.file, copied, file.format.name)
        if first is not None:
            return CopiedSound(file, sound, first)
    return EncodedSound(file, sound, encoder)


class EncodedSound:
    """A track that is encoded."""

    def __init__(self, file: OutputContainer, sound: VideoSound, encoder: str):
        rate = _supported_rate(encoder, sound.rate)
        channels, layout = _layouts(encoder, rate, sound.layout)
        n_channels = av.AudioLayout(layout).nb_channels
        bit_rate = _bit_rate(encoder, rate, n_channels)
        self._file, self._sound, self._channels = file, sound, channels
        self._stream = cast(AudioStream, file.add_stream(encoder, rate=rate, layout=layout, bit_rate=bit_rate))
        context = self._stream.codec_context
        context.open(strict=False)
        # A codec with a fixed frame size knows it once it is open; others take any.
        self._resampler = av.AudioResampler(
            format=context.format, layout=layout, rate=rate, frame_size=context.frame_size or 1024
        )
        self._rate, self._n = rate, 0
        self._chunks = self._fitted(sound.chunks(rate))

    def write_until(self, time: float) -> None:
        """Write the sound before a time in s."""
        while self._n < time * self._rate and (chunk := next(self._chunks, None)) is not None:
            self.push(chunk)

    def push(self, samples: np.ndarray) -> None:
        """Write [C, n] further samples at the track's own rate."""
        if self._channels == "mono" and len(samples) > 1:
            samples = samples.mean(0, keepdims=True)
        frame = _frame(np.nan_to_num(samples), self._channels, self._rate, self._n)
        self._n += samples.shape[1]
        for part in self._resampler.resample(frame):
            self._file.mux(self._stream.encode(part))

    def finish(self, time: float) -> None:
        """Write the rest; `time` is the end of the pictures in s."""
        self.write_until(float("inf"))
        for part in self._resampler.resample(None):
            self._file.mux(self._stream.encode(part))
        self._file.mux(self._stream.encode(None))

    def close(self) -> None:
        self._chunks.close()

    def _fitted(self, chunks: Iterator[np.ndarray]) -> Generator[np.ndarray, None, None]:
        """The chunks, padded or cut to the duration."""
        if self._sound.duration is None:
            yield from chunks
            return
        left, n_channels = round(self._sound.duration * self._rate), av.AudioLayout(self._channels).nb_channels
        for chunk in chunks:
            n_channels = len(chunk)
            if left <= 0:
                return
            yield chunk[:, :left]
            left -= chunk.shape[1]
        while left > 0:
            yield np.zeros((n_channels, min(left, _PIECE)), np.float32)
            left -= _PIECE


class CopiedSound:
    """A track of packets that are copied from another file."""

    def __init__(self, file: OutputContainer, sound: VideoSound, first: int):
        assert sound.file is not None
        self._file, self._first = file, first
        self._source = open_media(sound.file)
        self._template = default_track(sound.file, self._source)
        self._stream = file.add_stream_from_template(self._template)
        self._packets = (packet for packet in self._source.demux(self._template) if packet.pts is not None)
        self._next: av.Packet | None = next(self._packets, None)

    def write_until(self, time: float) -> None:
        """Write the packets that begin before a time in s."""
        while self._next is not None:
            packet = self._next
            assert packet.pts is not None and packet.time_base is not None
            since_start = packet.pts - self._first
            if since_start * packet.time_base >= time:
                return
            self._next = next(self._packets, None)
            packet.pts = packet.dts = since_start
            packet.stream = self._stream
            self._file.mux(packet)

    def finish(self, time: float) -> None:
        """Write the packets that begin before the end of the pictures."""
        self.write_until(time)

    def close(self) -> None:
        self._source.close()


def _exact_start(path: Path, copied: frozenset[str], container: str) -> int | None:
    """The time stamp of the first sample that is heard if copied packets are heard as the file itself, else None.

    They are if the sound begins with the pictures and has no gaps, and the container keeps its time stamps.
    """
    with open_media(path) as file:
        stream = default_track(path, file)
        codec, tick = stream.codec_context, stream.time_base
        codec_frame = codec.frame_size
        from_matroska, to_matroska = "matroska" in file.format.name, container in ("matroska", "webm")
        name = codec.codec.canonical_name
        if name not in copied or not tick or (name == "aac" and not codec.extradata):  # ADTS has no description
            return None
        if from_matroska != to_matroska and (1 / (tick * stream.rate)).denominator != 1:
            return None
        heard = next(decode(path, file, stream), None)
        if heard is None or heard.pts is None or heard.time_base != tick:
            return None
    if abs(probe_sound(path).start) > _SAME_TIME:
        return None
    tolerance = _MATROSKA_ROUNDING if from_matroska else 0.5 / stream.rate
    # Matroska has no other place for samples that are not heard than the delay of the codec.
    may_begin_early = from_matroska or not to_matroska or name == "opus"
    with open_media(path) as file:
        end = None
        try:
            for packet in file.demux(default_track(path, file)):
                if not packet.size:
                    continue
                length = packet.duration or round(codec_frame / stream.rate / tick)
                if packet.pts is None or not length:
                    return None
                if end is None and packet.pts < heard.pts and not may_begin_early:
                    return None
                if end is not None and abs(packet.pts - end) * tick > tolerance:
                    return None
                end = packet.pts + length
        except av.error.FFmpegError:  # damaged
            return None
    return heard.pts


def _supported_rate(encoder: str, rate: int) -> int:
    """The lowest rate of the encoder that loses nothing, or its highest."""
    rates = av.codec.Codec(encoder, "w").audio_rates
    if not rates or rate in rates:
        return rate
    return min((r for r in rates if r > rate), default=max(rates))


def _layouts(encoder: str, rate: int, layout: str) -> tuple[str, str]:
    """Layout of the samples, and of the track: the same if the encoder takes it, else the nearest one."""
    try:
        n = av.AudioLayout(layout).nb_channels
    except ValueError:  # "6 channels": a file that does not say which
        n = int(layout.split()[0]) if layout.split()[0].isdigit() else 0
        if not 1 <= n <= len(_STANDARD_LAYOUTS):
            return "mono", "mono"
        layout = _STANDARD_LAYOUTS[n - 1]
    # Surround at the sides is the same as at the back to players; AAC and Opus have a standard order for the latter.
    nearest = [layout] if encoder.startswith("pcm") else [layout.replace("(side)", ""), layout]
    if n <= len(_STANDARD_LAYOUTS):
        nearest.append(_STANDARD_LAYOUTS[n - 1])
    for candidate in nearest:
        context = cast(AudioCodecContext, AudioCodecContext.create(encoder, "w"))
        try:
            context.layout, context.sample_rate = candidate, rate
            context.format = (av.codec.Codec(encoder, "w").audio_formats or [])[0]
            context.bit_rate = _bit_rate(encoder, rate, n)
            context.open(strict=False)
        except (av.error.FFmpegError, ValueError):
            continue
        return layout, candidate
    return "mono", "mono"


def _bit_rate(encoder: str, rate: int, n_channels: int) -> int:
    if encoder.startswith("pcm"):
        return 0
    wanted = _BIT_RATE + _PER_FURTHER_CHANNEL * max(0, n_channels - 2)
    return min(wanted, _AAC_LIMIT * rate * n_channels) if encoder == "aac" else wanted


def _frame(samples: np.ndarray, layout: str, rate: int, pts: int) -> av.AudioFrame:
    packed = np.ascontiguousarray(samples.T, np.float32).reshape(1, -1)  # PyAV can't make 8 planes
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """The inverse of :func:`_frame`."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T
