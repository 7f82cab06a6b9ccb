"""The screen, and where its parts are."""

import numpy as np
import pytest

from ernerf_ti.viewer.screen import Layout, compose, draw_curves, waveform

LAYOUT = Layout(400, 300, 100)
RED, BLUE = (np.zeros((20, 20, 3), np.uint8) for _ in range(2))
RED[..., 0] = BLUE[..., 2] = 255


def screen(pictures=(RED,), lines=(), share=0.0, **options) -> np.ndarray:
    return compose(LAYOUT, pictures, lines, waveform(np.zeros(0, np.float32), LAYOUT), share, "", **options)


def test_picture_is_in_the_middle_and_square():
    image = screen()
    assert image.shape == (300, 400, 3)
    rows, columns = np.nonzero((image == (255, 0, 0)).all(-1))
    assert (rows.min(), rows.max()) == (0, 243) and (columns.min(), columns.max()) == (28, 271)


def test_pictures_side_by_side():
    image = screen((RED, BLUE))
    assert (image[122, 10] == (255, 0, 0)).all() and (image[122, 290] == (0, 0, 255)).all()
    assert (image[122, 149] == (255, 0, 0)).all() and (image[122, 150] == (0, 0, 255)).all()


def test_place_in_the_clip_is_where_it_is_drawn():
    for share in (0.0, 0.3, 1.0):
        image = screen(share=share)
        column = int(np.median(np.nonzero((image[260] == (255, 176, 64)).all(-1))[0]))
        assert LAYOUT.place_in_clip((column + 0.5) / 400, 260 / 300) == pytest.approx(share, abs=0.01)
    assert LAYOUT.place_in_clip(0.2, 0.5) is None
    assert LAYOUT.place_in_clip(0.9, 0.95) is None  # on the panel
    assert LAYOUT.place_in_clip(0.0, 0.95) == 0.0
    assert LAYOUT.in_picture(0.2, 0.5) and not LAYOUT.in_picture(0.8, 0.5)


def test_words_help_and_messages_show():
    for options in ({"lines": ["a line"]}, {"message": "written \N{RIGHTWARDS ARROW}"}, {"help_lines": ["a  b"]}):
        assert (screen(**options) != screen()).any(-1).sum() > 20
    assert screen(help_lines=["a"])[:244, :300].mean() < 0.5 * screen()[:244, :300].mean()
    curves = draw_curves([1.0, 0.1, 0.01], [10.0, 20.0, 30.0], "head")
    assert (screen(curves=curves)[8:118, 32:292] == curves).all()


def test_waveform_is_tall_where_it_is_loud():
    samples = np.concatenate((np.zeros(16_000), np.full(16_000, 0.5))).astype(np.float32)
    heights = (waveform(samples, LAYOUT) == (150, 156, 166)).all(-1).sum(0)
    assert heights[10:140].max() == 1 and heights[160:290].min() > 20
    assert (waveform(np.zeros(10, np.float32), LAYOUT) == (150, 156, 166)).all(-1).sum(0).max() == 1


def test_curves_fall_and_rise():
    falling = np.logspace(0, -3, 500)
    image = draw_curves(falling, -10 * np.log10(falling), "head, step 500")
    for color, rises in (((255, 120, 90), False), ((110, 200, 255), True)):
        rows, columns = np.nonzero((np.abs(image[16:80].astype(int) - color) < 60).all(-1))
        assert (rows[columns < 40].mean() > rows[columns > 220].mean()) == rises


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((401, 300), "screen: expected even sizes, got 401x300"),
        ((400, 300, 300), "screen: expected at least 160x160 beside the panel, got 100x300"),
    ],
)
def test_layouts_that_do_not_fit(values, text):
    with pytest.raises(ValueError, match=text):
        Layout(*values)
