"""The sound of video and sound files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ernerf_ti.media.sound_track import open_track, resample, track_seconds
from ernerf_ti.media.voice import voice_weights


@dataclass(frozen=True)
class SoundInfo:
    """Properties of the sound of a file."""

    rate: int
    """Samples per second."""
    channels: int
    layout: str
    """ffmpeg's name of the layout, such as "stereo" or "5.1(side)"; "6 channels" if the file does not name them."""
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
        rate, n_channels, codec = track.rate, len(track.channels), track.codec
        return SoundInfo(rate, n_channels, track.layout, codec, track.start, track_seconds(path))


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
        yield from resample(track.mixed(), len(track.channels), track.rate, rate or track.rate)


def read_sound(path: Path, rate: int = 16_000) -> np.ndarray:
    """The voice in a sound, from the first picture on, or from the first sound if the file has no pictures.

    Stereo is averaged, unless one side is at least 20 dB quieter or both cancel each other: then the louder one is
    taken. Of surround sound the center is taken, of channels without names the loudest; each at its full level.

    Args:
        path: any video or sound file that ffmpeg reads.
        rate: samples per second wanted.

    Returns:
        [S] float32, clipped to [-1, 1]. Gaps in the time stamps are silent, and sound that does not keep to them is
        stretched by up to 1 percent.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file has no sound, or is damaged.
    """
    with open_track(path) as track:
        mixes = {}
        if len(track.channels) > 1:
            mixes = {channels: voice_weights(channels, levels)[0] for channels, levels in track.levels().items()}
    return mixed_sound(path, mixes, rate)


def mixed_sound(path: Path, mixes: Mapping[tuple[str, ...], np.ndarray], rate: int) -> np.ndarray:
    """A sound in one channel.

    Args:
        path: any video or sound file that ffmpeg reads.
        mixes: names of channels -> [C] their weights, for each layout that the sound has; sound in mono needs none.
        rate: samples per second wanted.

    Returns:
        [S] float32, clipped to [-1, 1].
    """
    rows = {channels: weights[None] for channels, weights in mixes.items()}
    samples = bytearray()  # grows in place
    with open_track(path) as track:
        for chunk in resample(track.mixed(rows), 1, track.rate, rate):
            samples += chunk.tobytes()
    voice = np.frombuffer(samples, np.float32)
    return np.clip(voice, -1, 1, out=voice)
