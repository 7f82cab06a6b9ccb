import numpy as np
import pytest

from ernerf_ti.preprocess.portrait_layers import composite_over_background, person_color, torso_layer

BACKGROUND, HEAD, NECK, TORSO = range(4)
SKIN, SHIRT, HAIR, WALL = (200, 160, 140), (40, 60, 180), (60, 40, 30), (90, 120, 90)


def constant(color, shape=(1, 1)):
    return np.broadcast_to(np.array(color, np.uint8), (*shape, 3)).copy()


# The frame is alpha F + (1 - alpha) B with F = 200 and B = 100; behind the person belongs 40.
@pytest.mark.parametrize(
    ("alpha", "seen", "expected"), [(1.0, 200, 200), (0.0, 100, 40), (0.5, 150, 120), (0.2, 120, 72)]
)
def test_composite_by_hand(alpha, seen, expected):
    image = composite_over_background(
        constant([seen] * 3), np.array([[alpha]]), np.full((1, 1, 3), 100.0), constant([40] * 3)
    )
    assert image.dtype == np.uint8
    assert image.tolist() == [[[expected] * 3]]


def test_composite_is_the_background_where_there_is_no_person():
    # Differences of the frame from `behind`, such as a shadow, do not show.
    image = composite_over_background(
        constant([180] * 3), np.zeros((1, 1)), np.full((1, 1, 3), 100.0), constant([40, 50, 60])
    )
    assert image.tolist() == [[[40, 50, 60]]]


@pytest.mark.parametrize(("seen", "behind", "background", "expected"), [(250, 0, 255, 255), (5, 255, 0, 0)])
def test_composite_stays_in_range(seen, behind, background, expected):
    image = composite_over_background(
        constant([seen] * 3), np.full((1, 1), 0.5), np.full((1, 1, 3), behind), constant([background] * 3)
    )
    assert image.tolist() == [[[expected] * 3]]


def test_person_color_by_hand():
    # 0.6 * 200 + 0.4 * 50 = 140; below 0.05 the frame itself.
    frame = constant([140] * 3, (1, 3))
    frame[0, 1:] = 77
    alpha = np.array([[0.6, 1.0, 0.04]], np.float32)
    color = person_color(frame, alpha, np.full((1, 3, 3), 50, np.float32))
    assert color.dtype == np.float32
    np.testing.assert_allclose(color[0, :, 0], [200, 77, 77], atol=1e-3)


@pytest.fixture
def portrait():
    """A head above a neck, both above a wider shirt."""
    return draw(64, top=0)


def draw(side, top):
    """frame, alpha, behind, labels; the head begins at row `top`, is 3/8 of the side high and the neck 1/8."""
    labels = np.zeros((side, side), np.uint8)
    unit = side // 8
    head_end, neck_end = top + 3 * unit, top + 4 * unit
    labels[top:head_end, 2 * unit : 6 * unit] = HEAD
    labels[head_end:neck_end, 3 * unit : 5 * unit] = NECK
    labels[neck_end:, unit : 7 * unit] = TORSO
    labels[head_end:neck_end, 2 * unit : 3 * unit] = TORSO  # a collar that ends at the head
    frame = np.array([WALL, HAIR, SKIN, SHIRT], np.uint8)[labels]
    return frame, (labels > 0).astype(np.float32), constant(WALL, labels.shape).astype(np.float32), labels


def test_torso_layer_keeps_visible_pixels(portrait):
    frame, _, _, labels = portrait
    layer = torso_layer(*portrait)
    assert layer.shape == (64, 64, 4) and layer.dtype == np.uint8
    visible = labels == TORSO
    assert (layer[visible][:, 3] == 255).all()
    assert np.array_equal(layer[visible][:, :3], frame[visible])
    neck = labels == NECK
    assert (layer[neck][:, 3] == 255).all()
    neck[:, :27] = neck[:, 37:] = False  # near the jaw it is blurred, with the collar beside it
    assert np.abs(layer[neck][:, :3].astype(int) - SKIN).max() < 12


def test_torso_layer_is_empty_outside(portrait):
    labels = portrait[3]
    layer = torso_layer(*portrait)
    assert (layer[labels == BACKGROUND] == 0).all()
    assert (layer[:8] == 0).all()  # the head, above the extension
    assert (layer[:, 40:48][labels[:, 40:48] == HEAD] == 0).all()  # nothing is below this part of the head


def test_torso_is_extended_under_the_head():
    frame, alpha, behind, labels = draw(512, top=0)
    layer = torso_layer(frame, alpha, behind, labels)
    column, top = 150, 192
    assert labels[top - 1, column] == HEAD and labels[top, column] == TORSO
    expected = np.round(np.outer(0.98 ** np.arange(9), SHIRT))
    assert np.array_equal(layer[top - np.arange(9), column, :3], expected)
    assert layer[top - 8 : top, column, 3].tolist() == [255] * 8
    assert (layer[: top - 8, column] == 0).all()


