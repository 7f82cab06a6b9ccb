import numpy as np
import pytest

from ernerf_ti.data.mouth import lip_opening
from ernerf_ti.evaluation import mesh_metrics as module
from ernerf_ti.evaluation.mesh_measures import LOWER, UPPER, action_measures, lid_aperture, mouth_measures
from ernerf_ti.evaluation.mesh_metrics import Meshes, lip_distance, mesh_metrics
from ernerf_ti.evaluation.metric import MetricValue, NotComputed
from ernerf_ti.preprocess.face_mesh import N_POINTS, ibug_landmarks
from tests.evaluation.conftest import mesh_face

METRICS = {metric.name: metric for metric in mesh_metrics()}


def faces(n=40, seed=0):
    """[n, 478, 3]: a random face that moves its lips and lids, in pixels."""
    rng = np.random.default_rng(seed)
    points = np.repeat(100 + 40 * rng.standard_normal((1, N_POINTS, 3)), n, 0)
    open_lips, closed_eyes = rng.uniform(0, 10, (2, n))
    for lower in (14, 87, 317):
        points[:, lower, 1] += open_lips
    for upper, below in ((160, 144), (158, 153), (385, 380), (387, 373)):
        points[:, upper] = points[:, below] + np.array([0, -12, 0])
        points[:, upper, 1] += closed_eyes
    return points.astype(np.float32)


@pytest.fixture
def compared(make_setting):
    """A setting whose images have known meshes."""

    def make(rendered, true, valid=None):
        n = len(true)
        blank = np.zeros((n, 4, 4, 3), np.uint8)
        setting = make_setting(blank, blank)
        valid = np.ones(n, bool) if valid is None else valid
        setting.images.cached("meshes", lambda _: Meshes(rendered, valid))
        setting.truth.cached("meshes", lambda _: Meshes(true, np.ones(n, bool)))
        return setting

    return make


def test_equal_meshes_have_no_error_and_full_correlation(compared):
    setting = compared(faces(), faces())
    for name in ("LMD", "mesh AUE upper", "mesh AUE lower"):
        assert METRICS[name].measure(setting, 0).value == 0
    for name in ("mouth-opening correlation", "blink correlation"):
        assert METRICS[name].measure(setting, 0).value == pytest.approx(1)


def test_lip_distance_by_hand():
    true = faces(2)
    moved = true + np.array([7, -3, 50], np.float32)  # a common translation, which is subtracted
    np.testing.assert_allclose(lip_distance(moved, true), 0, atol=1e-4)
    grown = true.copy()
    lips = ibug_landmarks(np.arange(N_POINTS)[:, None].repeat(2, 1))[48:, 0]
    assert len(set(lips)) == 20
    grown[:, lips[0], 0] += 20  # one of 20 points, by 20 px: itself by 19, the others by 1
    np.testing.assert_allclose(lip_distance(grown, true), (19 + 19 * 1) / 20, rtol=1e-4)


def test_action_error_by_hand(compared):
    true = faces(20)
    eyes = np.linalg.norm(true[:, [33, 133]].mean(1) - true[:, [263, 362]].mean(1), axis=1)
    # The chin, along the line to the nose, by a tenth of the eyes' distance: one of five measures of the lower face.
    rendered, down = true.copy(), true[:, 152] - true[:, 2]
    rendered[:, 152] += (0.1 * eyes / np.linalg.norm(down, axis=1))[:, None] * down
    found = METRICS["mesh AUE lower"].measure(compared(rendered, true), 0)
    assert found.value == pytest.approx(100 * 0.1 / len(LOWER), rel=1e-3)
    assert METRICS["mesh AUE upper"].measure(compared(rendered, true), 0).value == pytest.approx(0, abs=1e-4)


def test_closed_lip_gap_by_hand(compared):
    true, rendered = mesh_face(4), mesh_face(4)
    lips = (87, 14, 317)
    true[:2, lips] = true[:2, (82, 13, 312)]  # closed in two frames of four
    rendered[0, lips] = true[0, (82, 13, 312)] + np.array([0, 3, 0], np.float32)  # of 60: 5 %
    found = METRICS["closed-lip gap"].measure(compared(rendered, true), 0)
    assert (found.n_frames, found.value) == (2, pytest.approx((5 + 20) / 2, rel=1e-5))
    assert np.isnan(found.per_frame[2:]).all()
    assert METRICS["closed-lip gap"].measure(compared(rendered, mesh_face(4)), 0).reason == "no frame has a value"


def blinking(apertures):
    """[n, 478, 3]: eyes 60 px apart whose lids are `apertures` [n] px apart."""
    points = mesh_face(len(apertures))
    for corners in ((33, 133), (263, 362)):
        points[:, list(corners), 1] = 10
    for upper, lower in ((159, 145), (386, 374), (160, 144), (158, 153), (385, 380), (387, 373)):
        points[:, [upper, lower], 0] = points[:, [33 if upper in (159, 160, 158) else 263], 0] + 8
        points[:, upper, 1] = 10 - np.asarray(apertures) / 2
        points[:, lower, 1] = 10 + np.asarray(apertures) / 2
    return points


def test_lid_aperture_by_hand():
    np.testing.assert_allclose(lid_aperture(blinking([6.0, 1.2, 0.0])), [0.1, 0.02, 0], atol=1e-6)


