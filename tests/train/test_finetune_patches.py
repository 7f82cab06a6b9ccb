"""Which rays the steps of the stage finetune are taken on."""

import dataclasses

import pytest
import torch

from ernerf_ti.train.trainer import Trainer


def finetune_stage(capture, config, folder, lips_dssim=0.0, **changes):
    losses = dataclasses.replace(config.losses, lips_dssim=lips_dssim)
    config = dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, **changes), losses=losses)
    return Trainer(capture, config, folder).stages["finetune"]


@pytest.mark.parametrize("kind", ["dssim", "st-lpips"])
def test_steps_on_lips_and_eyes(capture, config, tmp_path, kind):
    """With ST-LPIPS the squares around lips and eyes have at least 32 pixels."""
    stage = finetune_stage(capture, config, tmp_path, perceptual=kind, eyes_every=2)
    kinds = [stage.kind(step) for step in range(8)]
    assert kinds == ["lips", "patches", "lips", "eyes", "lips", "patches", "lips", "eyes"]
    generator, frame = torch.Generator().manual_seed(0), stage.frames.frame(3)
    for part, n in (("lips", 1), ("eyes", 2)):
        batch, side = stage._draw_patches(frame, part, generator)
        least = 32 if kind == "st-lpips" else 1
        squares = stage.frames.squares(part, least)
        assert side == squares.side >= least and len(batch.rays_o) == n * side**2
        expected = stage.frames.images(3).image.view(-1, 3)[squares.corners[3]]
        assert torch.equal(batch.target_rgb.view(n, -1, 3)[:, 0], expected)
    batch, side = stage._draw_patches(frame, "patches", generator)
    assert (side, len(batch.rays_o)) == (16, 256)


@pytest.mark.parametrize(("n_rays", "lips_side", "eyes_side"), [(10_000, None, None), (600, 23, 15), (1, 1, 1)])
def test_double_density_takes_no_more_rays_than_patches(capture, config, tmp_path, n_rays, lips_side, eyes_side):
    stage = finetune_stage(capture, config, tmp_path, parts_density=2, n_rays=n_rays, patch_size=1)
    generator, frame = torch.Generator().manual_seed(0), stage.frames.frame(3)
    for part, n, expected in (("lips", 1, lips_side), ("eyes", 2, eyes_side)):
        squares = stage.frames.squares(part)
        batch, side = stage._draw_patches(frame, part, generator)
        assert side == min(expected or 1000, 2 * squares.side - 1) and len(batch.rays_o) == n * side**2
        assert len(batch.rays_o) <= max(n, n_rays)


def test_a_step_at_double_density(capture, config, tmp_path):
    stage = finetune_stage(capture, config, tmp_path, parts_density=2, eyes_every=1)
    generator = torch.Generator().manual_seed(0)
    for part in ("lips", "eyes"):
        result = stage.loss(stage.frames.frame(3), part, 0.5, generator)
        assert set(result.terms) >= {"color", "perceptual"} and torch.isfinite(result.total)


@pytest.mark.parametrize("perceptual", ["dssim", "none"])
def test_dssim_of_lips_and_eyes(capture, config, tmp_path, perceptual):
    """Beside the perceptual loss, or without one; random patches have none."""
    stage = finetune_stage(capture, config, tmp_path, 0.25, perceptual=perceptual, eyes_every=1)
    other = finetune_stage(capture, config, tmp_path, perceptual="dssim", eyes_every=1)
    for part in ("lips", "eyes", "patches"):
        terms, expected = (
            one.loss(one.frames.frame(3), part, 0.5, torch.Generator().manual_seed(0)).terms for one in (stage, other)
        )
        assert "dssim" not in expected
        assert ("perceptual" in terms) == (perceptual == "dssim")
        if part == "patches":
            assert "dssim" not in terms
        else:
            dssim = expected["perceptual"] / config.losses.lips_perceptual
            torch.testing.assert_close(terms["dssim"], 0.25 * dssim)
