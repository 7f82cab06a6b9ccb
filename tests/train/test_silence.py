"""Steps that train on silence: closed mouths with the features of faint noise."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from ernerf_ti.audio.context import audio_contexts
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.mouth import lip_opening
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.train import trainer as module
from ernerf_ti.train.step_draws import StepDraws
from ernerf_ti.train.trainer import Trainer
from ernerf_ti.train.training_frames import TrainingFrames


@pytest.fixture
def silent(config):
    return dataclasses.replace(config, silence_fraction=0.4)


@pytest.fixture(scope="module")
def pauses(capture):
    """[2, 11, steps, C] random windows in place of those of silence."""
    return torch.rand(2, 11, *capture.audio_windows.shape[1:], generator=torch.Generator().manual_seed(0))


@pytest.fixture
def frames(capture, pauses):
    frames = TrainingFrames(capture, capture.train)
    frames.add_silence(pauses)
    return frames


def test_silent_contexts_lie_within_one_pause(frames, pauses):
    assert len(frames.silent_contexts) == 2 * (11 - 7)
    inputs = [frames.inputs(3, context=int(begin)) for begin in frames.silent_contexts]
    expected = [audio_contexts(pause)[4:8] for pause in pauses]  # those that need no padding
    assert torch.equal(torch.stack([i.audio_window for i in inputs]), torch.cat(expected))
    own = frames.inputs(3)
    assert all(torch.equal(i.eye_closure, own.eye_closure) and i.appearance_index == 3 for i in inputs)
    assert torch.equal(own.audio_window, TrainingFrames(frames.capture, frames.split).inputs(3).audio_window)


def test_draws_of_silence(frames, silent, config):
    steps, plain = StepDraws(silent, "head", frames), StepDraws(config, "head", frames)
    contexts = [steps.context(step) for step in range(400)]
    drawn = [step for step, context in enumerate(contexts) if context is not None]
    assert len(drawn) / 400 == pytest.approx(0.4, abs=0.08)
    assert {contexts[step] for step in drawn} == set(frames.silent_contexts)
    assert {steps.frame(step) for step in drawn} == set(frames.closed_mouths)
    others = sorted(set(range(400)) - set(drawn))
    assert [steps.frame(step) for step in others] == [plain.frame(step) for step in others]
    assert all(plain.context(step) is None for step in range(100))
    torso = StepDraws(silent, "torso", frames)
    assert all(torso.context(step) is None for step in range(100))
    assert steps.coming(2, 4) == [steps.frame(step) for step in (3, 4, 5, 6)]


def test_closed_mouths_are_the_smallest_openings(frames):
    openings = lip_opening(np.stack([frames.capture.landmarks(k) for k in frames.split.frame_ids]))
    closed = frames.closed_mouths
    assert 1 <= len(closed) < len(openings) / 2
    assert openings[closed].max() < np.median(openings)


def test_resumed_run_gives_the_same_bits_with_the_windows_of_its_checkpoint(capture, silent, tmp_path, monkeypatch):
    whole = Trainer(capture, silent, tmp_path / "whole")
    assert whole.notes == [] and len(whole.frames.silent_contexts) == 2 * 33
    assert whole.run(("head",))
    trainer = Trainer(capture, silent, tmp_path / "run")
    for _ in range(4):
        trainer.train_step()
    trainer.save()
    monkeypatch.setattr(module, "silent_windows", pytest.fail)
    resumed = Trainer.resume(capture, tmp_path / "run")
    assert resumed.run(("head",))
    expected, got = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "run"))
    assert torch.equal(got["silence"], expected["silence"])
    assert got["silence"].shape == (2, 40, *capture.audio_windows.shape[1:])
    for name, value in expected["portrait"].items():
        assert torch.equal(value, got["portrait"][name]), name


@pytest.mark.parametrize("damage", [torch.zeros(40, 16, 42), torch.full((2, 40, 16, 42), float("nan")), "x"])
def test_damaged_windows(capture, silent, pauses, tmp_path, damage):
    trainer = Trainer(capture, silent, tmp_path, silence=pauses)
    trainer.save()
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({**content, "silence": damage}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: expected .*silence.* the file is damaged") as error:
        Trainer.resume(capture, tmp_path)
    assert "\n" not in str(error.value)


def test_features_of_other_tools_are_trained_on_without_silence(capture, silent, config, tmp_path):
    folder = tmp_path / "capture"
    shutil.copytree(capture.folder, folder)
    np.save(folder / "aud_ds.npy", np.random.default_rng(0).random((22, 16, 29), np.float32))
    other = open_capture(folder, "deepspeech")
    with_option, without = Trainer(other, silent, tmp_path / "a"), Trainer(other, config, tmp_path / "b")
    (note,) = with_option.notes
    assert note.startswith("no training on silence, because deepspeech features of it can't be extracted: ")
    assert "\n" not in note and without.notes == []
    for _ in range(3):
        assert torch.equal(with_option.train_step().loss, without.train_step().loss)
    with_option.save()
    assert "silence" not in load_checkpoint(tmp_path / "a" / "checkpoint.pt")


def test_without_the_sound_of_the_capture(capture, silent, tmp_path):
    folder = tmp_path / "capture"
    shutil.copytree(capture.folder, folder)
    (folder / "aud.wav").unlink()
    trainer = Trainer(open_capture(folder), silent, tmp_path / "run")
    assert trainer.notes == [] and len(trainer.frames.silent_contexts) == 33
