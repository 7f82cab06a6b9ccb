"""One sound track of a file, on a time line that begins at the first picture."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
import soxr
from av.audio.stream import AudioStream
from av.container import InputContainer

from ernerf_ti.media.container import LONGEST_GAP, decode, open_media, sound_track, video_track
from ernerf_ti.media.sound_clock import Clock
from ernerf_ti.media.sound_frames import Findings, Piece, decode_sound
from ernerf_ti.media.voice import LevelMeter, Levels


class SoundTrack:
    """An open sound track; made by :func:`open_track`. Its sound can be read once.

    Args:
        path: for messages.
        file: the open file.
        stream: the track.
        first_picture: its time on the clock of the file, in seconds; None if there are no pictures.
    """

    def __init__(self, path: Path, file: InputContainer, stream: AudioStream, first_picture: float | None):
        self._path, self._file, self._stream = path, file, stream
        self.findings = Findings()
        pieces = decode_sound(path, file, stream, self.findings)
        first = next(pieces, None)
        if first is None:
            raise ValueError(f"{path}: the audio track is empty; use a recording with the speaker's voice")
        self._clock = Clock(path, chain([first], pieces), self.findings)
        self.rate, self.channels, self.layout = first.rate, first.channels, first.layout
        self.codec: str = stream.codec_context.name
        start = 0.0 if first_picture is None else self._clock.start - first_picture
        tick = float(stream.time_base or 0)
        self.start: float = 0.0 if abs(start) <= tick / 2 else start
        """When it begins, in seconds after the first picture."""
        if self.start > LONGEST_GAP:
            raise ValueError(
                f"{path}: the sound begins {self.start:.2f} s after the pictures; the time stamps are damaged, "
                "convert the file again"
            )

    def pieces(self) -> Iterator[Piece]:
        """The sound from the first picture on, as it was recorded: rate and channels may change."""
        ahead, heard = self.start, False
        kind = self.rate, self.channels
        if ahead > 0:
            silence = np.zeros((len(self.channels), round(ahead * self.rate)), np.float32)
            yield Piece(silence, self.rate, self.channels, self.layout, None)
        for piece in self._clock.pieces():
            n = piece.samples.shape[1]
            left_out = min(n, max(0, round(-ahead * piece.rate)))
            if (piece.rate, piece.channels) != kind:
                kind = piece.rate, piece.channels
                self.findings.changes.append((ahead - self.start, f"{piece.rate} Hz {piece.layout}"))
            ahead += n / piece.rate
            if n > left_out:
                heard = True
                yield replace(piece, samples=piece.samples[:, left_out:])
        if not heard:
            raise ValueError(
                f"{self._path}: the sound ends {-ahead:.2f} s before the first picture; the time stamps are damaged, "
                "convert the file again"
            )

    def levels(self) -> dict[tuple[str, ...], Levels]:
        """Levels of the channels; more than one entry if the layout changes."""
        meters: dict[tuple[str, ...], LevelMeter] = {}
        for piece in self.pieces():
            meters.setdefault(piece.channels, LevelMeter(len(piece.channels))).add(piece.samples)
        return {channels: meter.levels() for channels, meter in meters.items()}

    def mixed(self, mixes: Mapping[tuple[str, ...], np.ndarray] = MappingProxyType({})) -> Iterator[np.ndarray]:
        """[K, n] float32 at the rate of the beginning.

        Args:
            mixes: channels -> [K, C] what they are multiplied with; others are mixed to those of the beginning.
        """
        for (rate, channels), pieces in groupby(self.pieces(), lambda piece: (piece.rate, piece.channels)):
            mix = mixes.get(channels, _folding(channels, self.channels))
            same = np.array_equal(mix, np.eye(len(channels)))
            samples = (piece.samples if same else mix @ piece.samples for piece in pieces)
            yield from resample(samples, len(mix), rate, self.rate)


@contextmanager
def open_track(path: Path) -> Iterator[SoundTrack]:
    """The sound track of a video or sound file: the default one of several, or else the first.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file has no sound, or is damaged.
    """
    with open_media(path) as file:
        first_picture = _first_picture(path, file)
    with open_media(path) as file:
        yield SoundTrack(path, file, default_track(path, file), first_picture)


def default_track(path: Path, file: InputContainer) -> AudioStream:
    """Raises ValueError if there is no track that can be decoded."""
    if not file.streams.audio:
        raise ValueError(f"{path}: no audio track; use a recording with the speaker's voice")
    track = sound_track(file)
    if track is None:
        raise ValueError(f"{path}: ffmpeg does not know the codec of the audio track; convert it to AAC or WAV")
    return track


def track_seconds(path: Path) -> float:
    """Length of the sound track by its packets, as headers claim more than a broken file holds."""
    with open_media(path) as file:
        stream = default_track(path, file)
        ticks = 0
        with suppress(av.error.FFmpegError):
            ticks = sum(packet.duration or 0 for packet in file.demux(stream))
        lengths = filter(None, (ticks, stream.duration))
        return float(min(lengths, default=0) * (stream.time_base or 0))


def resample(chunks: Iterable[np.ndarray], n_channels: int, rate: int, wanted: int) -> Iterator[np.ndarray]:
    """[C, n] float32 chunks at another rate, without delay; none are empty."""
    if rate == wanted:
        yield from chunks
        return
    resampler = soxr.ResampleStream(rate, wanted, n_channels, dtype="float32", quality="HQ")
    end = np.zeros((n_channels, 0), np.float32)
    for chunk, last in chain(((chunk, False) for chunk in chunks), [(end, True)]):
        resampled = resampler.resample_chunk(np.ascontiguousarray(chunk.T), last=last)
        if len(resampled):
            yield resampled.reshape(-1, n_channels).T


def _first_picture(path: Path, file: InputContainer) -> float | None:
    pictures = video_track(file)
    if pictures is None:
        return None
    with suppress(ValueError):  # the sound may be whole where the pictures are not
        first = next(decode(path, file, pictures), None)
        return first.time or 0.0 if first is not None else None
    return float((pictures.start_time or 0) * (pictures.time_base or 0))


def _folding(channels: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """[C wanted, C] float32: channels go to those of their name, the center to left and right where there is none."""
    folding: np.ndarray = np.zeros((len(wanted), len(channels)), np.float32)
    if len(wanted) == 1 and "FC" not in channels:
        folding[:, :2] = 1 / min(2, len(channels))
    elif len(channels) == 1 and "FC" not in wanted:
        folding[:2] = 1
    elif "NONE" in (*channels, *wanted):
        np.fill_diagonal(folding, 1)
    else:
        folding[:] = np.equal.outer(wanted, channels)
        if "FC" in channels and "FC" not in wanted:
            folding[:2, channels.index("FC")] = np.sqrt(0.5)  # as in ITU-R BS.775
    return folding
