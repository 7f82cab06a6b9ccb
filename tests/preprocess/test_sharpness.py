"""The blur measure."""

import cv2
import numpy as np
import pytest

from ernerf_ti.preprocess.sharpness import blur


@pytest.fixture
def squares() -> np.ndarray:
    gray = np.random.default_rng(0).integers(0, 255, (16, 16)).astype(np.uint8)
    return cv2.resize(gray, (256, 256), interpolation=cv2.INTER_NEAREST)


def test_rises_with_blur(squares):
    values = [blur(cv2.GaussianBlur(squares, (0, 0), sigma)) for sigma in (0.1, 1, 2, 4)]
    assert values == sorted(values)
    assert values[0] < 0.2
    assert values[-1] > 0.8


def test_blur_in_one_direction_counts(squares):
    assert blur(cv2.blur(squares, (15, 1))) > 0.7
    assert blur(cv2.blur(squares, (1, 15))) > 0.7


def test_flat_image_is_blurred():
    assert blur(np.full((20, 20), 7, np.uint8)) == 1
