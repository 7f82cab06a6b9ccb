import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ernerf_ti.audio.context import audio_context
from ernerf_ti.audio.silence import noise
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import CapturePaths
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.evaluation.evaluation import measure
from ernerf_ti.evaluation.held_out import (
    cross_speaker_settings,
    held_out_settings,
    nearest_poses,
    save_frames,
    select_frames,
)
from ernerf_ti.evaluation.lip_metrics import lip_metrics
from ernerf_ti.evaluation.lip_settings import closure_setting, silence_setting
from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.evaluation.sound_metric import SoundToMouth
from ernerf_ti.evaluation.speed import end_to_end
from ernerf_ti.media.sound import read_sound
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.synthesis.driving import speech_windows
from ernerf_ti.synthesis.images import picture_of
from ernerf_ti.train.config import PRESETS
from ernerf_ti.train.trainer import Trainer


@pytest.fixture(autouse=True)
def tracker(monkeypatch):
    """A face tracker that is never asked for anything, in environments without one too."""
    monkeypatch.setattr("ernerf_ti.evaluation.lip_settings.tracker_problem", lambda: None)


@pytest.fixture(scope="module")
def capture(tmp_path_factory, device):
    folder = tmp_path_factory.mktemp("evaluation") / "capture"
    write_portrait_capture(SyntheticPortrait(23, 32, seed=4, device=device), folder)  # 20 frames and 3 held out
    return open_capture(folder)


@pytest.fixture(scope="module")
def trained(capture, tmp_path_factory, device):
    folder = tmp_path_factory.mktemp("run")
    small = PRESETS["small"]
    grid = dataclasses.replace(small.portrait.head_grid, resolution=32)
    config = dataclasses.replace(small, portrait=dataclasses.replace(small.portrait, head_grid=grid))
    trainer = Trainer(capture, config, folder, device)
    with torch.no_grad():  # untrained, but visible
        trainer.portrait.head_grid.update(lambda positions: torch.ones(len(positions), device=device))
    trainer.save()
    return load_portrait(folder, device)


def test_selection_of_frames(capture):
    every = select_frames(capture, None, None, "cpu")
    assert every.indices.tolist() == [0, 1, 2]
    assert every.ids.tolist() == capture.val.frame_ids.tolist()
    assert select_frames(capture, 2, None, "cpu").indices.tolist() == [0, 2]
    assert select_frames(capture, 5, None, "cpu").indices.tolist() == [0, 1, 2]
    assert select_frames(capture, None, 0.08, "cpu").indices.tolist() == [0, 1]
    for no_limit in (math.inf, 1e308):
        assert select_frames(capture, None, no_limit, "cpu").indices.tolist() == every.indices.tolist()
    with pytest.raises(ValueError, match="frames: expected at least 1, got 0"):
        select_frames(capture, 0, None, "cpu")
    with pytest.raises(ValueError, match=r"max-seconds: expected at least 0\.04, got 0\.01"):
        select_frames(capture, None, 0.01, "cpu")


def test_settings_match_their_descriptions(capture, trained, tmp_path, device):
    held_out = select_frames(capture, None, None, device)
    samples = read_sound(capture.paths.sound)
    settings, seconds = held_out_settings(trained, capture, held_out, tmp_path, samples, True, Ranks())
    settings = {setting.name: setting for setting in settings}
    assert list(settings) == ["head", "head_only", "portrait", "nearest_pose", "mean_frame", "truth"]
    assert min(seconds["head"], seconds["portrait"]) > 0
    k, inputs = int(held_out.ids[1]), held_out.frames.inputs(1, trained=False)
    true, background = capture.image(k), trained.background

    def rendered(background, with_torso):
        picture = trained.portrait.render(inputs, trained.intrinsics, trained.size, background, with_torso)
        return picture_of(picture).astype(int)

    layer = torch.from_numpy(capture.torso(k)).to(device) / 255
    torso = layer[..., :3] * layer[..., 3:] + background * (1 - layer[..., 3:])
    for name, expected in {
        "head": rendered(torso, False),
        "head_only": rendered(background, False),
        "portrait": rendered(background, True),
    }.items():
        assert np.abs(settings[name].images[1].astype(int) - expected).max() <= 1, name
    assert np.abs(rendered(torso, False) - rendered(background, False)).max() > 20
    for name in ("head", "portrait", "nearest_pose", "mean_frame"):
        assert (settings[name].truth[1] == true).all()
    labels = capture.labels(k)
    head = settings["head_only"].truth[1]
    assert (head[labels == 1] == true[labels == 1]).all()
    assert (head[labels != 1] == capture.background[labels != 1]).all()
    assert settings["truth"].truth is None
    assert (settings["truth"].images[1] == true).all()
    train = np.stack([capture.image(j) for j in capture.train.frame_ids])
    assert np.abs(settings["mean_frame"].images[0] - train.mean(0)).max() <= 0.5
    assert (settings["nearest_pose"].images[1] == train).all((1, 2, 3)).any()
    assert (settings["head"].landmarks(1) == capture.landmarks(k)).all()
    np.testing.assert_array_equal(settings["head"].windows, capture.audio_windows[capture.val.audio_ids])


