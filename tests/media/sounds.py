"""Small sound files of any kind, and when and how loud their tones are heard."""

from fractions import Fraction

import av
import numpy as np

ONSETS = [0.2, 0.7]


def tones(rate, level=0.5, length=1.0, onsets=ONSETS, hertz=1000):
    """[n] float32: silence with a tone of 0.1 s at each onset."""
    samples = np.zeros(round(length * rate), np.float32)
    tone = level * np.sin(2 * np.pi * hertz * np.arange(rate // 10) / rate)
    for onset in onsets:
        samples[round(onset * rate) :][: len(tone)] = tone
    return samples


def heard(samples, rate=16_000, level=0.05):
    """Seconds of the onsets of tones."""
    loud = np.flatnonzero(np.abs(samples) > level)
    return loud[np.r_[True, np.diff(loud) > rate // 20]] / rate if len(loud) else loud


def write(path, codec, samples, rate, layout="mono", start=0.0, pictures=0, stamps=None, container=None, **options):
    """Write [C, n] or [n] samples to a file.

    Args:
        start: time of the first sample, in seconds.
        pictures: number of them, 25 per second, from 0 s on.
        stamps: time of a packet in seconds -> its time stamp in seconds, None to leave the packet out.
        options: of the encoder.
    """
    samples = np.atleast_2d(samples).astype(np.float32)
    with av.open(str(path), "w", format=container) as file:
        if pictures:
            kind = {".webm": "libvpx", ".flv": "flv"}.get(path.suffix, "mpeg4")
            video = file.add_stream(kind, rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.thread_count = 1  # threads of libvpx wait for each other busily, once for eleven minutes
        sound = add_sound(file, codec, rate, layout, **options)
        for k in range(pictures):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            file.mux(video.encode(frame))
        if pictures:
            file.mux(video.encode(None))
        encode(file, sound, samples, start, stamps)
    return path


def add_sound(file, codec, rate, layout, **options):
    stream = file.add_stream(codec, rate=rate, layout=layout, options=options)
    stream.codec_context.open(strict=False)
    return stream


def encode(file, stream, samples, start=0.0, stamps=None):
    context = stream.codec_context
    rate, layout = context.sample_rate, context.layout
    packets = []
    # Packed samples: PyAV can't make planar frames of 8 channels.
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T).reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or 1024)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        part.pts, part.time_base = round(part.pts * part.time_base * rate + start * rate), Fraction(1, rate)
        packets += stream.encode(part)
    for packet in [*packets, *stream.encode(None)]:
        if stamps is not None:
            time = stamps(float(packet.pts * packet.time_base))
            if time is None:
                continue
            packet.pts = packet.dts = round(time / packet.time_base)
        file.mux(packet)
