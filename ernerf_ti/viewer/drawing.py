"""Text on pictures, the same with OpenCV 4 and 5."""

from functools import lru_cache

import cv2
import numpy as np

Color = tuple[int, int, int]

GROUND: Color = (24, 26, 30)
TEXT: Color = (226, 228, 232)
DIM: Color = (150, 156, 166)
ACCENT: Color = (255, 176, 64)
TEXT_SIZE, LINE_HEIGHT = 0.42, 17
"""Scale of OpenCV's font, and pixels from one line of text to the next."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAD = 3  # pixels around the glyphs, room for the outline


def draw_text(
    image: np.ndarray, text: str, x: int, y: int, color: Color = TEXT, size: float = TEXT_SIZE, outline: bool = True
) -> None:
    """Draw a line of text in place.

    Args:
        image: [H, W, 3] uint8; what lies beyond its edges is left out.
        text: characters beyond ASCII become question marks, since OpenCV 4's font has none.
        x, y: left end of the baseline, pixels.
        color: RGB.
        size: scale of the font.
        outline: whether a black outline keeps the text readable over a picture.
    """
    coverage, dark = _coverage(text.encode("ascii", "replace").decode(), size)
    top, left = y - _ascent(size) - _PAD, x - _PAD
    rows = slice(max(0, -top), max(0, min(coverage.shape[0], image.shape[0] - top)))
    columns = slice(max(0, -left), max(0, min(coverage.shape[1], image.shape[1] - left)))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    area = image[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    result = area.astype(np.float32)
    if outline:
        result *= 1 - dark[rows, columns, None]
    coverage = coverage[rows, columns, None]
    area[:] = result * (1 - coverage) + np.array(color, np.float32) * coverage + 0.5


@lru_cache(4096)
def text_width(text: str, size: float = TEXT_SIZE) -> int:
    """Width of a line of text in pixels."""
    return cv2.getTextSize(text, _FONT, size, 1)[0][0]


def fit_text(text: str, width: int, size: float = TEXT_SIZE) -> str:
    """The text, shortened at its front with "..." until it is at most so many pixels wide."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"...{text}", size) > width:
        text = text[1:]
    return f"...{text}"


@lru_cache(512)
def _coverage(text: str, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of the glyphs and of their outline, both [H, W] float32 in [0, 1].

    The outline is grown from the glyphs. Drawing the text a second time with thicker strokes does not give one:
    OpenCV 5 advances farther for bold letters, which prints the text double.
    """
    height = 2 * _PAD + _ascent(size) + round(12 * size)
    glyphs = np.zeros((height, 2 * _PAD + text_width(text, size)), np.uint8)
    cv2.putText(glyphs, text, (_PAD, _PAD + _ascent(size)), _FONT, size, (255,), 1, cv2.LINE_AA)
    outline = cv2.dilate(glyphs, np.ones((3, 3), np.uint8))
    return glyphs.astype(np.float32) / 255, outline.astype(np.float32) / 255


def _ascent(size: float) -> int:
    """Pixels above the baseline that a font of this scale may need."""
    return round(30 * size)
