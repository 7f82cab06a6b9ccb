"""Pictures with captions: comparison frames and the contact sheet of the demo."""

import cv2
import numpy as np

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT, _BAR = (235, 235, 235), 24
_HEADINGS = "truth", "portrait"


def beside(truth: np.ndarray, portrait: np.ndarray) -> np.ndarray:
    """[H, 2 W, 3] of two images [H, W, 3]."""
    return np.concatenate((truth, portrait), 1)


def comparison_frame(pair: np.ndarray, caption: str) -> np.ndarray:
    """A pair under its headings and above a caption: [H + 54, 2 W, 3] uint8, the height even if H is."""
    return np.concatenate((_headings(pair.shape[1]), pair, _bar(pair.shape[1], 30, caption)))


def contact_sheet(columns: list[tuple[str, list[tuple[str, np.ndarray]]]], rows: int) -> np.ndarray:
    """Evenly spaced pairs of each column under their captions.

    Args:
        columns: title of each, and its pairs [H, 2 W, 3] with a caption each.
        rows: pairs of each column that are shown.
    """
    sheets = []
    for title, pairs in columns:
        width = pairs[0][1].shape[1]
        chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, rows).astype(int)]
        stacked = [_bar(width, 30, title), _headings(width)]
        for caption, pair in chosen:
            stacked += [pair, _bar(width, _BAR, caption)]
        sheets.append(np.concatenate(stacked))
    return np.concatenate(sheets, 1)


def _headings(width: int) -> np.ndarray:
    return np.concatenate([_bar(width // 2, _BAR, heading) for heading in _HEADINGS], 1)


def _bar(width: int, height: int, text: str) -> np.ndarray:
    """[height, width, 3] uint8 dark bar with centered text, which shrinks to fit."""
    bar = np.full((height, width, 3), 24, np.uint8)
    (long, _), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = min(0.5, 0.94 * width / max(long, 1))
    (long, high), _ = cv2.getTextSize(text, _FONT, scale, 1)
    cv2.putText(bar, text, ((width - long) // 2, (height + high) // 2), _FONT, scale, _TEXT, 1, cv2.LINE_AA)
    return bar
