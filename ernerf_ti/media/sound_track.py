"""Decoding of one sound track onto a time line that begins at the first picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from ernerf_ti.media.container import LONGEST_GAP, decode, open_media

_ROUNDING = 0.04  # s; a longer gap between packets is silence, a shorter one is rounding of the time stamps
_LOWEST_RATE = 1000  # Hz; a header that claims less is damaged, and resampling would take memory without end


class SoundTrack:
    """An open sound track; made by :func:`open_track`."""

    def __init__(self, path: Path, file: InputContainer, stream: AudioStream, first_picture: float | None):
        self._path, self._file, self._stream = path, file, stream
        self._frames: Iterator[av.AudioFrame] = decode(path, file, stream)
        first = next(self._frames, None)
        if first is None:
            raise ValueError(f"{path}: the audio track is empty; use a recording with the speaker's voice")
        self._frames = chain([first], self._frames)
        self.rate: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self.layout: str = first.layout.name
        self.codec: str = stream.codec_context.name
        begin = first.time or 0.0
        self._origin = begin if first_picture is None else first_picture
        self.start: float = begin - self._origin
        if self.rate < _LOWEST_RATE:
            raise ValueError(
                f"{path}: expected a sample rate of at least {_LOWEST_RATE} Hz, got {self.rate}; convert it to 16 kHz"
            )

    def duration(self) -> float:
        """In seconds."""
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return (self._file.duration or 0) / av.time_base

    def chunks(self) -> Iterator[np.ndarray]:
        """[C, n] float32 at the track's own rate, from the first picture on."""
        position = 0  # samples since the first picture
        end = None  # of the frame before, s
        skip = 0  # samples before the first picture
        for frame in self._frames:
            time = frame.time - self._origin if frame.time is not None else (end or 0.0)
            samples = _as_float(frame)
            if end is None:
                position = -round(-time * self.rate) if time < 0 else 0
                silence = max(0, round(time * self.rate))
            else:
                silence = max(0, round(time * self.rate) - position) if time - end > _ROUNDING else 0
            if silence > LONGEST_GAP * self.rate:
                raise ValueError(
                    f"{self._path}: no sound from {end or 0.0:.2f} to {time:.2f} s; the time stamps are damaged, "
                    "convert the file again"
                )
            end = time + frame.samples / frame.sample_rate
            if silence:
                yield np.zeros((self.channels, silence), np.float32)
            position += silence
            skip = min(samples.shape[1], max(0, -position))
            position += samples.shape[1]
            if samples.shape[1] > skip:
                yield samples[:, skip:]


@contextmanager
def open_track(path: Path) -> Iterator[SoundTrack]:
    """The sound track of a video or sound file.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file has no sound, or is damaged.
    """
    first_picture = None
    with open_media(path) as file:
        if not file.streams.audio:
            raise ValueError(f"{path}: no audio track; use a recording with the speaker's voice")
        pictures = [stream for stream in file.streams.video if not stream.disposition & Disposition.attached_pic]
        if pictures:
            first = next(decode(path, file, pictures[0]), None)
            first_picture = first.time or 0.0 if first is not None else None
    with open_media(path) as file:
        yield SoundTrack(path, file, file.streams.audio[0], first_picture)


def _as_float(frame: av.AudioFrame) -> np.ndarray:
    """[C, n] float32; integers are divided by their full scale."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)
