"""LPIPS and FID, with stand-ins for their packages, and ST-LPIPS: their weights, and what the networks are given."""

import sys
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ernerf_ti.evaluation.fid_metric import Fid
from ernerf_ti.evaluation.lpips_metric import Lpips
from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.evaluation.pixel_metrics import cropped
from ernerf_ti.evaluation.st_lpips_metric import StLpipsMetric
from ernerf_ti.train.st_lpips import StLpips
from tests.evaluation.conftest import landmarks

ALEXNET, INCEPTION = "alexnet-owt-7be5be79.pth", "weights-inception-2015-12-05-6726825d.pth"


class Backbone(nn.Module):
    """Two layers, named as the package lpips names them: slice, then index in the published network."""

    def __init__(self):
        super().__init__()
        self.slice1, self.slice2 = nn.Sequential(), nn.Sequential()
        self.slice1.add_module("0", nn.Conv2d(3, 4, 3))
        self.slice2.add_module("3", nn.Conv2d(4, 2, 3))

    def forward(self, x):
        return self.slice2(self.slice1(x))


class StandInLpips(nn.Module):
    def __init__(self, net, pnet_rand, verbose):
        super().__init__()
        assert pnet_rand
        assert not verbose
        self.net, self.kind = Backbone(), net

    def forward(self, a, b):
        return (self.net(a) - self.net(b)).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("lpips")
    module.LPIPS = StandInLpips
    monkeypatch.setitem(sys.modules, "lpips", module)


def published(backbone):
    """The backbone's weights under the names of the file, which also has a classifier."""
    weights = {f"features.{name.split('.', 1)[1]}": value for name, value in backbone.state_dict().items()}
    return {**weights, "classifier.1.weight": torch.ones(3)}


def pair(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, 40, 48, 3), np.uint8)


def test_lpips_uses_the_weights_of_the_file(package, tmp_path):
    backbone, (image, truth) = Backbone(), pair()
    torch.save(published(backbone), tmp_path / ALEXNET)
    metric = Lpips("alex", tmp_path)
    assert metric.missing() is None
    a, b = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in (image, truth))
    expected = (backbone(a) - backbone(b)).square().mean()
    assert metric.of_frame(image, truth, landmarks()) == pytest.approx(expected.item(), rel=1e-5)
    assert metric.of_frame(truth, truth, landmarks()) == 0


def test_lpips_names_what_is_missing(package, tmp_path, monkeypatch):
    assert Lpips("alex", tmp_path).missing().file == ALEXNET
    assert Lpips("vgg", tmp_path).missing().file == "vgg16-397923af.pth"
    weights = published(Backbone())
    del weights["features.3.bias"]
    torch.save(weights, tmp_path / ALEXNET)
    assert "expected the 4 tensors of the published network, got others (slice2.3.bias)" in (
        Lpips("alex", tmp_path).missing().reason
    )
    monkeypatch.setitem(sys.modules, "lpips", None)  # importing it fails
    assert "pip install 'ernerf-ti[evaluate]'" in Lpips("alex", tmp_path).missing().reason


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_with_its_package(net, tmp_path):
    lpips = pytest.importorskip("lpips", exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision with deprecated arguments
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    name = ALEXNET if net == "alex" else "vgg16-397923af.pth"
    torch.save(published(network.net), tmp_path / name)
    metric, (image, truth) = Lpips(net, tmp_path), pair(1)
    a, b = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in (image, truth))
    expected = network(a, b, normalize=True).item()
    assert metric.of_frame(image, truth, landmarks()) == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-3


@pytest.fixture
def fidelity(monkeypatch):
    """torch-fidelity with features that are the mean colors, scaled by the weights of the file."""
    module, metric = types.ModuleType("torch_fidelity"), types.ModuleType("torch_fidelity.metric_fid")

    class Extractor(nn.Module):
        def __init__(self, name, features, path):
            super().__init__()
            assert features == ["2048"]
            self.scale = torch.load(path, weights_only=True)["scale"]

        def forward(self, images):
            assert images.dtype == torch.uint8
            return (images.float().mean((2, 3)) * self.scale,)

    def statistics(features):
        return {"mu": features.mean(0).numpy(), "sigma": np.cov(features.numpy(), rowvar=False)}

    def distance(one, other, verbose):
        a, b = one["mu"], other["mu"]
        mixed = np.sqrt(np.linalg.eigvals(one["sigma"] @ other["sigma"]).astype(complex)).real.sum()
        return {"fid": ((a - b) ** 2).sum() + np.trace(one["sigma"]) + np.trace(other["sigma"]) - 2 * mixed}

    module.FeatureExtractorInceptionV3 = Extractor
    metric.KEY_METRIC_FID, metric.fid_features_to_statistics = "fid", statistics
    metric.fid_statistics_to_metric = distance
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    monkeypatch.setitem(sys.modules, "torch_fidelity.metric_fid", metric)


