"""The viewer's screen as a picture: the portrait, numbers, curves and the sound with the place in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_GROUND, _TEXT, _DIM, _ACCENT = (24, 26, 30), (226, 228, 232), (150, 156, 166), (255, 176, 64)
_FONT, _TEXT_SIZE, _LINE = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 17
_STRIP, _MARGIN = 56, 8
_CURVES = (260, 110)
_CURVE_COLOURS = ((255, 120, 90), (110, 200, 255))


@dataclass(frozen=True)
class Layout:
    """Where things are on the screen, in pixels from the top left."""

    width: int = 1080
    height: int = 640
    panel: int = 0
    """Width at the right that is left to the window's controls."""

    def __post_init__(self):
        if self.width % 2 or self.height % 2 or self.panel % 2:
            raise ValueError(
                f"screen: expected even sizes, got {self.width}x{self.height} with a panel of {self.panel}; "
                "video codecs need them"
            )
        if self.width - self.panel < 160 or self.height < 160:
            raise ValueError(
                f"screen: expected at least 160x160 beside the panel, got {self.width - self.panel}x{self.height}; "
                "make it larger"
            )

    @property
    def picture(self) -> tuple[int, int]:
        """Width and height of the part for pictures, at the top left."""
        return self.width - self.panel, self.height - _STRIP

    def place_in_clip(self, x: float, y: float) -> float | None:
        """Part of the clip that a point of the strip stands for; None for a point elsewhere.

        Args:
            x, y: parts of the screen's width and height from the top left.
        """
        column, row = x * self.width, y * self.height
        if not (row >= self.height - _STRIP and column < self.picture[0]):
            return None
        return min(max((column - _MARGIN) / (self.picture[0] - 2 * _MARGIN), 0.0), 1.0)

    def in_picture(self, x: float, y: float) -> bool:
        """Whether a point is where the pictures are."""
        return x * self.width < self.picture[0] and y * self.height < self.picture[1]


def waveform(samples: np.ndarray, layout: Layout) -> np.ndarray:
    """[56, W, 3] uint8 strip of a recording."""
    width = layout.picture[0]
    strip = np.full((_STRIP, width, 3), _GROUND, np.uint8)
    n = width - 2 * _MARGIN
    middle, reach = _STRIP // 2 - 6, _STRIP // 2 - 10
    edges = np.linspace(0, len(samples), n + 1).astype(int)
    peaks = np.zeros(n)
    if len(samples) >= n:
        peaks = np.maximum.reduceat(np.abs(samples), edges[:-1])
    for k, height in enumerate(np.round(peaks / max(peaks.max(), 1e-6) * reach).astype(int)):
        strip[middle - height : middle + height + 1, _MARGIN + k] = _DIM
    return strip


def compose(
    layout: Layout,
    pictures: Sequence[np.ndarray],
    lines: Sequence[str],
    strip: np.ndarray,
    share: float,
    strip_text: str,
    message: str = "",
    help_lines: Sequence[str] = (),
    curves: np.ndarray | None = None,
) -> np.ndarray:
    """Put a screen together.

    Args:
        layout: places.
        pictures: [H, W, 3] uint8 of one size, side by side.
        lines: at the top left.
        strip: from :func:`waveform`.
        share: place in the clip from 0 to 1.
        strip_text: below the sound.
        message: at the bottom of the picture.
        help_lines: over the picture, if any.
        curves: from :func:`draw_curves`, at the top right.

    Returns:
        [height, width, 3] uint8.
    """
    screen = np.full((layout.height, layout.width, 3), _GROUND, np.uint8)
    width, height = layout.picture
    _paste(screen[:height, :width], pictures)
    for k, line in enumerate(lines):
        _write(screen, line, _MARGIN, _LINE * (k + 1))
    if curves is not None:
        rows, columns = curves.shape[:2]
        screen[_MARGIN : _MARGIN + rows, width - columns - _MARGIN : width - _MARGIN] = curves
    if message:
        _write(screen, message, _MARGIN, height - _MARGIN, _ACCENT)
    if help_lines:
        _help(screen[:height, :width], help_lines)
    screen[height:, :width] = strip
    column = _MARGIN + round(share * (width - 2 * _MARGIN - 1))
    screen[height : height + _STRIP - 14, max(0, column - 1) : column + 1] = _ACCENT
    _write(screen, strip_text, _MARGIN, layout.height - 4)
    return screen


def draw_curves(losses: Sequence[float], psnrs: Sequence[float], title: str) -> np.ndarray:
    """[110, 260, 3] uint8: the loss, logarithmic, and the PSNR over the last steps, each over its own range."""
    width, height = _CURVES
    image = np.full((height, width, 3), (12, 13, 16), np.uint8)
    _write(image, title, 4, 12, size=0.36)
    for values, name, color, row in (
        (np.log10(np.maximum(losses, 1e-9)), "loss", _CURVE_COLOURS[0], height - 16),
        (np.asarray(psnrs), "PSNR", _CURVE_COLOURS[1], height - 4),
    ):
        if not len(values):
            continue
        shown = values[-1] if name == "PSNR" else 10 ** values[-1]
        _write(image, f"{name} {shown:.1f} dB" if name == "PSNR" else f"{name} {shown:.4f}", 4, row, color, 0.36)
        n = min(len(values), width - 8)
        means = np.array([part.mean() for part in np.array_split(np.asarray(values), n)])
        low, high = means.min(), means.max()
        y = height - 32 - (means - low) / max(high - low, 1e-6) * (height - 50)
        x = np.linspace(4, width - 5, n)
        cv2.polylines(image, [np.stack((x, y), 1).round().astype(np.int32)], False, color, 1, cv2.LINE_AA)
    return image


def _paste(area: np.ndarray, pictures: Sequence[np.ndarray]) -> None:
    """Scale pictures to fill an area side by side, in the middle of it."""
    rows, columns = pictures[0].shape[:2]
    scale = min(area.shape[0] / rows, area.shape[1] / (columns * len(pictures)))
    size = max(1, int(columns * scale)), max(1, int(rows * scale))
    top, left = (area.shape[0] - size[1]) // 2, (area.shape[1] - size[0] * len(pictures)) // 2
    for k, picture in enumerate(pictures):
        scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        area[top : top + size[1], left + k * size[0] : left + (k + 1) * size[0]] = scaled


def _help(area: np.ndarray, lines: Sequence[str]) -> None:
    area[:] = area // 5
    per_column = -(-len(lines) // 2)
    for k, line in enumerate(lines):
        _write(area, line, 24 + k // per_column * (area.shape[1] // 2), 48 + k % per_column * (_LINE + 4))


def _write(
    image: np.ndarray, text: str, x: int, y: int, color: tuple[int, int, int] = _TEXT, size: float = _TEXT_SIZE
) -> None:
    # The font has no signs beyond ASCII.
    text = text.encode("ascii", "replace").decode()
    cv2.putText(image, text, (x, y), _FONT, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), _FONT, size, color, 1, cv2.LINE_AA)
