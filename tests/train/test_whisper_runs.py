"""Runs on Whisper features: the checkpoint has what makes them, and another encoder is refused."""

import shutil

import numpy as np
import pytest
import torch

from ernerf_ti.data.capture import CaptureError, open_capture
from ernerf_ti.data.capture_features import SpeechModel, write_features
from ernerf_ti.media.sound import read_sound
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.synthesis.driving import speech_windows
from ernerf_ti.train.trainer import Trainer
from tests.audio.whisper_files import openai_tensors, write_ctranslate2, write_openai


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_ctranslate2(tmp_path_factory.mktemp("whisper") / "model.bin", openai_tensors())


@pytest.fixture
def whisper_capture(capture, model, tmp_path):
    """The tiny capture with Whisper features beside its own."""
    folder = tmp_path / "capture"
    shutil.copytree(capture.folder, folder)
    write_features(folder, read_sound(capture.paths.sound), "whisper", 22, SpeechModel(model, 2))
    return open_capture(folder, "whisper")


@pytest.fixture
def run(whisper_capture, config, tmp_path):
    trainer = Trainer(whisper_capture, config, tmp_path / "run")
    trainer.train_step()
    trainer.save()
    return tmp_path / "run"


def test_checkpoint_has_the_projection(run, whisper_capture, model):
    content = load_checkpoint(run / "checkpoint.pt")
    assert content["capture"]["speech"] == whisper_capture.projection.facts
    trained = load_portrait(run)
    assert (trained.extractor, trained.feature_dimension) == ("whisper", 106)
    samples = read_sound(whisper_capture.paths.sound)
    windows = speech_windows(trained, samples, model).numpy()
    np.testing.assert_allclose(windows, whisper_capture.audio_windows, atol=1e-5)
    assert Trainer.resume(whisper_capture, run).step == 1


def test_synthesis_refuses_another_encoder(run, tmp_path, no_packaged_files):
    trained, sound = load_portrait(run), np.zeros(16_000)
    other = write_openai(tmp_path / "other.pt", openai_tensors(seed=1))
    with pytest.raises(ValueError, match=r"speech model: expected the weights of Whisper .* layer 2 .* got") as error:
        speech_windows(trained, sound, other)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"pip install 'ernerf-ti\[speech\]'"):
        speech_windows(trained, sound)


def test_another_layer_is_another_capture(run, whisper_capture, model):
    samples = read_sound(whisper_capture.paths.sound)
    write_features(whisper_capture.folder, samples, "whisper", 22, SpeechModel(model, 1))
    with pytest.raises(ValueError, match="expected a run of this capture"):
        Trainer.resume(open_capture(whisper_capture.folder, "whisper"), run)
    with pytest.raises(ValueError, match="expected a run of this capture"):
        Trainer.resume(open_capture(whisper_capture.folder), run)  # with its phone posteriors


def test_missing_projection(run, whisper_capture):
    (whisper_capture.folder / "aud_whisper.npz").unlink()
    with pytest.raises(CaptureError, match=r"aud_whisper\.npz: expected an \.npz file, got no such file"):
        open_capture(whisper_capture.folder, "whisper")
    assert open_capture(whisper_capture.folder).extractor == "ppg"
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    damaged = {**content, "scene": {k: v for k, v in content["scene"].items() if k != "speech"}}
    torch.save(damaged, run / "checkpoint.pt")
    with pytest.raises(ValueError, match="expected the entry speech, got none"):
        load_portrait(run)
