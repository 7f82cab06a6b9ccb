"""Decoding of a sound stream to floating-point samples, and what is done about damage."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

LOWEST_RATE, HIGHEST_RATE = 1000, 1_536_000
"""Sample rates in Hz that can be; a header that claims another is damaged."""
HIGHEST_SAMPLE = 64.0
"""Above full scale (36 dB); floating-point files beyond it are damaged or hold integers that were never scaled."""
_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}

_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo"}  # where the file does not say


@dataclass(frozen=True)
class Piece:
    """Some samples of one rate and layout."""

    samples: np.ndarray
    """[C, n] float32; full scale is 1."""
    rate: int
    channels: tuple[str, ...]
    """ffmpeg's names, such as FL or FC; NONE where the file does not say."""
    layout: str
    """ffmpeg's name, such as "stereo" or "6 channels"."""
    time: float | None
    """Of the first sample on the clock of the file, in seconds; None if unknown."""


@dataclass
class Findings:
    """What was found and mended while a sound was decoded; times are seconds after the beginning of the sound."""

    gaps: list[tuple[float, float]] = field(default_factory=list)
    """(begin, length) of the gaps, which became silence."""
    overlaps: list[tuple[float, float]] = field(default_factory=list)
    """(begin, length) of the sound that was left out, as its time was taken by the sound before."""
    restarts: list[float] = field(default_factory=list)
    """Where the time stamps began again."""
    drift: float = 0.0
    """Seconds by which the sound was stretched in total to follow the time stamps; negative if compressed."""
    changes: list[tuple[float, str]] = field(default_factory=list)
    """Where the rate or the layout changed, and to what."""
    damaged_start: bool = False
    """The first packets could not be decoded."""
    broken_off: bool = False
    """The last packets could not be decoded."""
    end: float = 0.0
    """Seconds of decoded sound, without silence in gaps."""


def decode_sound(path: Path, file: InputContainer, stream: AudioStream, findings: Findings) -> Iterator[Piece]:
    """Pieces of a stream as it is decoded.

    Packets that can't be decoded are passed over at both ends, as in recordings that begin or end in the middle of
    a packet; anywhere else they are an error.

    Raises ValueError, naming the file, for damaged data and for samples or rates that can't be.
    """
    damaged, first_rate = False, 0
    packets = file.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            raise ValueError(
                f"{path}: ffmpeg can't read the sound on after {findings.end:.2f} s ({error.strerror}); convert the "
                "file, for example to WAV"
            ) from None
        if packet is None:
            break
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):  # PyAV's own, of a decoder that does not start
            damaged = True
            continue
        if damaged and frames and packet.size:  # an empty packet is the end, where decoders hand out what they hold
            if findings.end:
                raise _damaged(path, findings)
            findings.damaged_start, damaged = True, False
        for frame in frames:
            piece = _piece(path, frame, findings)
            first_rate = first_rate or piece.rate
            if piece.rate != first_rate and _counts_samples(stream, first_rate):
                piece = replace(piece, time=None)
            findings.end += piece.samples.shape[1] / piece.rate
            yield piece
    if damaged and not findings.end:
        raise _damaged(path, findings)
    findings.broken_off = damaged


def _counts_samples(stream: AudioStream, rate: int) -> bool:
    """Whether the time stamps of a stream are numbers of samples, which mean nothing once the rate has changed."""
    return stream.time_base is not None and stream.time_base.denominator % rate == 0


def _piece(path: Path, frame: av.AudioFrame, findings: Findings) -> Piece:
    rate, names = frame.sample_rate, tuple(channel.name for channel in frame.layout.channels)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"{path}: expected a sample rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {rate}; convert it to 16 kHz"
        )
    kind, layout, time = frame.format.name, frame.layout.name, frame.time
    samples: np.ndarray
    dtype = np.dtype(_TYPES[kind.removesuffix("p")])
    if frame.format.is_planar and len(names) < 8:
        samples = np.stack([np.frombuffer(bytes(plane), dtype, frame.samples) for plane in frame.planes])
    else:
        # PyAV lists a plane too many of 8 in a planar frame, or fails at it.
        frame = _packed(frame) if frame.format.is_planar else frame
        samples = np.frombuffer(bytes(frame.planes[0]), dtype, frame.samples * len(names)).reshape(-1, len(names)).T
    if dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif dtype.kind == "i":
        samples = samples.astype(np.float32) / np.float32(2.0 ** (8 * dtype.itemsize - 1))
    else:
        wrong = ~(np.abs(samples) <= HIGHEST_SAMPLE)  # true for NaN
        if wrong.any():
            at = np.argwhere(wrong.T)[0]
            raise ValueError(
                f"{path}: expected samples between -1 and 1, got {samples[at[1], at[0]]:g} after "
                f"{findings.end + at[0] / rate:.2f} s; export the sound again"
            )
        samples = samples.astype(np.float32)
    return Piece(samples, rate, names, _LAYOUTS.get(layout, layout), time)


def _packed(frame: av.AudioFrame) -> av.AudioFrame:
    """The same samples, channels side by side."""
    (packed,) = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate).resample(frame)
    return packed


def _damaged(path: Path, findings: Findings) -> ValueError:
    where = f"after {findings.end:.2f} s" if findings.end else "at the start"
    return ValueError(f"{path}: the audio data are damaged {where}; copy or convert the file again")
