from types import SimpleNamespace

import numpy as np
import pytest

from ernerf_ti.data.capture_files import HEAD, NECK
from ernerf_ti.evaluation.metric import MetricValue, NotComputed
from ernerf_ti.evaluation.seam_metric import Seam, seam_gradients

ROW = 32  # the first of the neck


def labels():
    regions = np.zeros((64, 64), np.uint8)
    regions[8:ROW, 16:48], regions[ROW:56, 16:48] = HEAD, NECK
    return regions


def person(contrast=40):
    """[64, 64, 3] uint8: a head that is brighter than the neck, with shading and some grain."""
    image = np.repeat(np.linspace(100, 110, 64)[None, :, None], 64, 0)
    image = image + np.random.default_rng(0).integers(0, 3, (64, 64, 1))
    image[:ROW] += contrast
    return np.repeat(image, 3, 2).round().astype(np.uint8)


def test_true_frames_differ_by_nothing():
    truth = person()
    difference, shown, true = seam_gradients(truth, truth, labels())
    assert (difference, shown) == (0, true)
    assert true == pytest.approx(20, abs=3)  # central differences: half of the contrast on either side


def test_a_line():
    truth, shown = person(contrast=0), person(contrast=0)
    shown[ROW - 1, 16:48] += 60
    difference, gradient, true = seam_gradients(shown, truth, labels())
    # The rows of the band are the line itself, where the gradient vanishes, and the one below.
    assert difference == pytest.approx(60 / 2 / 2, abs=1.5)
    assert true < 2 < 12 < gradient


def test_blur_and_displacement():
    flat = np.full_like(person(), 90)
    difference, shown, true = seam_gradients(flat, person(), labels())
    assert shown == 0 and difference == true
    assert seam_gradients(np.roll(person(), 2, 0), person(), labels())[0] > 5


def test_lines_elsewhere_and_along_the_normal_do_not_count():
    shown = person()
    shown[:ROW, 30] += 60  # vertical: only its end meets the border
    shown[50, :] += 60
    assert seam_gradients(shown, person(), labels())[0] < 2


def test_no_border():
    assert np.isnan(seam_gradients(person(), person(), np.full((64, 64), HEAD, np.uint8))).all()


@pytest.fixture
def seam(tmp_path):
    path = tmp_path / "labels"
    path.touch()
    return Seam(
        SimpleNamespace(
            val=SimpleNamespace(audio_ids=np.arange(100, 106), frame_ids=np.arange(200, 206)),
            paths=SimpleNamespace(labels=lambda k: path),
            labels=lambda k: labels() if k >= 202 else np.zeros((64, 64), np.uint8),
        )
    )


def test_metric(make_setting, seam, tmp_path):
    shown = np.stack([person()] * 4)
    shown[3, ROW - 1] += 60
    setting = make_setting(shown, np.stack([person()] * 4), times=np.arange(101, 105), name="portrait")
    result = seam.measure(setting, 0)
    assert isinstance(result, MetricValue) and result.n_frames == 3
    assert np.isnan(result.per_frame[0]) and (result.per_frame[1:3] == 0).all() and result.per_frame[3] > 5
    assert "in the true frames" in result.note
    assert seam.missing() is None
    (tmp_path / "labels").unlink()
    assert "segmentation masks" in seam.missing().reason


def test_not_computed(make_setting, seam):
    images = np.stack([person()] * 2)
    without_torso = make_setting(images, images, times=np.arange(102, 104), name="head_only")
    assert seam.measure(without_torso, 0) == NotComputed("there is no torso")
    without_border = make_setting(images, images, times=np.arange(100, 102), name="portrait")
    assert seam.measure(without_border, 0) == NotComputed("no frame has a border between head and torso")
