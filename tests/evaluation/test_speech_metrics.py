"""Metrics of the frames in speech alone."""

import dataclasses

import numpy as np
import pytest

from ernerf_ti.evaluation.evaluation import measure
from ernerf_ti.evaluation.metric import MetricValue, NotComputed, SequenceMetric
from ernerf_ti.evaluation.pixel_metrics import Psnr
from ernerf_ti.evaluation.speech_metrics import InSpeech, speech_metrics, spoken_frames

N, PAUSE = 40, slice(14, 22)


@pytest.fixture
def setting(make_setting):
    """40 frames of sound, eight of them a faint pause. There the images are far from the truth."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 200, (N, 16, 16, 3), np.uint8)
    shown = truth + rng.integers(1, 5, (N, 1, 1, 1), np.uint8)
    shown[PAUSE] += 50
    loudness = np.full(N, 0.1)
    loudness[PAUSE] = 0.005
    samples = np.repeat(loudness, 640) * np.sin(np.arange(N * 640))
    return dataclasses.replace(make_setting(shown, truth, name="head"), times=np.arange(N), samples=samples)


class Curves(SequenceMetric):
    """Correlates what is the same but in the pause."""

    name, unit, better, description = "mouth-opening correlation", "r", "higher", "of curves"

    def measure(self, setting, seed):
        true = np.sin(np.arange(N))
        true[5] = np.nan
        rendered = np.append(true[:-1], 3.0)
        rendered[PAUSE] *= -1
        return MetricValue(0.5, None, None, N - 1, curves={"true": true, "rendered": rendered})


def results_in(setting, *metrics):
    return measure(setting, list(metrics), {metric.name: metric.missing() for metric in metrics}, 0)


def test_the_mean_of_the_frames_in_speech(setting):
    whole = Psnr("lips")
    (in_speech,) = speech_metrics([Psnr("frame"), whole])
    assert (in_speech.name, in_speech.unit, in_speech.better) == ("PSNR lips in speech", "dB", "higher")
    found = results_in(setting, whole, in_speech)
    spoken = np.delete(found["PSNR lips"].per_frame, np.arange(N)[PAUSE])
    result = found["PSNR lips in speech"]
    assert result.value == pytest.approx(spoken.mean()) and result.value > found["PSNR lips"].value + 2
    assert result.n_frames == N - 8 and result.interval[0] < result.value < result.interval[1]
    assert result.per_frame is None and result.curves is None


def test_the_correlation_in_speech(setting):
    whole = Curves()
    result = results_in(setting, whole, *speech_metrics([whole]))["mouth-opening correlation in speech"]
    curves = whole.measure(setting, 0).curves
    known = np.isfinite(curves["true"])
    known[PAUSE] = False
    assert result.n_frames == known.sum() == N - 9
    assert result.value == pytest.approx(np.corrcoef(curves["true"][known], curves["rendered"][known])[0, 1])


def test_frames_beyond_the_sound_count_as_speech(setting):
    later = dataclasses.replace(setting, times=np.arange(N) + 14)  # begins in the pause
    result = results_in(later, whole := Psnr("lips"), InSpeech(whole))["PSNR lips in speech"]
    assert result.n_frames == N - 8


def test_where_there_is_nothing_to_measure(setting):
    whole = Psnr("lips")
    in_speech = InSpeech(whole)
    assert in_speech.applies_to(setting)
    assert not in_speech.applies_to(dataclasses.replace(setting, samples=None))
    assert not in_speech.applies_to(dataclasses.replace(setting, truth=None))
    reason = NotComputed("no face")
    in_pause = np.full(N, 15)
    spoken = spoken_frames(setting.samples, in_pause)
    assert in_speech.of_speech(reason, spoken, in_pause, 0) is reason
    nothing = in_speech.of_speech(MetricValue(1.0, None, np.ones(N), N), spoken, in_pause, 0)
    assert nothing == NotComputed("no frame has a value")
    few = np.append(np.full(N - 3, 15), (1, 2, 3))
    curves = Curves().measure(setting, 0)
    assert (
        "expected 8 frames" in InSpeech(Curves()).of_speech(curves, spoken_frames(setting.samples, few), few, 0).reason
    )


def test_what_a_metric_lacks_it_lacks_in_speech_too():
    class Lacking(Curves):
        def missing(self):
            return NotComputed("needs the package")

    assert InSpeech(Lacking()).missing() == NotComputed("needs the package")
