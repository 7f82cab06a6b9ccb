"""Metrics of lips that should be closed."""

from types import SimpleNamespace

import numpy as np
import pytest

from ernerf_ti.evaluation import lip_metrics as module
from ernerf_ti.evaluation.lip_metrics import ClosedMouth, lip_metrics
from ernerf_ti.evaluation.mesh_metrics import Meshes, mesh_metrics
from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.evaluation.pixel_metrics import Psnr
from tests.evaluation.conftest import landmarks, mesh_face

CLOSED = 0.01


def meshes(openings, valid=None):
    """Meshes whose inner lips are as far apart, relative to the eye distance of 60 px."""
    points = mesh_face(len(openings))
    for upper, lower in ((82, 87), (13, 14), (312, 317)):
        points[:, upper, 1], points[:, lower, 1] = 50, 50 + 60 * np.asarray(openings)
    return Meshes(points, np.ones(len(openings), bool) if valid is None else np.asarray(valid))


@pytest.fixture
def metrics(monkeypatch):
    """The metrics by name, for a capture whose closed mouth is known."""
    monkeypatch.setattr(ClosedMouth, "opening", CLOSED)
    return {metric.name: metric for metric in lip_metrics(None)}


@pytest.fixture
def spoken(make_setting, monkeypatch):
    """A setting with the openings of its images, in which p, b or m is heard at times."""

    def make(rendered, heard, true=None, times=None, valid=None):
        monkeypatch.setattr(module, "heard_closures", lambda samples: np.array(heard, int))
        blank = np.zeros((len(rendered), 4, 4, 3), np.uint8)
        setting = make_setting(blank, None if true is None else blank, np.zeros(640), times, name="closures")
        setting.images.cached("meshes", lambda _: meshes(rendered, valid))
        if true is not None:
            setting.truth.cached("meshes", lambda _: meshes(true))
        return setting

    return make


def test_opening_in_silence(metrics, make_setting):
    metric = metrics["mouth opening in silence"]
    openings = np.array([0.01, 0.02, 0.03, 0.9, 0.04])
    setting = make_setting(np.zeros((5, 4, 4, 3), np.uint8), name="silence")
    setting.images.cached("meshes", lambda _: meshes(openings, [True, True, True, False, True]))
    found = metric.measure(setting, 0)
    assert found.value == pytest.approx(100 * (0.025 - CLOSED), rel=1e-4)
    np.testing.assert_allclose(found.per_frame, [0, 1, 2, np.nan, 3], atol=1e-3)
    assert (found.n_frames, found.note) == (4, "the capture's closed mouth has 1.00 % of eye distance")


def test_no_face_in_silence(metrics, make_setting, monkeypatch):
    metric = metrics["mouth opening in silence"]
    setting = make_setting(np.zeros((2, 4, 4, 3), np.uint8), name="silence")
    setting.images.cached("meshes", lambda _: NotComputed("no face"))
    assert metric.measure(setting, 0) == NotComputed("no face is found in the images")
    monkeypatch.setattr(ClosedMouth, "opening", NotComputed("no closed mouth"))
    other = make_setting(np.zeros((2, 4, 4, 3), np.uint8), name="silence")
    other.images.cached("meshes", lambda _: meshes([0.1, 0.1]))
    assert metric.measure(other, 0) == NotComputed("no closed mouth")


def test_the_smallest_opening_around_each_closure_counts(metrics, spoken):
    rendered, true = np.full((2, 40), 0.2)
    rendered[[8, 20]], true[[12, 20]] = (0.02, 0.05), (0.0, 0.015)
    setting = spoken(rendered, [10, 20, 35], true)
    opening = metrics["mouth opening at p, b, m"].measure(setting, 0)
    assert opening.value == pytest.approx(100 * (0.02 + 0.05 + 0.2) / 3, rel=1e-4)
    assert (opening.n_frames, opening.per_frame) == (3, None)
    assert opening.note == f"3 heard; true opening {100 * (0.0 + 0.015 + 0.2) / 3:.2f} % of eye distance"
    np.testing.assert_allclose(opening.curves["rendered"], 100 * rendered, rtol=1e-4)
    closed = metrics["closed at p, b, m"].measure(setting, 0)
    assert closed.value == pytest.approx(100 / 3)
    assert closed.note == "3 heard; true lips close at 2, the rendered ones at 1 of these"


