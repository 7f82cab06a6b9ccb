"""Metrics of a video of a talking head, on made-up meshes."""

import numpy as np
import pytest

from ernerf_ti.evaluation.head_motion import eye_distance
from ernerf_ti.evaluation.mesh_metrics import Meshes
from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.evaluation.video_frames import framing
from ernerf_ti.evaluation.video_metrics import HEAD_LAG, video_metrics
from ernerf_ti.preprocess.face_mesh import N_POINTS
from tests.evaluation.conftest import smooth_noise

METRICS = {metric.name: metric for metric in video_metrics()}
LOWER_LIP, UPPER_LIP = (87, 14, 317), (82, 13, 312)
RATE, FRAME = 16_000, 640


def talking(n=120, seed=0):
    """[n, 478, 3] a head that wanders and opens its mouth by 0 to a third of the eye distance, in pixels."""
    rng = np.random.default_rng(seed)
    face = 100 + 40 * rng.standard_normal((N_POINTS, 3))
    face[list(LOWER_LIP)] = face[list(UPPER_LIP)]
    points = np.repeat(face[None], n, 0)
    points[..., :2] += 3 * np.stack([smooth_noise(n, 15, rng) for _ in range(2)], 1)[:, None]
    return open_mouth(points, np.clip(0.15 + 0.1 * smooth_noise(n, 4, rng), 0, 0.3))


def open_mouth(points, opening, frames=slice(None)):
    """Set the opening [n], relative to the eye distance, in some frames of points [N, 478, 3]; returns the points."""
    gap = np.broadcast_to(opening * eye_distance(points)[frames], len(points[frames]))
    points[frames, LOWER_LIP, 1] = points[frames, UPPER_LIP, 1] + gap[:, None]
    return points


@pytest.fixture
def compared(make_setting):
    """A setting whose images have known meshes."""

    def make(points, true=None, samples=None, valid=None):
        n = len(points)
        blank = np.zeros((n, 4, 4, 3), np.uint8)
        setting = make_setting(blank, None if true is None else blank, samples)
        for images, mesh in ((setting.images, points), (setting.truth, true)):
            if mesh is not None:
                meshes = Meshes(mesh.astype(np.float32), np.ones(n, bool) if valid is None else valid)
                images.cached("meshes", lambda _, meshes=meshes: meshes)
        return setting

    return make


def value(name, setting):
    return METRICS[name].measure(setting, 0).value


def test_a_late_video_is_late_in_mouth_and_head(compared):
    points = talking(123)
    setting = compared(points[:-3], points[3:])
    for name in ("mouth lag", HEAD_LAG):
        found = METRICS[name].measure(setting, 0)
        assert found.value == pytest.approx(3, abs=0.1)
        assert found.interval[0] <= found.value <= found.interval[1]
        assert found.note.startswith("r = 1.000 at this lag")
    assert value("mouth lag", compared(points[3:], points[:-3])) == pytest.approx(-3, abs=0.1)


def test_no_lag_of_a_mouth_that_stands_still_or_says_something_else(compared):
    points, still = talking(), open_mouth(talking(), 0.1)
    other = open_mouth(talking(), 0.15 + 0.1 * smooth_noise(len(points), 4, np.random.default_rng(9)))
    assert METRICS["mouth lag"].measure(compared(still, points), 0) == NotComputed("it hardly moves")
    found = METRICS["mouth lag"].measure(compared(other, points), 0)
    assert isinstance(found, NotComputed) and found.reason.startswith("the motions agree at no lag")
    assert METRICS["mouth lag"].measure(compared(points[:30], points[:30]), 0).reason == (
        "expected 40 frames or more, got 30"
    )
    assert "expected 6 stretches" in METRICS["drift of the mouth lag"].measure(compared(points, points), 0).reason


def test_drift_of_the_head_is_slow_motion(compared):
    true, moved, shaky = talking(), talking(), talking()
    eyes = eye_distance(true).mean()
    moved[..., 0] += 7 + 0.1 * eyes * np.linspace(0, 1, len(true))[:, None]  # a constant shift does not count
    assert value("head drift", compared(moved, true)) == pytest.approx(2.5, rel=0.05)
    shaky[..., 0] += 0.02 * eyes * (-1.0) ** np.arange(len(true))[:, None]
    assert value("head drift", compared(shaky, true)) < 0.2
    assert value("head jitter", compared(shaky)) > 2 > 10 * value("head drift", compared(true, true))