def test_without_torso_or_labels(capture, trained, tmp_path, monkeypatch, device):
    monkeypatch.setattr(CapturePaths, "labels", lambda self, k: self.folder / "none.png")
    held_out = select_frames(capture, 1, None, device)
    settings, seconds = held_out_settings(trained, capture, held_out, tmp_path, None, False, Ranks())
    assert [setting.name for setting in settings] == ["head", "nearest_pose", "mean_frame", "truth"]
    assert set(seconds) == {"head"}


def test_cross_speaker_frames_play_forward_and_backward(capture, trained, tmp_path, device, monkeypatch):
    asked = []

    def render(trained, windows, poses, eye_closures, background, with_torso, only):
        asked.append((windows, poses, eye_closures, with_torso))
        for k in range(len(windows)):
            yield SimpleNamespace(rgb=torch.full((32, 32, 3), k / 255))

    monkeypatch.setattr("ernerf_ti.evaluation.held_out.render_frames", render)
    held_out = select_frames(capture, None, None, device)
    windows = torch.from_numpy(capture.audio_windows[:5])
    cross_speaker, nearest = cross_speaker_settings(
        trained, capture, held_out, tmp_path, np.zeros(5 * 640), windows, False, Ranks()
    )
    assert (len(cross_speaker), len(nearest), cross_speaker.truth) == (5, 5, None)
    for i, index in enumerate((0, 1, 2, 2, 1)):
        np.testing.assert_array_equal(cross_speaker.landmarks(i), capture.landmarks(int(capture.val.frame_ids[index])))
    np.testing.assert_array_equal(cross_speaker.windows, windows.numpy())
    assert [cross_speaker.images[i].max() for i in range(5)] == [0, 1, 2, 3, 4]
    ((heard, poses, eye_closures, with_torso),) = asked
    assert heard is windows
    assert not with_torso
    torch.testing.assert_close(poses, held_out.frames.poses[[0, 1, 2, 2, 1]])
    np.testing.assert_array_equal(eye_closures, capture.eye_closures[capture.val.frame_ids[[0, 1, 2, 2, 1]]])