def test_closed_eye_aperture_sees_an_iris_through_closed_lids(compared):
    true = np.where(np.arange(40) % 10 == 4, 1.2, 9.0)  # closed in four frames of forty
    ghost = np.where(np.arange(40) % 10 == 4, 5.4, 9.0)  # as correlated, but never closed
    setting = compared(blinking(ghost), blinking(true))
    assert METRICS["blink correlation"].measure(setting, 0).value == pytest.approx(1)
    found = METRICS["closed-eye lid aperture"].measure(setting, 0)
    assert (found.value, found.n_frames) == (pytest.approx(9.0), 4)  # 5.4 of 60
    assert found.note == "true aperture 2.00 % of eye distance"
    assert np.flatnonzero(np.isfinite(found.per_frame)).tolist() == [4, 14, 24, 34]
    np.testing.assert_allclose(found.curves["true"], true / 60 * 100, rtol=1e-5)
    np.testing.assert_allclose(found.curves["rendered"], ghost / 60 * 100, rtol=1e-5)
    right = METRICS["closed-eye lid aperture"].measure(compared(blinking(true), blinking(true)), 0)
    assert right.value == pytest.approx(2.0)


def test_closed_eye_aperture_needs_closed_eyes(compared):
    setting = compared(blinking(np.full(20, 9.0)), blinking(np.full(20, 9.0)))
    assert METRICS["closed-eye lid aperture"].measure(setting, 0) == NotComputed("no frame with closed eyes")


def test_measures_do_not_depend_on_the_head_pose():
    points = faces(3).astype(float)
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
    moved = 1.7 * points @ turn.T + (100, 50, -20)
    upper, lower = action_measures(points)
    assert (upper.shape, lower.shape) == ((3, len(UPPER)), (3, len(LOWER)))
    for before, after in zip((upper, lower), action_measures(moved), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)
    np.testing.assert_allclose(mouth_measures(moved), mouth_measures(points), rtol=1e-6)


def test_mouth_opening_is_correlated_not_blinks(compared):
    true, rendered = faces(), faces()
    for lower in (14, 87, 317):
        rendered[:, lower, 1] = true[::-1, lower, 1]  # another time's
    setting = compared(rendered, true)
    opening = mouth_measures(true)[:, 0]
    found = METRICS["mouth-opening correlation"].measure(setting, 0)
    assert found.value == pytest.approx(np.corrcoef(opening, opening[::-1])[0, 1], abs=0.02)
    assert found.interval[0] < found.value < found.interval[1]
    np.testing.assert_allclose(found.curves["true"], opening)
    assert METRICS["blink correlation"].measure(setting, 0).value == pytest.approx(1)


def test_frames_without_a_face_are_left_out(compared):
    valid = np.arange(40) >= 4
    rendered = faces()
    rendered[:4] = np.nan
    found = METRICS["LMD"].measure(compared(rendered, faces(), valid), 0)
    assert (found.value, found.n_frames) == (0, 36)
    assert np.isnan(found.per_frame[:4]).all()
    none = METRICS["LMD"].measure(compared(rendered, faces(), np.zeros(40, bool)), 0)
    assert none.reason == "no frame in which a face is found in both the rendered and the true image"


def test_few_frames_or_none_that_move(compared):
    few = METRICS["blink correlation"].measure(compared(faces(7), faces(7)), 0)
    assert few.reason == "expected 8 frames with a face or more, got 7"
    still = np.repeat(faces()[:1], 40, 0)
    assert METRICS["mouth-opening correlation"].measure(compared(still, faces()), 0) == NotComputed("nothing moves")


def test_faces_are_tracked_once(make_setting, monkeypatch):
    calls = []

    class Track:
        def __init__(self, images, n, progress):
            calls.append(np.stack(list(images)).mean())
            self.points, self.valid = faces(n), np.ones(n, bool)

    monkeypatch.setattr(module, "track_face", Track)
    setting = make_setting(np.full((9, 4, 4, 3), 50, np.uint8), np.full((9, 4, 4, 3), 90, np.uint8))
    found = {name: metric.measure(setting, 0) for name, metric in METRICS.items()}
    assert all(isinstance(result, MetricValue) for name, result in found.items() if name != "closed-lip gap")
    assert found["closed-lip gap"] == NotComputed("no frame has a value")
    assert sorted(calls) == [50, 90]


def test_no_face_and_no_tracker(make_setting, monkeypatch):
    def track_face(images, n, progress):
        raise ValueError("video: expected a face, got none in 9 frames")

    monkeypatch.setattr(module, "track_face", track_face)
    blank = np.zeros((9, 4, 4, 3), np.uint8)
    assert METRICS["LMD"].measure(make_setting(blank, blank), 0) == NotComputed(
        "no face is found in the rendered images"
    )
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'ernerf-ti[preprocess]'" in METRICS["LMD"].missing().reason


def test_mouth_measures_by_hand():
    # 12 / 60, 40 / 60, 30 / 40
    np.testing.assert_allclose(mouth_measures(mesh_face(1)), [[0.2, 2 / 3, 0.75]], rtol=1e-6)


def test_lip_opening_by_hand():
    points = np.zeros((1, 68, 2))
    points[:, 36:42, 0], points[:, 42:48, 0] = -30, 30
    points[:, 61:64, 1], points[:, 65:68, 1] = 40, 46
    assert lip_opening(points) == pytest.approx(0.1)
