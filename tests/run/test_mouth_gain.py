"""How audio codes are adjusted for rendering: how far the mouth moves, of the configuration, or as asked for, 1 for
portraits that don't know their mean code; and by the nearest codes of training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ernerf_ti.data.capture import Capture
from ernerf_ti.portrait.config import HeadFieldConfig
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.tensor_files import read_tensor_file
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.trainer import Trainer
from tests.train.conftest import capture, config  # noqa: F401, fixtures


@pytest.fixture(scope="module", autouse=True)
def few_frames_are_enough():
    """Portraits of few frames keep the codes of these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernerf_ti.portrait.config._FRAMES_PER_NEAREST_CODE", 1)
        yield


@pytest.fixture(scope="module")
def run(capture: Capture, config, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("gain") / "run"
    short = replace(config, finetune=replace(config.finetune, iterations=0), torso=replace(config.torso, iterations=0))
    trainer = Trainer(capture, short, folder)
    trainer.run()
    assert trainer.portrait.head.audio_encoder.gain == 1
    return folder


@pytest.fixture
def contexts(capture: Capture, config, tmp_path):  # noqa: F811
    frames = Trainer(capture, config, tmp_path / "other").frames
    return torch.stack([frames.inputs(i).audio_window for i in range(len(frames))])


def test_the_mean_code_is_that_of_the_training_frames(run, contexts):
    encoder = load_portrait(run, mouth_gain=1).portrait.head.audio_encoder
    torch.testing.assert_close(encoder.code_mean, encoder.encode(contexts).mean(0))
    torch.testing.assert_close(encoder.training_codes, encoder.encode(contexts))
    assert encoder.code_mean.abs().max() > 0.01
    assert encoder.nearest == 16 < len(contexts)


def test_gain_of_the_configuration_or_as_asked(run, contexts):
    def codes(gain):
        return load_portrait(run, mouth_gain=gain).portrait.head.audio_encoder(contexts)

    as_trained = codes(1)
    mean = load_portrait(run).portrait.head.audio_encoder.code_mean
    torch.testing.assert_close(codes(None), mean + 1.15 * (as_trained - mean))  # of the preset small
    torch.testing.assert_close(codes(2.0), mean + 2 * (as_trained - mean))


@pytest.mark.parametrize("gain", [-0.1, 3.1, float("nan")])
def test_gains_that_make_no_sense(run, gain):
    with pytest.raises(ValueError, match=r"mouth-gain: expected 0 to 3, got .*; pass e\.g\. 1\.25"):
        load_portrait(run, mouth_gain=gain)


def test_portraits_of_before(run, tmp_path):
    content = read_tensor_file(run / "checkpoint.pt", "cpu", "", "")
    del content["portrait"]["head.audio_encoder.training_codes"]
    del content["portrait_config"]["head"]["nearest_codes"]
    path = tmp_path / "checkpoint.pt"
    torch.save(content | {"format_version": 3}, path)
    encoder = load_portrait(path).portrait.head.audio_encoder
    assert (encoder.gain, encoder.nearest, encoder.training_codes.shape) == (1.15, 0, (0, 32))
    del content["portrait"]["head.audio_encoder.code_mean"]
    del content["portrait_config"]["head"]["mouth_gain"]
    torch.save(content | {"format_version": 2}, path)
    assert load_checkpoint(path)["format_version"] == 4
    assert load_portrait(path).portrait.head.audio_encoder.gain == 1
    with pytest.raises(ValueError, match=r"checkpoint\.pt: expected a mouth-gain of 1, as .*, got 1\.25; leave"):
        load_portrait(path, mouth_gain=1.25)


@pytest.mark.parametrize(
    ("n_frames", "nearest", "expected"),
    [(639, 16, 0), (640, 16, 640), (4096, 16, 4096), (9000, 16, 4096), (9000, 0, 0), (40, 1, 40)],
)
def test_how_many_codes_are_kept(n_frames, nearest, expected):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernerf_ti.portrait.config._FRAMES_PER_NEAREST_CODE", 40)
        assert HeadFieldConfig(nearest_codes=nearest).n_codes(n_frames) == expected


@pytest.mark.parametrize("nearest", [-1, 257])
def test_numbers_of_codes_that_make_no_sense(nearest):
    with pytest.raises(ValueError, match=f"nearest_codes: expected 0 to 256, got {nearest}; pass 16"):
        HeadFieldConfig(nearest_codes=nearest)
