"""The viewer's screen as an image: portrait, text, training curves, waveform, controls."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ernerf_ti.viewer.drawing import ACCENT, DIM, GROUND, LINE_HEIGHT, TEXT, draw_text, fit_text, text_width

_STRIP, _MARGIN, _SMALL = 56, 8, 0.36
_KEY_WIDTH = 64  # pixels of the column of keys in the help
_CURVES = (260, 110)
_CURVE_COLORS = ((255, 120, 90), (110, 200, 255))


@dataclass(frozen=True)
class Layout:
    """Sizes of the screen and its parts, in pixels."""

    width: int = 1080
    height: int = 640
    panel: int = 0
    """Width of the controls at the right."""

    def __post_init__(self) -> None:
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
        """Width and height of the area for pictures, at the top left."""
        return self.width - self.panel, self.height - _STRIP

    def fraction_in_clip(self, x: float, y: float) -> float | None:
        """Position in the clip, from 0 to 1, of a point on the waveform; None for a point elsewhere.

        Args:
            x, y: fractions of the screen's width and height, from the top left.
        """
        column, row = x * self.width, y * self.height
        if not (row >= self.height - _STRIP and column < self.picture[0]):
            return None
        return min(max((column - _MARGIN) / (self.picture[0] - 2 * _MARGIN), 0.0), 1.0)

    def in_picture(self, x: float, y: float) -> bool:
        """Whether a point lies on the pictures."""
        return x * self.width < self.picture[0] and y * self.height < self.picture[1]


def waveform(samples: np.ndarray, layout: Layout) -> np.ndarray:
    """[56, W, 3] uint8 waveform of [S] samples, room for a line of text below it."""
    width = layout.picture[0]
    strip = np.full((_STRIP, width, 3), GROUND, np.uint8)
    n = width - 2 * _MARGIN
    middle, reach = _STRIP // 2 - 6, _STRIP // 2 - 10
    edges = np.linspace(0, len(samples), n + 1).astype(int)
    peaks = np.zeros(n)
    if len(samples) >= n:
        peaks = np.maximum.reduceat(np.abs(samples), edges[:-1])
    for k, height in enumerate(np.round(peaks / max(peaks.max(), 1e-6) * reach).astype(int)):
        strip[middle - height : middle + height + 1, _MARGIN + k] = DIM
    return strip


def compose(
    layout: Layout,
    pictures: Sequence[np.ndarray],
    lines: Sequence[str],
    strip: np.ndarray,
    fraction: float,
    strip_text: str,
    warning: str = "",
    message: str = "",
    help_lines: Sequence[str] = (),
    curves: np.ndarray | None = None,
    panel: np.ndarray | None = None,
) -> np.ndarray:
    """Put a screen together.

    Args:
        layout: sizes of the parts.
        pictures: [H, W, 3] uint8 of one size, side by side.
        lines: at the top left.
        strip: from :func:`waveform`.
        fraction: position in the clip from 0 to 1.
        strip_text: below the waveform.
        warning: below the lines, in another color.
        message: at the bottom of the picture.
        help_lines: over the picture, if any.
        curves: from :func:`draw_curves`, at the top right of the picture.
        panel: [height, layout.panel, 3] from :func:`ernerf_ti.viewer.panel.draw_panel`.

    Returns:
        [height, width, 3] uint8.
    """
    screen = np.full((layout.height, layout.width, 3), GROUND, np.uint8)
    width, height = layout.picture
    inner = width - 2 * _MARGIN
    if panel is not None:
        screen[:, width:] = panel
    area = screen[:height, :width]
    _paste(area, pictures)
    if curves is not None:
        rows, columns = curves.shape[:2]
        area[_MARGIN : _MARGIN + rows, width - columns - _MARGIN : width - _MARGIN] = curves
    row = 0
    for text, color in [(line, TEXT) for line in lines] + [(warning, ACCENT)] * bool(warning):
        for part in _wrap(text, inner):
            row += LINE_HEIGHT
            draw_text(area, part, _MARGIN, row, color)
    wrapped = _wrap(message, inner)
    for k, part in enumerate(wrapped):
        draw_text(area, part, _MARGIN, height - _MARGIN - LINE_HEIGHT * (len(wrapped) - 1 - k), ACCENT)
    if help_lines:
        _help(area, help_lines)
    screen[height:, :width] = strip
    column = _MARGIN + round(fraction * (inner - 1))
    screen[height : height + _STRIP - 14, max(0, column - 1) : column + 1] = ACCENT
    draw_text(screen[:, :width], strip_text, _MARGIN, layout.height - 4, outline=False)
    return screen


def draw_curves(losses: Sequence[float], psnrs: Sequence[float], title: str) -> np.ndarray:
    """[110, 260, 3] uint8: the loss, logarithmic, and the PSNR over the last steps, each over its own range."""
    width, height = _CURVES
    image = np.full((height, width, 3), (12, 13, 16), np.uint8)
    draw_text(image, title, 4, 12, size=_SMALL)
    for values, name, color, row in (
        (np.log10(np.maximum(losses, 1e-9)), "loss", _CURVE_COLORS[0], height - 16),
        (np.asarray(psnrs), "PSNR", _CURVE_COLORS[1], height - 4),
    ):
        if not len(values):
            continue
        shown = values[-1] if name == "PSNR" else 10 ** values[-1]
        draw_text(image, f"{name} {shown:.1f} dB" if name == "PSNR" else f"{name} {shown:.4f}", 4, row, color, _SMALL)
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
    """Darken the picture and write lines over it in two columns."""
    area[:] = area // 6
    per_column = -(-len(lines) // 2)
    pitch = min(LINE_HEIGHT + 8, (area.shape[0] - 2 * _MARGIN) // per_column)
    top = (area.shape[0] - pitch * per_column) // 2 + LINE_HEIGHT
    for k, line in enumerate(lines):
        left = 3 * _MARGIN + k // per_column * (area.shape[1] // 2)
        key, _, text = line.partition("  ")
        row = top + k % per_column * pitch
        draw_text(area, key, left, row, ACCENT)
        draw_text(area, text.strip(), left + _KEY_WIDTH, row)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most so many pixels, broken between words; a longer word loses its front."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and text_width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(fit_text(word, width))
    return lines if text else []
