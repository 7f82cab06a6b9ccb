"""Output of an evaluation: the table, the JSON file, the page."""

import html
import json
import re

import numpy as np
import pytest

from ernerf_ti.evaluation.evaluation import Evaluation, measure
from ernerf_ti.evaluation.metric import MetricValue, NotComputed, SequenceMetric, mean_over_frames
from ernerf_ti.evaluation.page import page, plot, worst
from ernerf_ti.evaluation.pixel_metrics import Psnr, Ssim
from ernerf_ti.evaluation.results_text import as_json, not_computed, notes, summary, table

FACTS = {
    "run": {"folder": "runs/<speaker>", "stage": "torso", "step": 30},
    "capture": {
        **{"evaluated_frames": 9, "held_out_frames": 9, "held_out_ids": [90, 98], "training_frames": 90},
        "size": [64, 64],
    },
    "model": {"parameters": {"all": 1000}, "megabytes": 0.004, "checkpoint_megabytes": 1.5},
    "training_seconds": {"head": 60.0, "torso": 30.0, "all": 90.0},
    "speed": {"head, rendering only": {"frames_per_second": 2.5, "how": "median"}},
    "machine": {"device": "a CPU", "threads": 2},
    "versions": {"torch": "2"},
    "commit": None,
}


class Frames(SequenceMetric):
    """The number of frames, with curves in settings without a ground truth."""

    name, unit, better, description = "frames", "r", "higher", "counted"
    needs_truth = False

    def measure(self, setting, seed):
        curves = {"a": np.arange(9.0), "b": np.full(9, np.nan)} if setting.truth is None else None
        return MetricValue(float(len(setting)), None, None, len(setting), "counted", curves)


class Unavailable(SequenceMetric):
    name, unit, better, description = "unavailable", "", "lower", "with weights"

    def measure(self, setting, seed):
        raise AssertionError("its weights are missing")


@pytest.fixture
def evaluation(make_setting):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 200, (9, 64, 64, 3), np.uint8)
    shown = truth.copy()
    shown[4] += 40
    shown[0] += 5
    settings = [make_setting(shown, truth, name="head"), make_setting(truth, None, name="truth")]
    metrics = [Psnr("frame"), Psnr("face"), Ssim("frame"), Frames(), Unavailable()]
    missing = NotComputed("needs the weights of a network", "net.pth", "/folder")
    missing = {metric.name: missing if metric.name == "unavailable" else None for metric in metrics}
    results = {}
    for setting in settings:
        asked = [metric for metric in metrics if metric.applies_to(setting)]
        results |= {(setting.name, name): result for name, result in measure(setting, asked, missing, 0).items()}
    return Evaluation(FACTS, metrics, settings, results)


def test_values_per_frame_and_their_mean(evaluation):
    found = evaluation.results["head", "PSNR frame"]
    expected = [Psnr("frame").of_frame(s, t, np.zeros((68, 2))) for s, t in zip(*rows(evaluation), strict=True)]
    np.testing.assert_allclose(found.per_frame, expected)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.interval[0] <= found.value <= found.interval[1]
    assert found.interval[1] - found.interval[0] > 1


def rows(evaluation):
    return evaluation.settings[0].images, evaluation.settings[0].truth


def test_frames_without_a_value():
    values, times = np.array([1.0, np.nan, 3.0]), np.arange(3)
    found = mean_over_frames(values, times, 0)
    assert (found.value, found.n_frames, found.interval) == (2, 2, None)
    assert mean_over_frames(values[1:2], times[:1], 0) == NotComputed("no frame has a value")


def test_table(evaluation):
    head, *lines = table(evaluation)
    assert head == ["", "head", "truth"]
    named = {line[0]: line[1:] for line in lines}
    assert set(named) == {"PSNR frame (dB) ^", "PSNR face (dB) ^", "SSIM frame ^", "frames ^"}
    assert named["frames ^"] == ["9.000", "9.000"]
    value, low, high = map(float, re.fullmatch(r"(\S+) \[(\S+) (\S+)\]", named["PSNR frame (dB) ^"][0]).groups())
    assert low < value < high
    assert named["PSNR frame (dB) ^"][1] == "-"
    assert not_computed(evaluation) == [
        ("unavailable", "needs the weights of a network: put net.pth into /folder"),
    ]
    assert notes(evaluation) == [("frames", "counted")]
    assert "note: frames: counted" in summary(evaluation)
    text = summary(evaluation)
    assert "not computed: unavailable: needs the weights of a network: put net.pth into /folder" in text
    assert "training: 1.5 minutes (head 1.0, torso 0.5)" in text
    assert "speed, head, rendering only: 2.50 frames/s (median)" in text


def test_reason_of_one_setting_names_it(evaluation):
    evaluation.results["truth", "frames"] = NotComputed("nothing moves")
    assert ("frames (truth)", "nothing moves") in not_computed(evaluation)


def test_json_is_plain_and_complete(evaluation):
    evaluation.results["head", "PSNR face"].per_frame[2] = np.nan
    content = json.loads(json.dumps(as_json(evaluation), allow_nan=False))
    assert content["run"] == FACTS["run"]
    assert content["metrics"]["PSNR frame"] == {
        "unit": "dB",
        "better": "higher",
        "description": Psnr("frame").description,
    }
    head = content["settings"]["head"]
    assert head["times"] == list(range(9))
    assert len(head["metrics"]["PSNR frame"]["per_frame"]) == 9
    assert head["metrics"]["PSNR face"]["per_frame"][2] is None
    assert head["metrics"]["frames"] == {"value": 9.0, "interval_95": None, "n_frames": 9, "note": "counted"}
    assert head["metrics"]["unavailable"] == {
        "not_computed": "needs the weights of a network",
        "file": "net.pth",
        "folder": "/folder",
    }
    assert set(content["settings"]["truth"]["metrics"]) == {"frames"}
    curves = content["settings"]["truth"]["metrics"]["frames"]["curves"]
    assert curves == {"a": list(range(9)), "b": [None] * 9}


def test_worst_frames_are_apart():
    values = np.zeros(100)
    values[[10, 11, 12, 50, 90]] = (5, 9, 6, 7, np.nan)
    assert worst(MetricValue(0, None, values, 99), "lower")[:2] == [11, 50]
    values = -values
    assert worst(MetricValue(0, None, values, 99), "higher")[:2] == [11, 50]


def test_page_shows_the_worst_frame_first(evaluation):
    text = page(evaluation)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert captions[0].startswith("head, frame at 0.16 s: PSNR face")  # frame 4 is off by 40
    assert text.count("data:image/jpeg;base64,") == len(captions) > 0
    assert "runs/&lt;speaker&gt;" in text
    assert "<speaker>" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert text.count("<svg") == 4  # three metrics, one correlation
    assert "frames = 9.00 (truth)" in text
    assert "/folder" in text
    assert html.escape(Psnr("face").description) in text


def test_plot_leaves_gaps():
    row = np.array([1.0, 2.0, np.nan, 4.0, 3.0])
    svg = plot("a < b", {"head": row, "portrait": row + 1}, np.arange(5) / 25)
    lines = re.findall(r'points="([^"]*)"', svg)
    assert [len(line.split()) for line in lines] == [2, 2, 2, 2]
    assert "a &lt; b" in svg
    heights = [float(point.split(",")[1]) for point in lines[0].split()]
    assert heights[0] > heights[1]  # larger values are higher up
    assert plot("one", {"head": np.array([2.0])}, np.zeros(1)).count("polyline") == 1
