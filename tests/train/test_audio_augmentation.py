"""Noise and early ends of the audio features in training steps."""

import dataclasses

import numpy as np
import pytest
import torch

from ernerf_ti.audio.context import audio_contexts
from ernerf_ti.audio.windows import audio_windows
from ernerf_ti.train.audio_augmentation import vary
from ernerf_ti.train.config import TrainConfig
from ernerf_ti.train.trainer import Trainer

FRAME = 40
FEATURES = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)


@pytest.fixture
def context():
    return audio_contexts(torch.from_numpy(audio_windows(FEATURES)))[FRAME]


def context_of(features):
    return audio_contexts(torch.from_numpy(audio_windows(features)))[FRAME]


def test_nothing_varies_where_nothing_is_asked_for(context):
    varied = vary(context, 0.0, 1e-12, torch.ones(()), torch.Generator().manual_seed(0))
    assert torch.equal(varied, context) and varied.is_contiguous()


def test_features_end_80_to_220_ms_after_the_frame(context):
    generator, ends = torch.Generator().manual_seed(0), set()
    for _ in range(200):
        varied = vary(context, 0.0, 1.0, torch.ones(()), generator)
        matches = []
        for end in range(2 * FRAME, 2 * FRAME + 16):
            held = FEATURES.copy()
            held[end:] = held[end - 1]
            if torch.equal(varied, context_of(held)):
                matches.append(end - (2 * FRAME + 2))
        assert len(matches) == 1
        ends.add(matches[0])
    assert ends == set(range(4, 12))


def test_how_often_features_end(context):
    generator = torch.Generator().manual_seed(0)
    cut = [not torch.equal(vary(context, 0.0, 0.25, torch.ones(()), generator), context) for _ in range(2000)]
    assert np.mean(cut) == pytest.approx(0.25, abs=0.04)


def test_noise_is_that_of_steps(context):
    scale = torch.tensor(3.0)
    difference = vary(context, 0.5, 0.0, scale, torch.Generator().manual_seed(1)) - context
    assert difference.std() == pytest.approx(1.5, rel=0.1)
    for j in range(7):  # each window begins two steps after the one before
        torch.testing.assert_close(difference[j, :, 2:], difference[j + 1, :, :-2], rtol=0, atol=1e-6)


def test_steps_draw_the_same_again_and_validation_nothing(config, capture, tmp_path):
    varied = dataclasses.replace(config, audio_noise=0.3, audio_cut_fraction=0.5)
    losses = []
    for settings in (varied, varied, config):
        trainer = Trainer(capture, settings, tmp_path / "run")
        losses.append([float(trainer.train_step().loss) for _ in range(3)])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("change", [{"audio_noise": -0.1}, {"audio_cut_fraction": 1.1}, {"audio_noise": float("nan")}])
def test_bad_amounts(change):
    with pytest.raises(ValueError, match=r"audio_noise, audio_cut_fraction: expected 0 to 10 and 0 to 1, got"):
        TrainConfig(**change)