def test_fid_by_hand(fidelity, tmp_path, make_setting):
    torch.save({"scale": torch.tensor(2.0)}, tmp_path / INCEPTION)
    metric = Fid(tmp_path)
    assert metric.missing() is None
    truth = np.random.default_rng(0).integers(0, 200, (20, 8, 8, 3), np.uint8)
    found = metric.measure(make_setting(truth + np.uint8(10), truth), 0)
    # The covariances are equal, the means 20 apart along each of three axes.
    assert found.value == pytest.approx(1200, rel=1e-6)
    assert (found.n_frames, found.interval, found.per_frame) == (20, None, None)
    assert found.note == "fewer frames than features: biased"
    assert metric.measure(make_setting(truth, truth), 0).value == pytest.approx(0, abs=1e-6)


def test_features_of_the_truth_are_computed_once(fidelity, tmp_path, make_setting, monkeypatch):
    torch.save({"scale": torch.tensor(1.0)}, tmp_path / INCEPTION)
    metric, asked = Fid(tmp_path), []
    statistics = metric._statistics
    monkeypatch.setattr(metric, "_statistics", lambda images: asked.append(images) or statistics(images))
    setting = make_setting(pair(0), pair(1))
    metric.measure(setting, 0)
    metric.measure(setting, 0)
    assert len(asked) == 2


def test_fid_names_what_is_missing(fidelity, tmp_path, make_setting, monkeypatch):
    lacking = Fid(tmp_path).missing()
    assert (lacking.file, lacking.folder) == (INCEPTION, str(tmp_path))
    (tmp_path / INCEPTION).write_bytes(b"not weights")
    assert "expected a weight file" in Fid(tmp_path).missing().reason
    torch.save({"scale": torch.tensor(1.0)}, tmp_path / INCEPTION)
    assert isinstance(Fid(tmp_path).measure(make_setting(pair()[:1], pair()[:1]), 0), NotComputed)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert "torch-fidelity" in Fid(tmp_path).missing().reason


def test_fid_with_its_package(tmp_path, make_setting):
    fidelity = pytest.importorskip("torch_fidelity", exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    extractor = _random_inception(fidelity, tmp_path)
    truth = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    metric = Fid(tmp_path)
    features = [extractor(torch.from_numpy(p).permute(0, 3, 1, 2))[0].double().numpy() for p in (truth, truth // 2)]
    mean = np.square(features[0].mean(0) - features[1].mean(0)).sum()
    found = metric.measure(make_setting(truth // 2, truth), 0).value
    assert found >= 0.9 * mean > 0
    assert metric.measure(make_setting(truth, truth), 0).value == pytest.approx(0, abs=1e-3 * mean)


def _random_inception(fidelity, folder):
    """torch-fidelity's network with random weights, and their file."""
    kind = fidelity.FeatureExtractorInceptionV3
    made = kind.__new__(kind)
    load = torch.nn.Module.load_state_dict
    try:  # it has no way to be made without a file
        torch.nn.Module.load_state_dict = lambda self, weights: None
        torch.save({}, folder / INCEPTION)
        made = kind("inception", ["2048"], str(folder / INCEPTION))
    finally:
        torch.nn.Module.load_state_dict = load
    torch.save(made.state_dict(), folder / INCEPTION)
    return made


@pytest.mark.parametrize("crop", ["frame", "lips"])
def test_st_lpips(crop, monkeypatch):
    torch.manual_seed(0)
    network = StLpips()
    monkeypatch.setattr("ernerf_ti.evaluation.st_lpips_metric.load_st_lpips", lambda: network)
    metric, (image, truth) = StLpipsMetric(crop), pair()
    assert metric.missing() is None and metric.name == f"ST-LPIPS {crop}"
    tensors = [cropped(array, landmarks(), crop).copy() for array in (image, truth)]
    a, b = (torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255 for array in tensors)
    assert metric.of_frame(image, truth, landmarks()) == pytest.approx(float(network(a, b)), rel=1e-5)
    assert metric.of_frame(truth, truth, landmarks()) == 0


def test_st_lpips_names_what_is_missing(no_packaged_files):
    missing = StLpipsMetric("frame").missing()
    assert missing.file is None and "pip install 'ernerf-ti[perceptual]'" in missing.reason
