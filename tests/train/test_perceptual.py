"""Perceptual losses, and which of them a run uses."""

import dataclasses
import sys

import pytest
import torch

from ernerf_ti.media.packaged import PackagedFile
from ernerf_ti.train.config import PRESETS
from ernerf_ti.train.perceptual import ALEXNET_FILE, dssim, perceptual_loss, resolve_perceptual
from ernerf_ti.train.st_lpips import ALEX, StLpips, blurred_half, load_st_lpips, maximum3, st_lpips_of

PUBLISHED = (0.0310800, 0.4046841)


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
        "fine-tuning with the perceptual loss dssim; st-lpips would be better, but the weights of ST-LPIPS: expected "
        "the package stlpips-pytorch 0.0.2, got none; pip install 'ernerf-ti[perceptual]'"
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


def published(network: StLpips) -> dict[str, torch.Tensor]:
    """The weights of a network by their names in the published file."""
    names = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
    state = network.state_dict()
    weights = {
        f"net.{name}.{k}": state[f"convolutions.{i}.{k}"] for i, name in enumerate(names) for k in ("weight", "bias")
    }
    return {**weights, **{f"lin{i}.model.1.weight": state[f"channel_weights.{i}"][None] for i in range(5)}}


@pytest.fixture(scope="module")
def st_lpips_file(tmp_path_factory):
    """Random weights in the published format."""
    path = tmp_path_factory.mktemp("weights") / "alex.pth"
    torch.manual_seed(1)
    torch.save(published(StLpips()), path)
    return path


@pytest.fixture
def installed(monkeypatch, st_lpips_file):
    monkeypatch.setattr(PackagedFile, "find", lambda file: st_lpips_file)


def test_auto_takes_st_lpips(installed):
    config, note = resolve_perceptual(PRESETS["small"])
    assert (config.finetune.perceptual, note) == ("st-lpips", "fine-tuning with the perceptual loss st-lpips")


@pytest.mark.parametrize("shape", [(40, 33), (24, 24), (16, 30), (1, 5)])
def test_st_lpips(installed, device, shape):
    loss = perceptual_loss("st-lpips", device)
    a = torch.rand(3, 3, *shape, device=device, requires_grad=True)
    b = torch.rand(3, 3, *shape, device=device)
    assert torch.equal(loss(b, b), torch.zeros(3, device=device))
    far, near = loss(a, b), loss(b, (b + 0.02 * torch.randn_like(b)).clamp(0, 1))
    assert far.shape == (3,) and (near < far).all() and (near > 0).all()
    # An image counts by itself.
    torch.testing.assert_close(loss(a[1:2], b[1:2]), far[1:2])
    far.sum().backward()
    assert a.grad.isfinite().all() and (a.grad.abs().amax((1, 2, 3)) > 0).all()


def test_gradient_of_st_lpips():
    torch.manual_seed(2)
    network = StLpips(shrink=32).double()
    a, b = torch.rand(2, 2, 3, 25, 24, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: network(x, b), (a.requires_grad_(True),), fast_mode=True)
    white = torch.ones(1, 3, 24, 24, dtype=torch.float64, requires_grad=True)
    network(white, white.detach()).sum().backward()
    assert white.grad.abs().max() == 0


def test_blurred_half_and_maximum(device):
    x = torch.rand(2, 5, 9, 12, device=device)
    row = torch.tensor((0.25, 0.5, 0.25), device=device)
    kernel = row[:, None] * row
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    windows = padded.unfold(2, 3, 2).unfold(3, 3, 2)
    torch.testing.assert_close(blurred_half(x, kernel), (windows * kernel).sum((-2, -1)))
    assert torch.equal(maximum3(x), torch.nn.functional.max_pool2d(x, 3, 1))


def test_st_lpips_file_of_another_network(tmp_path):
    weights = published(StLpips())
    del weights["lin2.model.1.weight"]
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"expected the weights of ST-LPIPS, got none that fit for channel_weights\.2"):
        st_lpips_of(tmp_path / "other.pth")


def test_st_lpips_without_its_package(no_packaged_files):
    with pytest.raises(FileNotFoundError, match=r"perceptual: the weights of ST-LPIPS: expected the package .*or none"):
        perceptual_loss("st-lpips")


def test_published_st_lpips():
    """Values of the published network, which agree with those of its own code to 1e-7."""
    if not ALEX.is_installed():
        pytest.skip("the extra perceptual is not installed")
    network = load_st_lpips()
    rows = torch.linspace(0, 1, 48)
    image = torch.stack((rows[:, None].expand(48, 48), rows.expand(48, 48), (rows[:, None] * rows * 9).sin().abs()))[
        None
    ]
    blurred = torch.nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
    found = network(image, blurred), network(image, image.flip(2))
    torch.testing.assert_close(torch.cat(found), torch.tensor(PUBLISHED), rtol=1e-4, atol=1e-6)


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
