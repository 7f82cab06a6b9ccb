"""Which pixels the steps of the stage finetune are taken on."""

import dataclasses

import pytest
import torch

from ernerf_ti.train.trainer import Trainer


@pytest.mark.parametrize("kind", ["dssim", "st-lpips"])
def test_steps_on_the_eyes(capture, config, tmp_path, monkeypatch, kind):
    """With ST-LPIPS the squares around lips and eyes have at least 32 pixels."""
    monkeypatch.setattr("ernerf_ti.train.perceptual.load_st_lpips", lambda: torch.nn.Module())
    finetune = dataclasses.replace(config.finetune, perceptual=kind, eyes_every=2)
    stage = Trainer(capture, dataclasses.replace(config, finetune=finetune), tmp_path).stages["finetune"]
    generator = torch.Generator().manual_seed(0)
    kinds = [stage.kind(step) for step in range(8)]
    drawn = [stage._draw_patches(3, kind, generator) for kind in kinds]
    assert kinds == ["lips", "patches", "lips", "eyes", "lips", "patches", "lips", "eyes"]
    for part, (pixels, side, weight) in zip(kinds, drawn, strict=True):
        least = 1
        if part != "patches":
            least = 32 if kind == "st-lpips" else 1
            assert len(pixels) == side**2
            squares = stage.frames.squares(part, least)
            assert (side, int(pixels[0])) == (squares.side, int(squares.corners[3]))
        assert side >= least
        losses = config.losses
        assert weight == (losses.patch_perceptual if part == "patches" else losses.lips_perceptual)
