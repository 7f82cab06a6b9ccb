"""Small clips with flashes and beeps, and when they are seen and heard."""

from fractions import Fraction

import av
import numpy as np

HEIGHT, WIDTH = 48, 64

SOUND_RATE = 44_100

TICK = Fraction(1, 90_000)


def picture(level, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), level, np.uint8)


def beeps(times, length, rate=SOUND_RATE):
    """Silence of `length` seconds with a tone of 0.1 s at each time."""
    samples = np.zeros(round(length * rate), np.float32)
    tone = 0.5 * np.sin(np.arange(rate // 10) * (2 * np.pi * 1000 / rate))
    for time in times:
        samples[round(time * rate) :][: len(tone)] = tone
    return samples


def onsets_of_flashes(frames, rate=25):
    bright = np.array([frame.mean() > 128 for frame in frames])
    return np.flatnonzero(bright & ~np.r_[False, bright[:-1]]) / rate


def onsets_of_beeps(samples, rate=16_000):
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    return loud[np.r_[True, np.diff(loud) > rate // 20]] / rate


def encode(path, times, images, pieces=(), codec=("libx264", "aac"), container=None):
    """Write pictures at any times, and pieces of mono sound (begin in s, samples)."""
    with av.open(str(path), "w", format=container) as file:
        if len(images):
            stream = file.add_stream(codec[0], rate=25)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt, stream.time_base = "yuv420p", TICK
            stream.codec_context.time_base = TICK
        if pieces:
            sound = file.add_stream(codec[1], rate=SOUND_RATE, layout="mono")
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / TICK), TICK
            file.mux(stream.encode(frame))
        if len(images):
            file.mux(stream.encode(None))
        for begin, samples in pieces:
            for i in range(0, len(samples) - 1023, 1024):
                part = av.AudioFrame.from_ndarray(samples[None, i : i + 1024], format="fltp", layout="mono")
                part = av.AudioResampler(format=sound.format, layout="mono", rate=SOUND_RATE).resample(
                    _stamped(part, round(begin * SOUND_RATE) + i)
                )
                file.mux([packet for piece in part for packet in sound.encode(piece)])
        if pieces:
            file.mux(sound.encode(None))
    return path


def _stamped(frame, pts):
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, pts, Fraction(1, SOUND_RATE)
    return frame
