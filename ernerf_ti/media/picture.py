"""Decoded pictures as they are shown: progressive, upright, with square pixels, in BT.709 colors."""

import contextlib
import struct
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from ernerf_ti.media.color import Encoding, cube_text, encoding

_UNSPECIFIED = 2  # of matrix coefficients, transfer and primaries, ITU-T H.273
_BT709, _BT601, _BT2020 = 1, 5, 9
_MATRICES = {0, _BT709, 4, _BT601, 6, 7, _BT2020}  # that swscale knows; 0 is RGB
_IPT = 15  # of Dolby Vision, profile 5
_LIMITED_GRAY = {"h264", "hevc", "mpeg2video", "vp9", "libvpx-vp9", "av1", "libdav1d", "prores"}
_DOLBY_TAGS = {"dvh1", "dvhe", "dvav", "dva1", "dav1"}
_SIDE_DATA = (
    *("DISPLAYMATRIX", "CONTENT_LIGHT_LEVEL", "MASTERING_DISPLAY_METADATA"),
    *("DOVI_METADATA", "DOVI_RPU_BUFFER"),
)
# Without these flags swscale repeats the chroma of its neighbor and rounds down.
_EXACT = 4 | 0x2000 | 0x40000  # SWS_BICUBIC, SWS_FULL_CHR_H_INT, SWS_ACCURATE_RND: older PyAV names the first alone
_TICK = Fraction(1, 1000)
_EXPANDED = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
LARGEST_SIDE = 16_384
"""In pixels, of a picture as it is shown."""


@dataclass(frozen=True)
class Look:
    """What a decoded frame says about how to show it."""

    matrix: int
    full_range: bool
    encoding: Encoding | None
    turn: tuple[bool, bool, bool]
    """Whether to exchange rows and columns, then to mirror left and right, then to mirror top and bottom."""
    interlaced: bool

    @classmethod
    def of(cls, path: Path, stream: VideoStream, frame: av.VideoFrame) -> "Look":
        """Raises ValueError for colors that can't be converted."""
        context = stream.codec_context
        # PyAV before 17 has these on the codec alone.
        transfer = int(getattr(frame, "color_trc", context.color_trc))
        primaries = int(getattr(frame, "color_primaries", context.color_primaries))
        matrix = int(frame.colorspace)
        data = _side_data(frame)
        dolby = context.codec_tag in _DOLBY_TAGS or "DOVI_METADATA" in data or "DOVI_RPU_BUFFER" in data
        if matrix == _IPT or (dolby and transfer == _UNSPECIFIED):
            raise ValueError(
                f"{path}: Dolby Vision without a compatible base layer (profile 5), whose colors can't be converted; "
                "export the video as SDR or HDR10"
            )
        source = encoding(transfer, primaries, _peak(data))
        rgb = frame.format.is_rgb
        if matrix == _UNSPECIFIED:
            # As players guess: BT.709 for high definition.
            high = frame.width >= 1280 or frame.height > 576
            matrix = _BT2020 if source is not None and source.primaries == _BT2020 else _BT709 if high else _BT601
        if matrix not in _MATRICES and not rgb:
            raise ValueError(
                f"{path}: the colors are coded in a way that can't be converted (matrix coefficients {matrix} of ITU-T "
                "H.273); convert the video to BT.709"
            )
        stated = int(frame.color_range)
        full = stated == 2 or rgb or frame.format.name.startswith("yuvj")
        # As in pictures, which have no other range, but not in codecs for video.
        full |= stated == 0 and _is_gray(frame) and context.name not in _LIMITED_GRAY
        interlaced = frame.interlaced_frame or _field_order(stream) > 1
        return cls(matrix, full, source, _turn(data.get("DISPLAYMATRIX")), interlaced)

    def shown_size(self, frame: av.VideoFrame, aspect: Fraction) -> tuple[int, int]:
        """Width and height with square pixels."""
        width, height = max(1, round(frame.width * aspect)), frame.height
        return (height, width) if self.turn[0] else (width, height)


class Shown(NamedTuple):
    """A frame, when it is shown, and how."""

    time: float
    """In seconds."""
    look: Look
    frame: av.VideoFrame


