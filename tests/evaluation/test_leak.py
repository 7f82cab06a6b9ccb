from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ernerf_ti.data.capture_files import HEAD, NECK
from ernerf_ti.evaluation.evaluation import measure_all
from ernerf_ti.evaluation.held_out import HeldOutFrames
from ernerf_ti.evaluation.leak import LEAK_SETTINGS, REGIONS, leak_metrics, leak_regions, leak_settings
from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.process.ranks import Ranks

N = 6


def face() -> np.ndarray:
    """[68, 2]: eyes 20 px apart around (50, 60), brows 6 px above, and the ends of the jaw line 40 px apart."""
    points = np.full((68, 2), (50.0, 75.0))
    points[0], points[16] = (30, 62), (70, 62)
    points[17:27, 1] = 54
    points[36:42], points[42:48] = (40, 60), (60, 60)
    return points


def labels() -> np.ndarray:
    regions = np.zeros((100, 100), np.uint8)
    regions[10:90, 20:80], regions[90:] = HEAD, NECK
    return regions


@pytest.fixture
def capture():
    """Of N held-out frames with the same face, numbered from 200, at times from 100 on."""
    return SimpleNamespace(
        val=SimpleNamespace(audio_ids=np.arange(100, 100 + N), frame_ids=np.arange(200, 200 + N)),
        paths=SimpleNamespace(labels=lambda k: SimpleNamespace(is_file=lambda: True)),
        labels=lambda k: labels(),
        landmarks=lambda k: face(),
        audio_windows=np.zeros((100 + N, 16, 2), np.float32),
    )


@pytest.fixture
def held_out(capture):
    """Frames whose pose, sound and eyes are numbers: pose and sound their index, eyes open and closed in turn."""

    def inputs(i, trained):
        assert not trained
        numbers = (torch.tensor([float(number)]) for number in (i, i, i % 2))
        return SimpleNamespace(**dict(zip(("head_pose", "audio_window", "eye_closure"), numbers, strict=True)))

    return HeldOutFrames(np.arange(N), SimpleNamespace(inputs=inputs, split=capture.val))


def portrait(hair_of):
    """A portrait whose colors are the pose, the sound, and the eyes; `hair_of` frames' inputs -> gray of the hair."""

    def render(inputs, background, with_torso, with_attention):
        assert not with_torso and not with_attention
        rgb = torch.cat((inputs.head_pose, inputs.audio_window, 10 * inputs.eye_closure)).expand(100, 100, 3).clone()
        hair = torch.from_numpy(leak_regions(face(), labels() == HEAD)["hair"])
        rgb[hair] = hair_of(inputs)
        return SimpleNamespace(rgb=rgb / 255)

    return SimpleNamespace(background=torch.zeros(100, 100, 3), render=render)


def test_regions_of_a_face():
    head = labels() == HEAD
    masks = leak_regions(face(), head)
    boxes = {
        name: (np.argwhere(mask).min(0).tolist(), np.argwhere(mask).max(0).tolist()) for name, mask in masks.items()
    }
    assert boxes == {
        "forehead": ([40, 34], [47, 65]),  # 6 to 14 above the brows, within 16 of the middle
        "hair": ([10, 20], [31, 79]),  # beyond 22 above the brows
        "ears": ([52, 20], [75, 79]),
    }
    assert not masks["ears"][:, 29:71].any()
    turned = leak_regions(face()[:, ::-1] * (-1, 1) + (100, 0), np.rot90(head, -1))
    for name, mask in masks.items():
        assert np.array_equal(np.rot90(mask, -1), turned[name]), name


def test_only_sound_or_eyes_differ(capture, held_out, tmp_path):
    sound, eyes = leak_settings(portrait(lambda inputs: 0.0), capture, held_out, tmp_path, Ranks())
    assert (sound.name, eyes.name) == tuple(LEAK_SETTINGS) and sound.is_special and eyes.is_special
    assert "at 6 held-out poses" in sound.description
    for i in range(N):
        assert sound.truth[i][50, 50].tolist() == eyes.truth[i][50, 50].tolist() == [i, i, 10 * (i % 2)]
        pose, other, closure = sound.images[i][50, 50].tolist()
        assert (pose, closure) == (i, 10 * (i % 2)) and 0 <= other < N and other != i
        assert eyes.images[i][50, 50].tolist() == [i, i, 10 - 10 * (i % 2)]
    assert np.array_equal(sound.landmarks(0), face()) and sound.times.tolist() == capture.val.audio_ids.tolist()


def test_a_leak_into_the_hair(capture, held_out, tmp_path):
    trained = portrait(lambda inputs: 100 + 7 * inputs.eye_closure)
    metrics = leak_metrics(capture)
    settings = leak_settings(trained, capture, held_out, tmp_path, Ranks())
    values = measure_all(settings, metrics, {metric.name: metric.missing() for metric in metrics}, seed=0)
    assert {setting for setting, _ in values} == set(LEAK_SETTINGS)
    assert [name for setting, name in values if setting == "other_eyes"] == [f"leak {region}" for region in REGIONS]
    assert values["other_eyes", "leak hair"].per_frame.tolist() == [7] * N
    assert values["other_sound", "leak hair"].value == 0
    # The stand-in's face changes by 10 in the blue channel.
    assert values["other_eyes", "leak forehead"].value == pytest.approx(10 / 3)


def test_what_it_needs(capture, held_out, tmp_path, make_setting):
    one = HeldOutFrames(held_out.indices[:1], held_out.frames)
    for setting in leak_settings(portrait(lambda inputs: 0.0), capture, one, tmp_path, Ranks()):
        assert len(setting) == 0 and setting.problem == NotComputed("a single frame has no other sound")
    metric = leak_metrics(capture)[0]
    assert metric.missing() is None and not metric.applies_to(make_setting(np.zeros((1, 4, 4, 3), np.uint8)))
    capture.paths.labels = lambda k: SimpleNamespace(is_file=lambda: False)
    assert "segmentation masks" in metric.missing().reason
