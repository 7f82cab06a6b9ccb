"""The sound of video and sound files, in and out."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soxr
from av.audio.stream import AudioStream
from av.container import OutputContainer

from ernerf_ti.media.sound_track import open_track


@dataclass(frozen=True)
class SoundInfo:
    """Properties of the sound of a file."""

    rate: int
    """Samples per second."""
    channels: int
    layout: str
    """ffmpeg's name of the layout, such as "stereo" or "5.1(side)"."""
    codec: str
    start: float
    """When it begins, in seconds after the first picture of the file; 0 for a file without pictures."""
    duration: float
    """Of the sound track, in seconds."""


def probe_sound(path: Path) -> SoundInfo:
    """Properties of the sound of a file.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file has no sound, or is damaged.
    """
    with open_track(path) as track:
        return SoundInfo(track.rate, track.channels, track.layout, track.codec, track.start, track.duration())


def sound_chunks(path: Path, rate: int | None = None) -> Iterator[np.ndarray]:
    """All channels of a sound from the first picture on, or from the first sound if the file has no pictures.

    Args:
        path: any video or sound file that ffmpeg reads.
        rate: samples per second wanted; None for the file's own.

    Yields:
        [C, n] float32 with any n > 0. Full scale is 1; floating-point files may go beyond. Gaps are silent.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: as :func:`probe_sound`.
    """
    with open_track(path) as track:
        if rate in (None, track.rate):
            yield from track.chunks()
            return
        resampler = soxr.ResampleStream(track.rate, rate, track.channels, dtype="float32", quality="HQ")
        for chunk in track.chunks():
            resampled = resampler.resample_chunk(np.ascontiguousarray(chunk.T))
            if len(resampled):
                yield resampled.T
        rest = resampler.resample_chunk(np.zeros((0, track.channels), np.float32), last=True)
        if len(rest):
            yield rest.T


def read_sound(path: Path, rate: int = 16_000) -> np.ndarray:
    """Read sound and mix it to mono, starting at the first picture of the video if the file has one.

    Args:
        path: any video or sound file that ffmpeg reads.
        rate: samples per second wanted.

    Returns:
        [S] float32 in [-1, 1]. Gaps between packets are silent.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file has no sound, or is damaged.
    """
    samples = bytearray()  # grows in place
    for chunk in sound_chunks(path, rate):
        samples += chunk.mean(0, dtype=np.float32).tobytes()
    return np.clip(np.frombuffer(samples, np.float32), -1, 1)


def mux_sound(file: OutputContainer, stream: AudioStream, samples: np.ndarray, rate: int) -> None:
    """Encode [S] float32 mono samples and write them to a stream of an open output file."""
    context = stream.codec_context
    context.open(strict=False)
    # A codec with a fixed frame size knows it once it is open; others take any.
    resampler = av.AudioResampler(
        format=context.format, layout="mono", rate=context.sample_rate, frame_size=context.frame_size or 1024
    )
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    for chunk in [*resampler.resample(frame), *resampler.resample(None)]:
        file.mux(stream.encode(chunk))
    file.mux(stream.encode(None))
