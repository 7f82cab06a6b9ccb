"""What to know about a sound before it is used."""

import sys
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from tqdm import tqdm

from ernerf_ti.media.container import open_media, video_track
from ernerf_ti.media.sound import mixed_sound
from ernerf_ti.media.sound_frames import Findings
from ernerf_ti.media.sound_track import default_track, open_track
from ernerf_ti.media.voice import Levels, voice_weights

_RATE = 16_000  # Hz, of the audio features
_FRAME = 640  # samples, 40 ms
_SILENT_DB = -70.0  # a frame below holds nothing
_LEAST_FRAMES = 5  # fewer that hold something are a click
_QUIET_DB = -40.0  # of the loudest tenth of the other frames
_PAUSE_DB, _PAUSES = 30.0, 0.6  # frames that much quieter than speech are pauses; more of them than this are said
_CLIPPED = 1e-3  # fraction of the samples
_DIRECT_CURRENT = 0.01
_SAID_OFFSET, _SAID_LENGTH = 0.04, 0.5  # s, between sound and pictures
_MOST_CHUNKS = 100  # of a WAV file, before that with the samples
_BROKEN_OFF = 0.2  # s less than the header says
_STATED_LENGTH = {"aiff", "caf", "flac", "w64", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"}
"""Formats whose header states the length; ffmpeg guesses it for the others."""


def sound_notes(path: Path) -> list[str]:
    """What is done to a sound, and what spoils it, each with the measured value; empty if there is nothing to say.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file has no sound, or is damaged.
    """
    with open_track(path) as track:
        levels, findings = track.levels(), track.findings
        rate, channels, layout, start = track.rate, track.channels, track.layout, track.start
    with open_media(path) as file:
        notes = [*_of_file(path, file, default_track(path, file), start, findings), *_of_decoding(findings, start)]
    if rate < _RATE:
        notes.append(f"low sample rate: {rate} Hz, nothing above {rate // 2} Hz; record at {_RATE} Hz or more")
    if findings.changes:
        changes = ", ".join(f"{what} from {at:.2f} s on" for at, what in findings.changes[:5])
        notes.append(f"the sound changes: {rate} Hz {layout} at the beginning, {changes}; all is brought to the first")
    chosen = {names: voice_weights(names, level) for names, level in levels.items()}
    notes += [note for _, note in chosen.values() if note]
    mixes = {names: weights for names, (weights, _) in chosen.items()}
    return notes + _of_levels(levels[channels], mixes[channels] > 0) + _of_voice(mixed_sound(path, mixes, _RATE))


def print_sound_notes(path: Path) -> None:
    """Print :func:`sound_notes`, which raises for sound that can't be read, on standard error."""
    for note in sound_notes(path):
        tqdm.write(f"{path}: {note}", file=sys.stderr)


def _of_file(path: Path, file: InputContainer, stream: AudioStream, start: float, findings: Findings) -> list[str]:
    notes = []
    if len(file.streams.audio) > 1:
        number = 1 + list(file.streams.audio).index(stream)
        notes.append(f"{len(file.streams.audio)} audio tracks: track {number}, the default, is used")
    end = findings.end + sum(length for _, length in findings.gaps)
    stated = _stated_seconds(path, file, stream)
    if stated is not None and stated - end > _BROKEN_OFF:
        notes.append(f"broken off: the file states {stated:.2f} s of sound, but holds {end:.2f} s")
    elif findings.broken_off:
        notes.append(f"broken off: the sound ends in the middle of a packet, after {end:.2f} s")
    pictures = video_track(file)
    if pictures is not None and pictures.duration and pictures.time_base:
        longer = start + end - float(pictures.duration * pictures.time_base)
        if abs(longer) > _SAID_LENGTH:
            notes.append(f"the sound ends {abs(longer):.2f} s {'after' if longer > 0 else 'before'} the pictures")
    return notes


def _stated_seconds(path: Path, file: InputContainer, stream: AudioStream) -> float | None:
    """Length of the sound by the header; None if it does not say."""
    if file.format.name == "wav":
        return _stated_seconds_of_wav(path, stream)
    # Only an MP3 file with a header has a delay of the encoder, which ffmpeg turns into a start.
    if file.format.name not in _STATED_LENGTH and not (file.format.name == "mp3" and stream.start_time):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if not file.duration or video_track(file) is not None:
        return None
    return (file.duration - max(0, file.start_time or 0)) / av.time_base


def _stated_seconds_of_wav(path: Path, stream: AudioStream) -> float | None:
    """ffmpeg takes the size of the file instead."""
    context = stream.codec_context
    bytes_per_second = (context.bit_rate or 0) // 8
    with open(path, "rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return None
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                # Programs that do not know the size beforehand write the largest.
                return size / bytes_per_second if bytes_per_second and size < 0x7FFF0000 else None
            file.seek(size + size % 2, 1)
    return None


def _of_decoding(findings: Findings, start: float) -> list[str]:
    notes = []
    if findings.damaged_start:
        notes.append("the first packets can't be decoded; the sound begins after them")
    if start > _SAID_OFFSET:
        notes.append(f"the sound begins {start:.2f} s after the pictures; there is silence before")
    if start < -_SAID_OFFSET:
        notes.append(f"the sound begins {-start:.2f} s before the pictures; that much of it is left out")
    for places, what, done in (
        (findings.gaps, "gap", "filled with silence"),
        (findings.overlaps, "overlap", "left out"),
    ):
        if places:
            where = f"{len(places)} {what}{'s' * (len(places) > 1)}, the first at {places[0][0]:.2f} s"
            total = sum(length for _, length in places)
            notes.append(f"time stamps of the sound: {where}; {total:.2f} s in total {done}")
    if findings.restarts:
        where = ", ".join(f"{at:.2f} s" for at in findings.restarts[:5])
        notes.append(f"the time stamps of the sound begin again at {where}; the parts are joined")
    if abs(findings.drift) > _SAID_OFFSET:
        verb = "stretched" if findings.drift > 0 else "compressed"
        notes.append(f"the sound does not keep to its time stamps: {verb} by {abs(findings.drift):.2f} s in total")
    return notes


def _of_levels(levels: Levels, used: np.ndarray) -> list[str]:
    notes = []
    clipped, peak = levels.clipped[used].max(), levels.peak[used].max()
    if clipped > _CLIPPED:
        above = f", up to {20 * np.log10(peak):.1f} dB above it, which is cut off" if peak > 1.01 else ""
        notes.append(f"clipped sound: {clipped:.2%} of the samples at full scale{above}; record at a lower level")
    offset = levels.mean[used][np.abs(levels.mean[used]).argmax()]
    if abs(offset) > _DIRECT_CURRENT:
        notes.append(f"DC offset: the mean of the samples is {offset:.3f} of full scale; filter it out")
    return notes


def _of_voice(samples: np.ndarray) -> list[str]:
    samples = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    frames = np.pad(samples, (0, -len(samples) % _FRAME)).reshape(-1, _FRAME)
    loudness = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    filled = loudness[loudness > _SILENT_DB]
    if len(filled) < min(_LEAST_FRAMES, len(loudness)):
        return [f"no sound: the audio track is silent ({np.median(loudness):.0f} dBFS)"]
    speech = float(np.percentile(filled, 90))
    notes = []
    if speech < _QUIET_DB:
        notes.append(f"quiet sound: speech at {speech:.0f} dBFS; record from closer or at a higher level")
    pauses = float((loudness < speech - _PAUSE_DB).mean())
    if pauses > _PAUSES:
        notes.append(f"little speech: {pauses:.0%} of the sound is silence")
    return notes
