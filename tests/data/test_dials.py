import numpy as np
import pytest
import torch

from ernerf_ti.data.capture_files import CaptureError
from ernerf_ti.data.dials import LARGEST, dial_boxes, dial_values, read_dials
from ernerf_ti.media.files import write_arrays
from ernerf_ti.portrait.config import DIAL_GROUPS
from ernerf_ti.portrait.model.dials import Dials
from tests.data import moving_face

N = 400
NAMES = tuple(name for names in DIAL_GROUPS.values() for name in names)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def expression(rng):
    """Meters: brows, smile, gaze, opening."""
    opening = rng.uniform(0, 0.01, N)
    smile = 0.001 * np.sin(np.arange(N) / 20)
    return rng.normal(0, 0.002, N), smile, rng.normal(0, 0.001, (N, 2)), opening


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


def test_values_tell_the_expression_whatever_the_pose(expression, rng):
    points = moving_face.seen(moving_face.moved(*expression), rng)
    values = dial_values(points, moving_face.mean_shape(), np.zeros(N))
    brows, smile, gaze, _ = expression
    for name, truth in zip(NAMES, (brows, smile, *gaze.T), strict=True):
        inner = np.abs(values[name]) < LARGEST  # those that were not clipped
        assert correlation(values[name][inner], truth[inner]) > 0.99, name
        assert abs(np.median(values[name])) < 1e-6 and values[name].max() <= LARGEST
        # By the median deviation; that of a sine is larger beside its standard deviation than that of a normal value.
        assert values[name].std() == pytest.approx(0.67 if name == "smile" else 1, abs=0.15), name
        assert all(abs(correlation(values[name], values[other])) < 0.2 for other in NAMES if other != name)


def test_what_the_portrait_knows_anyway_is_taken_out(expression, rng):
    brows, smile, gaze, opening = expression
    closure = np.clip(rng.normal(0, 0.2, N), 0, 0.45)
    # Brows that fall in a blink, corners of the mouth that rise as it opens, and a gaze that follows the lids.
    along = brows - 0.01 * closure, smile + 0.5 * opening, gaze - 0.01 * closure[:, None], opening
    points = moving_face.seen(moving_face.moved(*along), rng)
    values = dial_values(points, moving_face.mean_shape(), closure)
    for name, truth in zip(NAMES, (brows, smile, *gaze.T), strict=True):
        assert correlation(values[name], truth) > 0.97, name
        assert abs(correlation(values[name], closure)) < 0.1
    assert abs(correlation(values["smile"], opening)) < 0.1


def test_lips_that_round_for_a_sound_are_no_smile(expression, rng):
    brows, smile, gaze, opening = expression
    sounds = 0.002 * np.sin(np.arange(N) * 1.3)  # 5 per second
    points = moving_face.seen(moving_face.moved(brows, smile + sounds, gaze, opening), rng)
    values = dial_values(points, moving_face.mean_shape(), np.zeros(N))
    assert correlation(values["smile"], smile) > 0.97
    assert abs(correlation(values["smile"], sounds)) < 0.1


def test_frames_without_face_or_irises_are_interpolated(expression, rng):
    points = moving_face.seen(moving_face.moved(*expression), rng)
    closure = np.zeros(N)
    closure[10:12] = 1
    points[10:12, moving_face.IRISES] += 30  # nobody sees them
    points[20] = np.nan
    values = dial_values(points, moving_face.mean_shape(), closure)
    for name in ("gaze-x", "gaze-y"):
        before, *between, after = values[name][9:13]
        assert between == pytest.approx(before + (after - before) * np.array([1, 2]) / 3, abs=1e-6)
    for name in ("brows", "gaze-x", "gaze-y"):
        assert values[name][20] == pytest.approx((values[name][19] + values[name][21]) / 2, abs=1e-6)


def test_too_few_frames(expression, rng):
    points = moving_face.seen(moving_face.moved(*expression), rng)
    with pytest.raises(ValueError, match="at least 2 frames of a face with open eyes, got 0 of 400; record a longer"):
        dial_values(points, moving_face.mean_shape(), np.ones(N))


def test_boxes_hold_their_region_and_no_other():
    shape = moving_face.mean_shape()
    boxes = dial_boxes(shape)
    dials = Dials(len(NAMES), 3, 4)
    dials.boxes.copy_(torch.from_numpy(np.stack([boxes[name] for name in NAMES])))
    in_scene = torch.from_numpy(4 * shape[:, [1, 2, 0]]).float()
    masks = dict(zip(NAMES, dials.reach(in_scene, torch.ones(len(NAMES))).numpy(), strict=True))
    regions = {
        "brows": moving_face.BROWS,
        "smile": [*moving_face.MOUTH_CORNERS, *moving_face.LIP_UPPER, *moving_face.LIP_LOWER],
        "gaze": [*moving_face.IRISES, *moving_face.LIDS_UPPER, *moving_face.LIDS_LOWER, *moving_face.EYE_CORNERS],
    }
    for group, names in DIAL_GROUPS.items():
        for name in names:
            for region, points in regions.items():
                expected = 1 if region == group else 0
                assert masks[name][points] == pytest.approx(expected, abs=1e-5), (name, region)


def write_mesh(folder, points, shape):
    (folder / "preprocess").mkdir(exist_ok=True)
    write_arrays(folder / "preprocess" / "mesh.npz", points=points, valid=np.ones(len(points), bool))
    write_arrays(folder / "preprocess" / "head.npz", shape=shape)


def test_dials_of_a_capture(expression, rng, tmp_path):
    points, shape = moving_face.seen(moving_face.moved(*expression), rng).astype(np.float32), moving_face.mean_shape()
    write_mesh(tmp_path, points, shape)
    found = read_dials(tmp_path, ("smile", "gaze-y"), np.zeros(N, np.float32))
    assert found.values.shape == (N, 2) and found.boxes.shape == (2, 2, 2, 2) and found.values.dtype == np.float32
    expected = dial_values(points, shape, np.zeros(N))
    np.testing.assert_allclose(found.values[:, 1], expected["gaze-y"], atol=1e-5)
    np.testing.assert_allclose(found.boxes[0], dial_boxes(shape)["smile"], rtol=1e-6)


def test_captures_without_a_mesh(tmp_path):
    with pytest.raises(CaptureError, match=r"mesh.npz: expected the face mesh that dials are measured on, got no such"):
        read_dials(tmp_path, ("brows",), np.zeros(N))
    write_mesh(tmp_path, np.zeros((N - 1, 478, 3), np.float32), moving_face.mean_shape())
    with pytest.raises(CaptureError, match=r"expected points \[400, 478, 3\] .*, got \[399, 478, 3\].*preprocess the"):
        read_dials(tmp_path, ("brows",), np.zeros(N))
