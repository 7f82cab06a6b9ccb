"""The sound of video and sound files, in and out."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

from ernerf_ti.media.container import LONGEST_GAP, decode, open_media

_ROUNDING = 0.04  # s; a longer gap between packets is silence, a shorter one is rounding of the time stamps
_LOWEST_RATE = 1000  # Hz; a header that claims less is damaged, and resampling would take memory without end


def read_sound(path: Path, rate: int = 16_000) -> np.ndarray:
    """Read sound and mix it to mono, starting at the first frame of the video if the file has one.

    Args:
        path: any video or sound file that ffmpeg reads.
        rate: samples per second wanted.

    Returns:
        [S] float32 in [-1, 1]. Gaps between packets are silent.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file has no sound, or is damaged.
    """
    start_time = 0.0
    with open_media(path) as file:
        if not file.streams.audio:
            raise ValueError(f"{path}: no audio track; use a recording with the speaker's voice")
        if file.streams.video:
            first = next(decode(path, file, file.streams.video[0]), None)
            start_time = first.time or 0.0 if first is not None else 0.0
    with open_media(path) as file:
        stream = file.streams.audio[0]
        if stream.rate < _LOWEST_RATE:
            raise ValueError(
                f"{path}: expected a sample rate of at least {_LOWEST_RATE} Hz, got {stream.rate}; convert it to 16 kHz"
            )
        # Averaged here: ffmpeg's own mix of two equal channels is 3 dB louder, and clips.
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        chunks, n_samples = [], 0
        end = None  # of the packet before, s
        for frame in decode(path, file, stream):
            time = frame.time if frame.time is not None else (start_time if end is None else end)
            if end is None:
                delay = round((time - start_time) * rate)
            elif time - end > _ROUNDING:
                if time - end > LONGEST_GAP:
                    raise ValueError(
                        f"{path}: no sound from {end:.2f} to {time:.2f} s; the time stamps are damaged, convert the "
                        "file again"
                    )
                silence = max(0, round((time - start_time) * rate) - delay - n_samples)
                chunks.append(np.zeros(silence, np.float32))
                n_samples += silence
            end = time + frame.samples / frame.sample_rate
            for chunk in resampler.resample(frame):
                chunks.append(chunk.to_ndarray().mean(0))
                n_samples += chunk.samples
        chunks += [chunk.to_ndarray().mean(0) for chunk in resampler.resample(None)]
    if end is None:
        raise ValueError(f"{path}: the audio track is empty; use a recording with the speaker's voice")
    samples = np.concatenate(chunks)
    return np.clip(np.pad(samples, (delay, 0)) if delay > 0 else samples[-delay:], -1, 1)


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
