"""The screen and its layout."""

import numpy as np
import pytest

from ernerf_ti.viewer.drawing import ACCENT, LINE_HEIGHT, TEXT
from ernerf_ti.viewer.screen import Layout, compose, draw_curves, waveform
from ernerf_ti.viewer.state import KEYS

LAYOUT = Layout(400, 300, 100)
RED, BLUE = (np.zeros((20, 20, 3), np.uint8) for _ in range(2))
RED[..., 0] = BLUE[..., 2] = 255


def screen(pictures=(RED,), lines=(), fraction=0.0, **options) -> np.ndarray:
    return compose(LAYOUT, pictures, lines, waveform(np.zeros(0, np.float32), LAYOUT), fraction, "", **options)


def test_picture_is_in_the_middle_and_square():
    image = screen()
    assert image.shape == (300, 400, 3)
    rows, columns = np.nonzero((image == (255, 0, 0)).all(-1))
    assert (rows.min(), rows.max()) == (0, 243) and (columns.min(), columns.max()) == (28, 271)


def test_pictures_side_by_side():
    image = screen((RED, BLUE))
    assert (image[122, 10] == (255, 0, 0)).all() and (image[122, 290] == (0, 0, 255)).all()
    assert (image[122, 149] == (255, 0, 0)).all() and (image[122, 150] == (0, 0, 255)).all()


def test_position_in_the_clip_is_where_it_is_drawn():
    for fraction in (0.0, 0.3, 1.0):
        image = screen(fraction=fraction)
        column = int(np.median(np.nonzero((image[260] == (255, 176, 64)).all(-1))[0]))
        assert LAYOUT.fraction_in_clip((column + 0.5) / 400, 260 / 300) == pytest.approx(fraction, abs=0.01)
    assert LAYOUT.fraction_in_clip(0.2, 0.5) is None
    assert LAYOUT.fraction_in_clip(0.9, 0.95) is None  # on the panel
    assert LAYOUT.fraction_in_clip(0.0, 0.95) == 0.0
    assert LAYOUT.in_picture(0.2, 0.5) and not LAYOUT.in_picture(0.8, 0.5)


def ink(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """[H, W] whether pixels are of a color, antialiased ones aside."""
    return (np.abs(image.astype(int) - color) < 40).all(-1)


def test_text_is_where_it_belongs():
    lines = screen(lines=["first", "second"], warning="careful", message="written")
    rows = np.nonzero(ink(lines, TEXT)[:244, :300].any(1))[0]
    assert rows.min() < 20 and 25 < rows.max() <= 2 * LINE_HEIGHT + 4
    rows = np.nonzero(ink(lines, ACCENT)[:244, :300].any(1))[0]  # below the lines, and at the bottom
    assert 2 * LINE_HEIGHT < rows.min() < 3 * LINE_HEIGHT and 230 < rows.max() < 244
    assert not ink(screen(), ACCENT)[:244].any()


def test_long_text_is_wrapped_within_the_picture():
    words = "word " * 30 + "x" * 200
    image = screen(lines=[words], message=words)
    assert (image[:, 300:] == screen()[:, 300:]).all()
    assert not ink(image, TEXT)[:244, 292:].any()
    assert np.ptp(np.nonzero(ink(image, TEXT)[:200].any(1))[0]) > 3 * LINE_HEIGHT
    assert (ink(image, ACCENT)[:244].any(1)).sum() > 20  # all lines of the message


def test_help_is_readable_over_a_dark_picture():
    keys = [f"{name}  {key.help}" for name, key in KEYS.items()]
    layout = Layout(1280, 720, 320)
    strip = waveform(np.zeros(0, np.float32), layout)
    image = compose(layout, [np.full((20, 20, 3), 255, np.uint8)], [], strip, 0.0, "", help_lines=keys)
    assert image[:664, :960].mean() < 60
    rows = np.nonzero((image[:664, :80, 0] > 100).any(1))[0]
    assert rows.max() < 660
    assert (np.diff(rows) > 8).sum() + 1 == -(-len(keys) // 2)  # as many lines, apart from each other
    assert not ink(image, TEXT)[:664, 470:480].any() and not ink(image, TEXT)[:664, 950:].any()  # columns apart


def test_curves_and_panel_are_put_in():
    curves = draw_curves([1.0, 0.1, 0.01], [10.0, 20.0, 30.0], "head")
    assert (screen(curves=curves)[8:118, 32:292] == curves).all()
    panel = np.full((300, 100, 3), 77, np.uint8)
    image = screen(panel=panel)
    assert (image[:, 300:] == 77).all() and (image[:, :300] == screen()[:, :300]).all()


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