def test_wobble_is_blind_to_the_head_and_the_mouth(compared):
    points, rng = talking(), np.random.default_rng(1)
    steady = value("wobble", compared(points))
    assert steady < 0.01
    shaken = points + rng.normal(0, 1, (len(points), 1, 3))
    shaken[:, LOWER_LIP] += rng.normal(0, 3, (len(points), 1, 3))
    assert value("wobble", compared(shaken)) == pytest.approx(steady, abs=0.01)
    noise = rng.normal(0, 0.01 * eye_distance(points).mean(), points.shape)
    assert value("wobble", compared(points + noise)) == pytest.approx(1, rel=0.15)
    valid = np.arange(len(points)) != 50
    assert METRICS["wobble"].measure(compared(points, valid=valid), 0).n_frames == len(points) - 5


def speech(n, pause):
    """[n * 640] a loud tone that is silent in a slice of the frames."""
    sound = 0.3 * np.sin(np.arange(n * FRAME) * 0.1)
    sound[pause.start * FRAME : pause.stop * FRAME] = 0
    return sound


def test_an_open_mouth_in_silence(compared):
    true, points, pause = talking(), talking(), slice(40, 90)
    open_mouth(true, 0.0, pause)
    open_mouth(points, 0.1, pause)
    sound = speech(len(true), pause)
    found = METRICS["opening in silence"].measure(compared(points, true, sound), 0)
    assert (found.value, found.n_frames) == (pytest.approx(10, rel=0.05), 90 - 40 - 8 - 5)
    assert found.note.endswith("% of eye distance above the reference's closed mouth")
    assert float(found.note.split()[0]) == pytest.approx(10, rel=0.05)
    assert value("opening in silence", compared(true, None, sound)) == pytest.approx(0, abs=0.01)
    loud = speech(len(true), slice(0, 0))
    assert "no silence" in METRICS["opening in silence"].measure(compared(points, true, loud), 0).reason
    assert METRICS["opening in silence"].measure(compared(points), 0) == NotComputed("there is no sound")


def test_a_mouth_that_never_closes(compared):
    closing, ajar = talking(), talking()
    ajar[:, LOWER_LIP, 1] += 0.05 * eye_distance(ajar)[:, None]
    assert value("least lip opening", compared(closing)) < 0.5
    found = METRICS["least lip opening"].measure(compared(ajar), 0)
    assert found.value == pytest.approx(value("least lip opening", compared(closing)) + 5, abs=0.1)
    assert found.interval[0] <= found.value <= found.interval[1]


def test_loudness_follows_the_mouth(compared):
    points = talking()
    opening = points[:, 14, 1] - points[:, 13, 1]
    amplitude = 0.3 * 10 ** ((opening / opening.max() - 1) * 30 / 20)  # 30 dB between closed and open
    sound = np.repeat(amplitude, FRAME) * np.sin(np.arange(len(points) * FRAME) * 0.3)
    assert value("loudness-to-mouth correlation", compared(points, None, sound)) > 0.99
    other = compared(talking(seed=4), None, sound)
    assert value("loudness-to-mouth correlation", other) < 0.5
    assert METRICS["loudness-to-mouth correlation"].measure(compared(points), 0) == NotComputed("there is no sound")


def test_nothing_without_a_face(compared):
    points = talking()
    none = compared(points, points, speech(len(points), slice(0, 50)), np.zeros(len(points), bool))
    for metric in METRICS.values():
        assert isinstance(metric.measure(none, 0), NotComputed), metric.name


def test_framing():
    true = talking()
    valid = np.ones(len(true), bool)
    eyes = eye_distance(true).mean()

    def of(points):
        return framing(Meshes(points, valid), Meshes(true, valid))

    text, same = of(true + (0.1 * eyes, 0, 0))
    assert same and "1.000 times as large" in text and "+10.0 % of the eye distance to the right" in text
    assert not of(true + (0, 0.3 * eyes, 0))[1]
    center = true.mean((0, 1))
    text, same = of(1.2 * (true - center) + center)
    assert not same and "1.200 times as large" in text
    assert framing(Meshes(true, ~valid), Meshes(true, valid)) == ("no frame with a face in both videos", True)