def test_neck_is_extended_under_the_head():
    frame, alpha, behind, labels = draw(512, top=0)
    layer = torso_layer(frame, alpha, behind, labels)
    column, top = 256, 192
    assert labels[top - 1, column] == HEAD and labels[top, column] == NECK
    # From one pixel under the jaw (3 up by the dilation, 4 down) on, 53 rows with the first.
    start = top + 1
    rows = start - np.arange(53)
    assert (layer[rows, column, 3] == 255).all()
    assert (layer[: start - 52, column] == 0).all()
    expected = np.outer(0.98 ** np.arange(53), SKIN)
    assert np.abs(layer[rows[3:-3], column, :3] - expected[3:-3]).max() < 2


def test_head_is_not_in_the_layer():
    # Where the layer covers the head, it has the color of the neck or shirt.
    frame, alpha, behind, labels = draw(512, top=0)
    layer = torso_layer(frame, alpha, behind, labels)
    over = (labels == HEAD) & (layer[..., 3] > 0)
    assert over.any()
    colors = layer[over][:, :3].astype(float)
    faded = np.array([[*np.multiply(color, 0.98**k)] for color in (SKIN, SHIRT) for k in range(57)])
    nearest = np.abs(colors[::37, None] - faded).max(-1).min(-1)
    assert np.median(nearest) < 1.1
    red = colors[:, 0] - colors[:, 2]
    assert ((red > 15) | (red < -35)).mean() > 0.95  # skin is redder than hair is, the shirt is blue


@pytest.mark.parametrize("side", [64, 128, 256, 512])
def test_extension_shows_the_neck_at_any_size(side):
    frame, alpha, behind, labels = draw(side, top=0)
    layer = torso_layer(frame, alpha, behind, labels)
    column, top = side // 2, 3 * side // 8
    above = layer[top - max(2, side // 64) : top, column]
    assert (above[:, 3] == 255).all()
    # Fading skin, not hair.
    assert np.abs(above[:, :3] - np.multiply(SKIN, 0.9)).max() < 30


def test_extension_stops_at_the_top_of_the_image():
    # A head cropped by the image border: its 3 visible rows are fewer than the extension of the neck.
    shape = (128, 128)
    labels = np.zeros(shape, np.uint8)
    labels[:3, 32:96] = HEAD
    labels[3:40, 32:96] = NECK
    labels[40:80, 32:96] = TORSO
    frame = np.array([WALL, HAIR, SKIN, SHIRT], np.uint8)[labels]
    layer = torso_layer(frame, (labels > 0).astype(np.float32), constant(WALL, shape).astype(np.float32), labels)
    assert (layer[:3, 40:88, 3] == 255).all()
    assert np.abs(layer[:3, 40:88, :3] - np.multiply(SKIN, 0.95)).max() < 15
    assert (layer[81:] == 0).all()


def test_parts_that_touch_the_top_of_the_image():
    labels = np.full((64, 64), TORSO, np.uint8)
    frame = constant(SHIRT, (64, 64))
    layer = torso_layer(frame, np.ones((64, 64), np.float32), np.zeros((64, 64, 3), np.float32), labels)
    assert np.array_equal(layer, np.dstack((frame, np.full((64, 64), 255))))


def test_outline_keeps_its_alpha(portrait):
    frame, alpha, behind, labels = portrait
    alpha = alpha.copy()
    row = 50
    alpha[:, 8], alpha[:, 7] = 0.6, 0.2  # the shirt's left edge, within and outside the labels
    mixed = alpha[..., None] * np.array(SHIRT) + (1 - alpha[..., None]) * behind
    frame = np.where((alpha < 1)[..., None] & (alpha > 0)[..., None], np.round(mixed), frame).astype(np.uint8)
    layer = torso_layer(frame, alpha, behind, labels)
    assert layer[row, 8, 3] == round(0.6 * 255)
    assert layer[row, 7, 3] == round(0.2 * 255)
    assert (layer[row, :7] == 0).all()
    # The straight color is that of the shirt, without the wall.
    assert np.abs(layer[row, 8, :3].astype(int) - SHIRT).max() <= 1


def test_no_torso():
    labels = np.zeros((64, 64), np.uint8)
    labels[10:40, 10:40] = HEAD
    frame = np.array([WALL, HAIR, SKIN, SHIRT], np.uint8)[labels]
    layer = torso_layer(frame, (labels > 0).astype(np.float32), constant(WALL, (64, 64)).astype(np.float32), labels)
    assert (layer == 0).all()
