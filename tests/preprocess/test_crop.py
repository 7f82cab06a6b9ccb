"""The square crop around head and shoulders."""

import numpy as np
import pytest

from ernerf_ti.data.crop import Crop
from ernerf_ti.preprocess.crop import choose_crop, parse_crop


def still(x: float, y: float, side: float, n: int = 20) -> np.ndarray:
    return np.tile([x, y, side], (n, 1)).astype(float)


def test_side_is_2_3_face_heights():
    # A face of 100 px in the middle of a large video; its center lies at 48 % of the height.
    assert choose_crop(still(960, 500, 100), 1920, 1080) == Crop(960 - 115, 500 - 110, 230)


def test_crop_stays_inside():
    assert choose_crop(still(60, 60, 100), 1920, 1080) == Crop(0, 0, 230)
    assert choose_crop(still(1900, 1070, 100), 1920, 1080) == Crop(1920 - 230, 1080 - 230, 230)


def test_close_face_takes_the_whole_height():
    assert choose_crop(still(640, 360, 400), 1280, 720) == Crop(280, 0, 720)
    # 2.3 * 290 = 667 is more than 88 % of 720.
    assert choose_crop(still(640, 360, 290), 1280, 720).side == 720


def test_moving_head_gets_a_larger_crop():
    boxes = np.column_stack((np.linspace(800, 1100, 50), np.full(50, 500.0), np.full(50, 100.0)))
    crop = choose_crop(boxes, 1920, 1080)
    assert crop.side > 400
    assert crop.x < 800 - 60 and crop.x + crop.side > 1100 + 60


def test_outlier_is_ignored():
    boxes = np.concatenate((still(960, 500, 100, 99), [[100.0, 100.0, 90.0]]))
    assert choose_crop(boxes, 1920, 1080) == choose_crop(still(960, 500, 100), 1920, 1080)


def test_cut_and_resize():
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[10:30, 20:40] = 200
    cut = Crop(20, 10, 20)(frame, 10)
    assert cut.shape == (10, 10, 3)
    assert (cut == 200).all()
    assert Crop(20, 10, 20)(frame, 20).flags.c_contiguous


def test_no_face():
    with pytest.raises(ValueError, match="video: no face found; use a video of one person"):
        choose_crop(np.zeros((0, 3)), 640, 480)


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "-1,0,10", "0,0,481", "600,0,100", "0,0,0", "0,0,31"])
def test_given_crop_must_lie_inside(text):
    with pytest.raises(ValueError, match="expected X,Y,SIDE of a square of 32 pixels or more inside the 640x480 video"):
        parse_crop(text, 640, 480)


def test_given_crop():
    assert parse_crop("10,20,300", 640, 480) == Crop(10, 20, 300)
    assert parse_crop("0,0,32", 640, 480) == Crop(0, 0, 32)
