from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ernerf_ti.data.capture_files import HEAD
from ernerf_ti.evaluation.dials import REGIONS, dial_metrics, dial_regions, dial_settings
from ernerf_ti.evaluation.evaluation import measure_all
from ernerf_ti.process.ranks import Ranks
from tests.evaluation.test_leak import N, capture, face, held_out, labels  # noqa: F401, two fixtures

NAMES = ("brows", "gaze-x")


def landmarks() -> np.ndarray:
    """[68, 2] a face whose brows, eyes and mouth have some extent, 20 px between the eyes."""
    points = face()
    points[17:22, 0], points[22:27, 0] = np.linspace(34, 46, 5), np.linspace(54, 66, 5)
    points[36:42] += np.array([(-4, 0), (-2, -2), (2, -2), (4, 0), (2, 2), (-2, 2)])
    points[42:48] += np.array([(-4, 0), (-2, -2), (2, -2), (4, 0), (2, 2), (-2, 2)])
    points[48:68] = (50, 80)
    points[48], points[54] = (42, 80), (58, 82)
    return points


@pytest.fixture
def trained():
    """Its brows are lighter by 10 for each unit of their dial, and its eyes redder by 30 for each of gaze-x."""
    masks = {name: torch.from_numpy(mask) for name, mask in dial_regions(landmarks(), labels() == HEAD).items()}

    def render(inputs, background, with_torso, with_attention):
        assert not with_torso and not with_attention
        rgb = torch.full((100, 100, 3), 100.0) + inputs.head_pose
        rgb[masks["brows"]] += 10 * inputs.dials[0]
        rgb[..., 0][masks["eyes"]] += 30 * inputs.dials[1]
        return SimpleNamespace(rgb=rgb / 255)

    def dials(values):
        return torch.tensor([values.get(name, 0.0) for name in NAMES])

    return SimpleNamespace(background=torch.zeros(100, 100, 3), render=render, dial_names=NAMES, dials=dials)


def test_regions():
    masks = dial_regions(landmarks(), labels() == HEAD)
    assert tuple(masks) == REGIONS
    boxes = {
        name: (np.argwhere(mask).min(0).tolist(), np.argwhere(mask).max(0).tolist())
        for name, mask in masks.items()
        if name in ("brows", "eyes", "mouth")
    }
    # With 1.6 px around brows and mouth, and 0.4 around the eyes.
    assert boxes == {
        "brows": ([52, 32], [55, 67]),
        "eyes": ([58, 36], [61, 63]),
        "mouth": ([78, 40], [83, 59]),
    }
    assert not masks["eyes"][:, 45:55].any() and not any((masks["eyes"] & masks[other]).any() for other in ("brows",))
    turned = dial_regions(landmarks()[:, ::-1] * (-1, 1) + (100, 0), np.rot90(labels() == HEAD, -1))
    for name, mask in masks.items():
        assert np.array_equal(np.rot90(mask, -1), turned[name]), name


def test_each_dial_moves_its_region(trained, capture, held_out, tmp_path):  # noqa: F811
    capture.landmarks = lambda k: landmarks()
    settings = dial_settings(trained, capture, held_out, tmp_path, Ranks())
    assert [setting.name for setting in settings] == ["dial_brows", "dial_gaze_x"]
    assert all(setting.is_special and len(setting) == N for setting in settings)
    metrics = dial_metrics(NAMES, capture)
    values = measure_all(settings, metrics, {metric.name: metric.missing() for metric in metrics}, seed=0)
    table = {setting: [values[setting, f"dial moves {region}"].value for region in REGIONS] for setting, _ in values}
    assert table == {"dial_brows": [20, 0, 0, 0, 0], "dial_gaze_x": [0, 20, 0, 0, 0]}


def test_a_portrait_without_dials(trained, capture, held_out, tmp_path):  # noqa: F811
    trained.dial_names = ()
    assert dial_settings(trained, capture, held_out, tmp_path, Ranks()) == [] and dial_metrics((), capture) == []
    assert not list(tmp_path.iterdir())