def test_nearest_pose_by_hand():
    poses = np.repeat(np.eye(4)[None], 4, 0)
    poses[:, 2, 3] = 1.0
    poses[1, 0, 3], poses[2, 0, 3] = 0.02, 0.1  # meters to the side
    angle = np.radians(3)  # around the head: 7 mm at the corners of a cube of 20 cm
    poses[3, :3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    poses[3, :3, 3] = poses[3, :3, :3] @ (0, 0, 1.0)
    assert nearest_poses(poses, poses).tolist() == [0, 1, 2, 3]
    assert nearest_poses(poses[1:], poses[:1]).tolist() == [2]  # turned by 3 degrees, rather than 2 cm aside


def test_end_to_end_is_timed(capture, trained, device, monkeypatch):
    held_out = select_frames(capture, None, None, device)
    samples = read_sound(capture.paths.sound)
    found = end_to_end(trained, capture, held_out, samples, True)
    assert found["frames"] == 3
    assert found["frames_per_second"] == pytest.approx(3 / found["seconds"])
    assert found["how"].startswith("audio features, rendering")
    # Features of an extractor that is not available.
    other = dataclasses.replace(trained, extractor="deepspeech")
    assert end_to_end(other, capture, held_out, samples, True)["how"].startswith("features from the capture")
    assert end_to_end(trained, capture, held_out, None, False)["frames"] == 3


def talking(n, seed):
    """[n, 16, 3] windows, and [n] openings that follow the first feature four steps ahead."""
    steps = np.random.default_rng(seed).standard_normal((2 * n + 16, 3))
    windows = np.lib.stride_tricks.sliding_window_view(steps, 16, axis=0)[: 2 * n : 2].transpose(0, 2, 1)
    return windows.astype(np.float32), 0.2 + 0.05 * windows[:, 12, 0]


def faces(openings):
    """[n, 68, 2] whose inner lips are `openings` apart, relative to the distance between the eyes."""
    points = np.zeros((len(openings), 68, 2), np.float32)
    points[:, 36:42, 0], points[:, 42:48, 0] = -30, 30
    points[:, 65:68, 1] = 60 * openings[:, None]
    return points


def test_sound_to_mouth(capture, make_setting, monkeypatch):
    heard, openings = talking(300, 2)
    others, expected = talking(60, 3)

    class Talker:
        extractor, audio_windows = "ppg", heard
        train = dataclasses.replace(capture.train, frame_ids=np.arange(300), audio_ids=np.arange(300))

        def landmarks(self, k):
            return faces(openings[k : k + 1])[0]

    metric = SoundToMouth(Talker())
    setting = make_setting(np.zeros((60, 4, 4, 3), np.uint8), windows=others)
    monkeypatch.setattr("ernerf_ti.evaluation.sound_metric.ibug_landmarks", faces)  # the "mesh" is the opening

    def found(openings, valid=None):
        from ernerf_ti.evaluation.mesh_metrics import Meshes

        known = np.ones(len(openings), bool) if valid is None else valid
        setting.images.__init__(60, lambda i: None)
        setting.images.cached("meshes", lambda _: Meshes(openings, known))
        return metric.measure(setting, 0)

    assert found(expected).value > 0.95
    assert found(0.4 - expected).value < -0.95
    assert abs(found(np.roll(expected, 17)).value) < 0.5
    assert found(expected, np.zeros(60, bool)) == NotComputed("no face is found in the images")
    assert "expected 50 training frames or more, got 20" in SoundToMouth(capture).missing().reason


def test_silence_is_rendered_at_held_out_poses(capture, trained, tmp_path, device):
    held_out = select_frames(capture, None, None, device)
    speech = 0.3 * np.sin(np.arange(6400) * 0.05)
    setting = silence_setting("silence", trained, held_out, tmp_path, speech, None, Ranks())
    assert (len(setting), setting.truth, setting.problem, setting.is_special) == (24, None, None, True)
    assert setting.times.tolist() == list(range(10 + 8, 10 + 8 + 24))  # 0.32 s after 0.4 s of speech
    sound = np.concatenate((speech, noise(39 * 640, 1000)))
    windows = speech_windows(trained, sound)
    np.testing.assert_array_equal(setting.windows, windows[18:42])
    for i, index in ((0, 0), (23, 2)):
        inputs = held_out.frames.inputs(index, trained=False)
        inputs.audio_window = audio_context(windows, 18 + i).to(device)
        torso = held_out.frames.images(index).torso_over_background
        picture = trained.portrait.render(inputs, trained.intrinsics, trained.size, torso, with_torso=False)
        assert np.abs(setting.images[i].astype(int) - picture_of(picture).astype(int)).max() <= 1
    np.testing.assert_array_equal(setting.landmarks(23), capture.landmarks(int(capture.val.frame_ids[2])))


def test_silence_of_an_extractor_that_is_not_there(capture, trained, tmp_path, device):
    held_out = select_frames(capture, None, None, device)
    other = dataclasses.replace(trained, extractor="deepspeech")
    setting = silence_setting("cross_speaker_silence", other, held_out, tmp_path, np.zeros(0), None, Ranks())
    assert len(setting) == 0 and not list(tmp_path.iterdir())
    assert setting.problem.reason.startswith(
        "silence can't be made for deepspeech features: extractor: expected one of"
    )
    (metric,) = (metric for metric in lip_metrics(capture) if metric.applies_to(setting))
    assert measure(setting, [metric], {metric.name: None}, 0) == {metric.name: setting.problem}


def test_frames_around_closures(capture, trained, tmp_path, device, monkeypatch):
    capture = dataclasses.replace(capture, val=capture.train)  # 20 frames
    held_out = select_frames(capture, 4, None, device)
    assert held_out.indices.tolist() == [0, 6, 13, 19]
    monkeypatch.setattr("ernerf_ti.evaluation.lip_settings.heard_closures", lambda samples: np.array([1, 5, 12, 30]))
    images = ((np.full((32, 32, 3), i, np.uint8),) for i in range(4))
    save_frames(tmp_path, ["head"], images, 4, "frames", Ranks())
    setting = closure_setting(trained, capture, held_out, tmp_path, np.zeros(640), Ranks())
    assert setting.times.tolist() == [3, 4, 5, 6, 7, 10, 11, 12, 13, 14] and setting.problem is None
    assert len(list((tmp_path / "closures").iterdir())) == 8
    assert (setting.images[3] == 1).all() and (setting.images[8] == 2).all()  # rendered before
    inputs = held_out.frames.inputs(10, trained=False)
    torso = held_out.frames.images(10).torso_over_background
    picture = trained.portrait.render(inputs, trained.intrinsics, trained.size, torso, with_torso=False)
    assert np.abs(setting.images[5].astype(int) - picture_of(picture).astype(int)).max() <= 1
    k = int(capture.train.frame_ids[10])
    assert (setting.truth[5] == capture.image(k)).all() and (setting.landmarks(5) == capture.landmarks(k)).all()
    monkeypatch.setattr("ernerf_ti.evaluation.lip_settings._MAX_CLOSURES", 1)
    limited = closure_setting(trained, capture, held_out, tmp_path, np.zeros(640), Ranks())
    assert limited.description.endswith(" 1 of 2 such sounds, evenly spaced.") and len(limited) == 5


def test_no_closures(capture, trained, tmp_path, device, monkeypatch):
    monkeypatch.setattr("ernerf_ti.evaluation.lip_settings.heard_closures", lambda samples: np.array([2, 21]))
    held_out = select_frames(capture, None, None, device)  # 3 frames, too few for those around
    setting = closure_setting(trained, capture, held_out, tmp_path, np.zeros(640), Ranks())
    assert len(setting) == 0 and "no p, b or m is heard" in setting.problem.reason
    assert (
        closure_setting(trained, capture, held_out, tmp_path, None, Ranks()).problem.reason
        == "the capture has no sound"
    )
