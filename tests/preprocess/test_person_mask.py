import sys

import numpy as np
import pytest

from ernerf_ti.preprocess.person_mask import median_of_three, person_masks
from tests.preprocess.drawn_person import draw_person, draw_wall, silhouette


def medians(rows):
    return [mask.tolist() for mask in median_of_three(np.array(row, np.uint8) for row in rows)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        ([[5]], [[5]]),
        ([[5], [9]], [[5], [9]]),
        ([[5], [9], [7]], [[5], [7], [7]]),
        # The flash in the third column and the hole in the fourth disappear; a rise stays in place.
        (
            [[0, 10, 0, 255], [0, 20, 0, 255], [255, 30, 200, 0], [255, 40, 0, 255], [255, 50, 0, 255]],
            [[0, 10, 0, 255], [0, 20, 0, 255], [255, 30, 0, 255], [255, 40, 0, 255], [255, 50, 0, 255]],
        ),
    ],
)
def test_median_by_hand(rows, expected):
    assert medians(rows) == expected


def test_median_matches_numpy():
    masks = np.random.default_rng(0).integers(0, 256, (6, 3, 4), np.uint8)
    found = list(median_of_three(iter(masks)))
    assert len(found) == 6
    for k in range(6):
        around = masks[[max(0, k - 1), k, min(5, k + 1)]]
        assert np.array_equal(found[k], np.median(around, 0)) and found[k].dtype == np.uint8


def test_median_needs_one_frame_of_lookahead():
    read = []

    def masks():
        for k in range(5):
            read.append(k)
            yield np.full(1, k, np.uint8)

    stream = median_of_three(masks())
    next(stream)
    assert read == [0, 1]


@pytest.fixture(scope="module")
def masks():
    """Masks of the person at the left, three times in the middle, and of the wall alone."""
    pytest.importorskip("mediapipe")
    return list(person_masks([draw_person(70), *[draw_person()] * 3, draw_wall(), draw_wall()]))


def test_mask_of_a_person(masks):
    assert len(masks) == 6
    mask = masks[2]
    assert mask.shape == (256, 256) and mask.dtype == np.uint8
    person = silhouette()
    assert (mask[person] > 127).mean() > 0.98
    assert (mask[~person] > 127).mean() < 0.02


def test_no_person(masks):
    assert masks[5].mean() < 30


def test_mask_does_not_depend_on_earlier_frames(masks):
    (alone,) = person_masks([draw_person()])
    assert np.array_equal(masks[2], alone)


def test_a_frame_in_which_the_person_is_not_found(masks):
    around = list(person_masks([draw_person(), draw_wall(), draw_person()]))
    assert np.array_equal(around[1], masks[2])


def test_mask_is_symmetric(masks):
    (mirrored,) = person_masks([np.ascontiguousarray(draw_person()[:, ::-1])])
    assert np.array_equal(mirrored[:, ::-1], masks[2])


def test_mediapipe_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe.python", None)
    with pytest.raises(ImportError) as error:
        next(person_masks([draw_person()]))
    assert "preprocessing needs the package mediapipe 0.10.21" in str(error.value)
    assert "pip install 'ernerf-ti[preprocess]'" in str(error.value)
