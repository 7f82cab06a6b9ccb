"""Videos whose pixels are coded here, by the formulas of the standards, not by those of ffmpeg."""

from fractions import Fraction

import av
import numpy as np

LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Matrix coefficients of ITU-T H.273 -> weights of red and blue."""


def chart(height=48, width=64):
    """[H, W, 3] R'G'B' in [0, 1]: twelve large patches, gray and colored, none at the limits."""
    values = np.array(
        [
            *((0.1, 0.1, 0.1), (0.35, 0.35, 0.35), (0.6, 0.6, 0.6), (0.8, 0.8, 0.8)),
            *((0.75, 0.55, 0.45), (0.45, 0.28, 0.2), (0.7, 0.3, 0.3), (0.3, 0.6, 0.35)),
            *((0.25, 0.35, 0.7), (0.7, 0.65, 0.25), (0.6, 0.3, 0.6), (0.3, 0.6, 0.65)),
        ]
    ).reshape(3, 4, 3)
    return values.repeat(height // 3, 0).repeat(width // 4, 1)


def patches(image):
    """[12, 3] colors in the middle of each patch of a chart of any size."""
    height, width = image.shape[:2]
    rows, columns = ((np.arange(n) * 2 + 1) * side // (2 * n) for n, side in ((3, height), (4, width)))
    return image[rows][:, columns].reshape(12, 3).astype(float)


def coded(rgb, pixels="yuv420p", matrix=1, full=False):
    """A frame of ffmpeg with [H, W, 3] R'G'B' in [0, 1], in a planar pixel format."""
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pixels)
    components = frame.format.components
    top = (1 << components[0].bits) - 1
    if pixels.startswith("gbr"):
        planes = [top * rgb[..., c] for c in (1, 2, 0)]
    else:
        red, blue = LUMA[matrix]
        luma = rgb @ (red, 1 - red - blue, blue)
        chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
        unit = (top + 1) / 256
        planes = [top * luma if full else unit * (16 + 219 * luma)]
        planes += [unit * 128 + (top if full else unit * 224) * part for part in chroma]
    for plane, values in zip(frame.planes, planes, strict=False):
        step = frame.height // plane.height, frame.width // plane.width
        _fill(plane, values[:: step[0], :: step[1]], top)
    if components[-1].is_alpha:
        _fill(frame.planes[3], np.full(rgb.shape[:2], top), top)
    return frame


def _fill(plane, values, top):
    kind = np.uint8 if top < 256 else np.uint16
    rows = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
    rows[:, : values.shape[1]] = np.round(values)
    plane.update(rows.tobytes())


def write(path, frames, codec="ffv1", rate=25, times=None, aspect=None, options=(), tags=(), live=False, **stream):
    """Encode frames.

    Args:
        path: its suffix chooses the container.
        frames: of one format.
        codec: of ffmpeg.
        rate: frames per second.
        times: in seconds, in place of the rate.
        aspect: width of a pixel, relative to its height.
        options: of the encoder.
        tags: primaries, transfer, matrix, range by ITU-T H.273, where known.
        live: whether to write a file of Matroska as browsers do, without its duration and its sizes.
        stream: properties of the encoder's context.
    """
    tick = Fraction(1, 90_000) if times is not None else 1 / Fraction(rate)
    with av.open(str(path), "w", options={"live": "1"} if live else {}) as file:
        video = file.add_stream(codec, rate=rate, options=dict(options))
        context = video.codec_context
        video.width, video.height, video.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context.time_base = tick
        if aspect is not None:
            context.sample_aspect_ratio = Fraction(aspect)
        for name, value in zip(("color_primaries", "color_trc", "colorspace", "color_range"), tags, strict=False):
            setattr(context, name, value)
        for name, value in stream.items():
            setattr(context, name, value)
        for k, frame in enumerate(frames):
            frame.pts, frame.time_base = (k if times is None else round(times[k] / tick)), tick
            for name, value in zip(("color_primaries", "color_trc", "colorspace", "color_range"), tags, strict=False):
                setattr(frame, name, value)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    return path