class Converter:
    """Turns decoded frames into arrays of one size."""

    def __init__(self, aspect: Fraction, size: tuple[int, int]):
        """
        Args:
            aspect: width of a pixel, relative to its height.
            size: width and height of all results, in pixels. Pictures of another shape get black borders.
        """
        self._aspect, self._size = aspect, size
        self._table: tuple[object, Graph] | None = None
        self._n_looked_up = 0

    def __call__(self, frame: av.VideoFrame, look: Look) -> np.ndarray:
        """[H, W, 3] uint8 RGB."""
        shown = look.shown_size(frame, self._aspect)
        scale = min(self._size[0] / shown[0], self._size[1] / shown[1])
        # Without borders of a pixel or two, which are rounding.
        fitted = [
            b if abs(scale * a - b) < 2 else max(1, round(scale * a)) for a, b in zip(shown, self._size, strict=True)
        ]
        width, height = fitted[::-1] if look.turn[0] else fitted
        image = self._convert(frame, look, width, height)
        transposed, mirrored, flipped = look.turn
        if transposed:
            image = image.swapaxes(0, 1)
        image = np.ascontiguousarray(image[:: -1 if flipped else 1, :: -1 if mirrored else 1])
        right, below = self._size[0] - image.shape[1], self._size[1] - image.shape[0]
        if right or below:
            image = cv2.copyMakeBorder(
                image, below // 2, below - below // 2, right // 2, right - right // 2, cv2.BORDER_CONSTANT
            )
        return image

    def _convert(self, frame: av.VideoFrame, look: Look, width: int, height: int) -> np.ndarray:
        target = "gbrp16le" if look.encoding is not None else "rgba" if has_alpha(frame) else "rgb24"
        image = frame.reformat(
            *(width, height, target, look.matrix or None),
            interpolation=_EXACT,
            src_color_range=2 if look.full_range else 1,
            dst_color_range=2,
        )
        if look.encoding is not None:
            # swscale shifts the bits up, so that white is less than the largest number.
            bits = frame.format.components[0].bits
            white = ((1 << bits) - 1 << 16 - bits if look.full_range else 0xFF00) / 0xFFFF
            return _eight_bits(self._look_up(image, look.encoding, white))
        values: np.ndarray = image.to_ndarray()
        if _is_gray(frame) and not look.full_range:  # swscale takes gray for full range, whatever it is told
            values = cv2.LUT(values, _EXPANDED)
        return over_black(values) if values.shape[2] == 4 else values

    def _look_up(self, image: av.VideoFrame, source: Encoding, white: float) -> av.VideoFrame:
        key = source, white, image.width, image.height
        if self._table is None or self._table[0] != key:
            graph = Graph()
            pixels = VideoFormat(image.format.name)
            pictures = graph.add_buffer(width=image.width, height=image.height, format=pixels, time_base=_TICK)
            with tempfile.TemporaryDirectory() as folder:
                table = Path(folder) / "colors.cube"
                table.write_text(cube_text(source, white))
                colors = graph.add("lut3d", file=str(table), interp="tetrahedral")
                graph.link_nodes(pictures, colors, graph.add("buffersink")).configure()
            self._table = key, graph
        graph = self._table[1]
        image.pts, image.time_base = self._n_looked_up, _TICK
        self._n_looked_up += 1
        graph.push(image)
        return graph.vpull()


def _eight_bits(image: av.VideoFrame) -> np.ndarray:
    """[H, W, 3] uint8 RGB of a frame in gbrp16le. swscale takes four times as long."""
    green, blue, red = (
        np.frombuffer(memoryview(plane), np.uint16).reshape(plane.height, -1)[:, : plane.width]
        for plane in image.planes
    )
    return cv2.merge([cv2.convertScaleAbs(plane, alpha=1 / 257) for plane in (red, green, blue)])


def has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _is_gray(frame: av.VideoFrame) -> bool:
    return frame.format.name.startswith("gray")


