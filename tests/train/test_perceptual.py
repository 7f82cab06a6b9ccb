"""Perceptual losses, and which of them a run uses."""

import dataclasses
import sys

import pytest
import torch

from ernerf_ti.train.config import PRESETS
from ernerf_ti.train.perceptual import ALEXNET_FILE, dssim, perceptual_loss, resolve_perceptual


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of torch.hub."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


@pytest.fixture
def no_st_lpips(no_packaged_files):
    """The extra `perceptual` is not installed."""


def test_dssim():
    a = torch.rand(3, 3, 16, 24)
    torch.testing.assert_close(dssim(a, a), torch.zeros(3), atol=1e-6, rtol=0)
    far, near = dssim(a, torch.rand(3, 3, 16, 24)), dssim(a, (a + 0.05 * torch.randn_like(a)).clamp(0, 1))
    assert (near < far).all() and (near > 0).all()
    small = torch.rand(1, 3, 6, 5)
    assert dssim(small, small).shape == (1,)


def test_dssim_gradient():
    a = torch.rand(1, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dssim(x, torch.full_like(x, 0.4)), (a,))


def test_lpips_without_weights(hub):
    with pytest.raises(FileNotFoundError, match=rf"perceptual: .*download {ALEXNET_FILE} .*; or train with") as error:
        perceptual_loss("lpips")
    assert str(error.value).endswith("--finetune.perceptual dssim or none")


def test_lpips_that_can_not_be_imported(hub, monkeypatch):
    (hub / "checkpoints" / ALEXNET_FILE).touch()
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ImportError, match=r"the package lpips can't be imported .*dssim or none"):
        perceptual_loss("lpips")


def test_auto_takes_dssim_without_weights(hub, no_st_lpips):
    config, note = resolve_perceptual(PRESETS["small"])
    assert config.finetune.perceptual == "dssim"
    assert dataclasses.replace(config, finetune=PRESETS["small"].finetune) == PRESETS["small"]
    assert note == (
        "fine-tuning with the perceptual loss dssim; st-lpips would be better, but the weights of ST-LPIPS: expected the "
        "package stlpips-pytorch 0.0.2, got none; pip install 'ernerf-ti[perceptual]'"
    )
    assert resolve_perceptual(config) == (config, "")


def test_a_choice_is_kept(hub):
    small = PRESETS["small"]
    chosen = dataclasses.replace(small, finetune=dataclasses.replace(small.finetune, perceptual="lpips"))
    assert resolve_perceptual(chosen) == (chosen, "")


def test_names_of_perceptual_losses():
    assert perceptual_loss("none") is None
    with pytest.raises(ValueError, match="perceptual: expected st-lpips, lpips, dssim or none, got 'vgg'"):
        perceptual_loss("vgg")


def test_lpips_with_random_weights(hub, no_st_lpips, device):
    """The real package; AlexNet's weights are random, those of LPIPS's own layers are in the package."""
    try:
        import lpips  # noqa: F401
        import torchvision
    except (ImportError, RuntimeError) as error:  # torchvision raises the latter beside another build of torch
        pytest.skip(f"lpips can't be imported: {error}")
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), hub / "checkpoints" / ALEXNET_FILE)
    assert resolve_perceptual(PRESETS["small"])[0].finetune.perceptual == "lpips"
    loss = perceptual_loss("lpips", device)
    a = torch.rand(3, 3, 24, 40, device=device, requires_grad=True)  # lower than AlexNet takes
    b = torch.rand(3, 3, 24, 40, device=device)
    torch.testing.assert_close(loss(b, b), torch.zeros(3, device=device))
    far, near = loss(a, b), loss(b, (b + 0.02 * torch.randn_like(b)).clamp(0, 1))
    assert far.shape == (3,) and (near < far).all() and (near > 0).all()
    far.sum().backward()
    assert a.grad.isfinite().all() and (a.grad.abs().amax((1, 2, 3)) > 0).all()
