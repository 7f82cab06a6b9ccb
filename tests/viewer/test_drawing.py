"""Text on images, with OpenCV 4 and 5."""

import cv2
import numpy as np
import pytest

from ernerf_ti.viewer.drawing import LINE_HEIGHT, TEXT_SIZE, draw_text, fit_text, text_width

TEXTS = ["captured 12.3 of 45.6 s", "yaw (-14) [gjpq] |Wij", "MMMM iiii"]
GRAY = 120


def blank(width: int = 400) -> np.ndarray:
    return np.full((40, width, 3), GRAY, np.uint8)


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_printed_once(text):
    """Its glyphs are those of OpenCV, and the outline is no second print beside them."""
    image = blank()
    draw_text(image, text, 20, 25, (255, 255, 255))
    glyphs = np.zeros((40, 400), np.uint8)
    cv2.putText(glyphs, text, (20, 25), cv2.FONT_HERSHEY_SIMPLEX, TEXT_SIZE, 255, 1, cv2.LINE_AA)
    bright = image[..., 0] > 200
    assert bright.sum() > 50
    assert (bright == (glyphs > 200)).mean() > 0.99 and not bright[glyphs == 0].any()
    near_glyphs = cv2.dilate(glyphs, np.ones((3, 3), np.uint8)) > 0
    changed = (image != GRAY).any(-1)
    assert not changed[~near_glyphs].any()  # a second print would lie beside the glyphs
    assert changed.sum() > 1.5 * (glyphs > 0).sum()  # the outline
    assert image[near_glyphs].min() < 40


@pytest.mark.parametrize("text", TEXTS)
def test_width_holds_the_text(text):
    image = blank()
    draw_text(image, text, 20, 25, (255, 255, 255), outline=False)
    columns = np.nonzero((image > 160).any((0, 2)))[0]
    assert 20 <= columns.min() < 24 and abs(columns.max() - 20 - text_width(text)) <= 4
    rows = np.nonzero((image != GRAY).any((1, 2)))[0]
    assert np.ptp(rows) < LINE_HEIGHT and rows.min() > 25 - LINE_HEIGHT


@pytest.mark.parametrize(("x", "y"), [(-20, 25), (380, 25), (20, 3), (20, 44), (-900, 25), (20, 900)])
def test_text_beyond_the_edges_is_cut_off(x, y):
    large = np.full((2040, 2400, 3), GRAY, np.uint8)
    draw_text(large, TEXTS[0], 1000 + x, 1000 + y)
    image = blank()
    draw_text(image, TEXTS[0], x, y)
    assert np.array_equal(image, large[1000:1040, 1000:1400])


def test_characters_that_the_font_lacks_become_question_marks():
    images = [blank(), blank()]
    draw_text(images[0], "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{RIGHTWARDS ARROW}", 20, 25)
    draw_text(images[1], "caf? ?", 20, 25)
    assert np.array_equal(*images)


def test_text_is_shortened_at_its_front():
    path = "/home/user/projects/portraits/speaker/inbox"
    assert fit_text(path, 1000) == path
    short = fit_text(path, 120)
    assert short.startswith("...") and path.endswith(short[3:]) and 60 < text_width(short) <= 120