def over_black(image: np.ndarray) -> np.ndarray:
    """[H, W, 4] RGBA with straight alpha -> [H, W, 3], both uint8."""
    return np.round(image[..., :3] * (image[..., 3:] / np.float32(255))).astype(np.uint8)


class Deinterlacer:
    """Passes frames on, those from the first interlaced one through ffmpeg's bwdif: one picture for each frame."""

    def __init__(self, stream: VideoStream):
        order = _field_order(stream)
        # 2 and 5 have the top field first. Where only the container says so, frames carry no flag.
        self._parity = {2: "tff", 5: "tff", 3: "bff", 4: "bff"}.get(order, "auto")
        self._chosen = "all" if order > 1 else "interlaced"
        self._graph: Graph | None = None
        self._format: tuple[int, int, str] | None = None
        self._waiting: deque[Shown] = deque()
        self.n_interlaced = 0
        """Frames so far that were interlaced."""

    def __call__(self, frames: Iterable[Shown]) -> Iterator[Shown]:
        for shown in frames:
            frame = shown.frame
            self.n_interlaced += shown.look.interlaced
            if self._graph is not None and self._format != (frame.width, frame.height, frame.format.name):
                yield from self._rest(self._graph)
                self._graph = None
            if self._graph is None:
                if not shown.look.interlaced:
                    yield shown
                    continue
                self._graph = self._started(frame)
            self._waiting.append(shown)
            frame.pts, frame.time_base = round(shown.time / _TICK), _TICK
            self._graph.push(frame)
            yield from self._ready(self._graph)
        if self._graph is not None:
            yield from self._rest(self._graph)

    def _started(self, frame: av.VideoFrame) -> Graph:
        self._format = width, height, pixels = frame.width, frame.height, frame.format.name
        graph = Graph()
        graph.link_nodes(
            graph.add_buffer(width=width, height=height, format=VideoFormat(pixels), time_base=_TICK),
            graph.add("bwdif", mode="send_frame", parity=self._parity, deint=self._chosen),
            graph.add("format", pix_fmts=pixels),
            graph.add("buffersink"),
        ).configure()
        return graph

    def _ready(self, graph: Graph) -> Iterator[Shown]:
        while self._waiting:
            try:
                frame = graph.vpull()
            except (BlockingIOError, EOFError):
                return
            yield self._waiting.popleft()._replace(frame=frame)

    def _rest(self, graph: Graph) -> Iterator[Shown]:
        graph.push(None)
        yield from self._ready(graph)
        self._waiting.clear()


def _field_order(stream: VideoStream) -> int:
    """By the container: 0 unknown, 1 progressive, others interlaced. Not each version of PyAV tells."""
    return getattr(stream.codec_context, "field_order", 0)


def _side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    """The frame's side data that matter here."""
    try:
        data: Any = frame.side_data  # declared as another type than it has
    except ValueError:  # of a kind that PyAV does not know
        return {}
    found = {}
    for name in _SIDE_DATA:  # by their kinds: what an iterator gives differs between versions of PyAV
        with contextlib.suppress(KeyError):
            found[name] = bytes(data[SideDataType[name]])
    return found


def _turn(matrix: bytes | None) -> tuple[bool, bool, bool]:
    """Of a display matrix (ISO 14496-12, 8.3.2.3), to the nearest quarter turn."""
    if matrix is None:
        return False, False, False
    a, b, _, c, d = struct.unpack_from("5i", matrix)
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    return transposed, (c if transposed else a) < 0, (b if transposed else d) < 0


def _peak(data: dict[str, bytes]) -> float | None:
    """cd/m2 of the brightest pixel of an HDR video, by its static metadata (SMPTE ST 2086, CTA-861.3)."""
    if "CONTENT_LIGHT_LEVEL" in data:
        brightest = struct.unpack_from("I", data["CONTENT_LIGHT_LEVEL"])[0]
        if brightest:
            return float(brightest)
    if "MASTERING_DISPLAY_METADATA" in data:
        numerator, denominator, _, known = struct.unpack_from("4i", data["MASTERING_DISPLAY_METADATA"], 72)
        if known and denominator:
            return numerator / denominator
    return None