def test_only_closures_with_all_frames_around_count(metrics, spoken):
    rendered = np.full(15, 0.2)
    rendered[2] = 0.0
    times = np.array([*range(10, 15), *range(40, 45), *range(60, 64), 70])
    valid = np.arange(15) != 7  # no face in the second group
    setting = spoken(rendered, [5, 12, 13, 42, 62, 70], times=times, valid=valid)
    found = metrics["mouth opening at p, b, m"].measure(setting, 0)
    assert (found.value, found.n_frames, found.note) == (pytest.approx(0, abs=1e-4), 1, "1 heard")
    assert metrics["closed at p, b, m"].measure(setting, 0).value == 100


@pytest.mark.parametrize("name", ["mouth opening at p, b, m", "closed at p, b, m"])
def test_without_closures(metrics, spoken, make_setting, name):
    evenly_spaced = spoken(np.full(10, 0.1), [12], times=np.arange(0, 40, 4))
    assert metrics[name].measure(evenly_spaced, 0).reason == "no p, b or m is heard in consecutive frames"
    silent = make_setting(np.zeros((5, 4, 4, 3), np.uint8))
    assert metrics[name].measure(silent, 0).reason == "there is no sound"
    unseen = spoken(np.full(10, 0.1), [5], valid=np.zeros(10, bool))
    assert metrics[name].measure(unseen, 0).reason == "no face is found around the heard p, b and m"


def test_settings_of_the_metrics(metrics, make_setting):
    truth = np.zeros((1, 4, 4, 3), np.uint8)
    applicable = {
        name: {metric.name for metric in [*metrics.values(), *mesh_metrics(), Psnr("frame")] if metric.applies_to(made)}
        for name, made in {
            "head": make_setting(truth, truth),
            "cross_speaker": make_setting(truth, name="cross_speaker"),
            "silence": special(make_setting(truth, name="silence")),
            "closures": special(make_setting(truth, truth, name="closures")),
        }.items()
    }
    at_closures = {"mouth opening at p, b, m", "closed at p, b, m"}
    assert applicable["cross_speaker"] == applicable["closures"] == at_closures
    assert applicable["silence"] == {"mouth opening in silence"}
    assert {"PSNR frame", "LMD"} < applicable["head"] and not applicable["head"] & set(metrics)


def special(setting):
    object.__setattr__(setting, "is_special", True)
    return setting


def test_closed_mouth_of_a_capture(monkeypatch):
    openings = np.where(np.arange(60) % 20 < 5, 0.004, 0.1)

    def points_of(k):
        points = landmarks(size=20.0)
        points[60:68, 1] = 40
        points[65:68, 1] += 16 * openings[k]  # the eyes are 16 px apart
        return points

    class Capture:
        train = SimpleNamespace(frame_ids=np.arange(60))

        def landmarks(self, k):
            return points_of(k)

        def image(self, k):
            return np.full((1, 1, 3), k, np.uint8)

    seen = []

    def found(images):
        seen.extend(int(image[0, 0, 0]) for image in images)
        return meshes(0.02 + openings[seen])

    monkeypatch.setattr(module, "meshes_of", found)
    assert ClosedMouth(Capture()).opening == pytest.approx(0.024, rel=1e-4)
    assert len(seen) <= 12 and openings[seen].max() == 0.004
    monkeypatch.setattr(module, "meshes_of", lambda images: NotComputed("no face"))
    assert isinstance(ClosedMouth(Capture()).opening, NotComputed)
