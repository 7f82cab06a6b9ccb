import cv2
import numpy as np
import pytest

from ernerf_ti.preprocess.face_parts import part_labels, skin_color
from tests.preprocess.drawn_person import HAIR, SHIRT, SKIN, draw_person, mesh_points, silhouette

BACKGROUND, HEAD, NECK, TORSO = range(4)
POINTS = mesh_points()


def labels_of(frame, alpha=None, points=POINTS):
    alpha = silhouette().astype(np.float32) if alpha is None else alpha
    return part_labels(frame, alpha, points, skin_color([(draw_person(), POINTS)]))


@pytest.fixture(scope="module")
def labels():
    return labels_of(draw_person())


@pytest.mark.parametrize(
    ("x", "y", "part"),
    [
        (128, 108, HEAD),  # the face
        (128, 164, HEAD),  # the chin
        (128, 26, HEAD),  # hair above
        (77, 92, HEAD),  # hair beside
        (178, 110, HEAD),
        (128, 180, NECK),
        (110, 185, NECK),
        (146, 185, NECK),
        (128, 240, TORSO),
        (60, 235, TORSO),  # shoulders
        (196, 235, TORSO),
        (20, 20, BACKGROUND),
        (40, 150, BACKGROUND),
    ],
)
def test_parts_of_a_drawn_person(labels, x, y, part):
    assert labels[y, x] == part


def test_every_pixel_of_the_person_is_labeled(labels):
    assert labels.shape == (256, 256) and labels.dtype == np.uint8
    assert np.array_equal(labels > 0, silhouette())


def test_areas(labels):
    face = cv2.ellipse(np.zeros((256, 256), np.uint8), (128, 108), (43, 58), 0, 0, 360, 1, -1).astype(bool)
    assert (labels[face] == HEAD).mean() > 0.99
    neck = np.zeros((256, 256), bool)
    neck[172:202, 108:149] = True
    assert (labels[neck] == NECK).mean() > 0.97
    assert (labels[215:] != HEAD).all() and (labels[215:] != NECK).all()
    # The neck has 45 x 60 px minus what the chin hides.
    assert 1400 < (labels == NECK).sum() < 2600


def test_without_neck_skin():
    labels = labels_of(draw_person(neck=SHIRT))
    assert (labels == NECK).sum() < 60  # pixels along the jaw may be mixed
    assert (labels[178:205, 110:147] == TORSO).all()
    assert labels[108, 128] == HEAD and labels[92, 77] == HEAD


def test_neck_in_shadow():
    labels = labels_of(draw_person(neck=tuple(round(0.45 * level) for level in SKIN)))
    assert (labels[176:200, 110:147] == NECK).mean() > 0.97


def test_long_hair_is_not_the_neck():
    labels = labels_of(draw_person(neck=HAIR))
    assert (labels[178:205, 110:147] == NECK).mean() < 0.02


def test_skin_not_connected_to_the_jaw():
    frame = draw_person()
    cv2.circle(frame, (128, 238), 9, SKIN, -1)  # a hand
    labels = labels_of(frame)
    assert labels[238, 128] == TORSO
    assert labels[185, 128] == NECK


def test_skin_colored_clothes():
    # The neck still ends 0.55 of the face height, 66 px, below the jaw.
    frame = draw_person()
    cv2.rectangle(frame, (106, 170), (150, 255), SKIN, -1)
    labels = labels_of(frame)
    assert labels[185, 128] == NECK
    assert labels[252, 128] == TORSO


def test_bare_shoulders():
    frame = draw_person(neck=SKIN)
    frame[190:][silhouette()[190:]] = SKIN
    labels = labels_of(frame)
    assert labels[185, 128] == NECK
    assert labels[235, 60] == TORSO and labels[235, 196] == TORSO  # beyond the width of the jaw


def test_wide_hair():
    frame, alpha = draw_person(), silhouette().astype(np.float32)
    for left in (20, 180):
        frame[60:132, left : left + 56] = HAIR
        alpha[60:132, left : left + 56] = 1
    labels = labels_of(frame, alpha)
    assert (labels[62:130, 22:60] == HEAD).all() and (labels[62:130, 196:234] == HEAD).all()


def test_a_strand_of_hair_apart_from_the_head_is_not_the_torso():
    alpha = silhouette().astype(np.float32)
    strand = np.s_[8:11, 120:126]
    assert not alpha[6:13, 118:128].any()
    alpha[strand] = 1
    assert (labels_of(draw_person(), alpha)[strand] == HEAD).all()


def test_alpha_defines_the_person():
    alpha = np.where(silhouette(), 0.51, 0.49)
    alpha[:, :128] = 0
    labels = labels_of(draw_person(), alpha)
    assert (labels[:, :128] == BACKGROUND).all()
    assert labels[108, 140] == HEAD and labels[240, 140] == TORSO


def test_no_person():
    assert (labels_of(draw_person(), np.zeros((256, 256))) == BACKGROUND).all()


def test_tilted_head(labels):
    turn = cv2.getRotationMatrix2D((128, 108), 20, 1)
    frame = cv2.warpAffine(draw_person(), turn, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(silhouette().astype(np.float32), turn, (256, 256))
    points = POINTS @ turn[:, :2].T + turn[:, 2]
    expected = cv2.warpAffine(labels, turn, (256, 256), flags=cv2.INTER_NEAREST)
    assert (labels_of(frame, alpha, points) == expected).mean() > 0.985


def test_depth_of_the_points_is_ignored(labels):
    deep = np.column_stack((POINTS, np.linspace(-50, 50, 478)))
    assert np.array_equal(labels_of(draw_person(), points=deep), labels)


def test_skin_color_by_hand():
    frame = np.full((256, 256, 3), SKIN, np.uint8)
    skin = skin_color([(frame, POINTS)])
    # Of (220, 170, 140) with 8 added to each.
    np.testing.assert_allclose(skin.mean, np.log([228 / 178, 148 / 178]), rtol=1e-5)
    assert skin.luminance == pytest.approx(0.299 * 220 + 0.587 * 170 + 0.114 * 140, rel=1e-5)
    # Without variation, the covariance is that of the minimum spread of 0.07.
    np.testing.assert_allclose(skin.inverse_covariance, np.eye(2) / 0.07**2, rtol=1e-4, atol=1e-3)


def test_skin_color_is_a_median():
    frame = np.full((256, 256, 3), SKIN, np.uint8)
    spoiled = frame.copy()
    spoiled[100:135, 90:110] = (20, 60, 20)  # one cheek
    clean, other = skin_color([(frame, POINTS)]), skin_color([(frame, POINTS), (spoiled, POINTS)])
    np.testing.assert_allclose(other.mean, clean.mean, rtol=1e-6)
    assert other.luminance == pytest.approx(clean.luminance)


def test_cheek_outside_the_image():
    points = POINTS.copy()
    points[[50, 205], 0] = -30
    points[[425, 280], 1] = 400
    skin = skin_color([(np.full((256, 256, 3), SKIN, np.uint8), points)])
    assert np.isfinite(skin.mean).all()


def test_no_samples():
    with pytest.raises(ValueError) as error:
        skin_color([])
    assert "samples: expected frames with a face, got none; track the face first" in str(error.value)
