import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernerf_ti.evaluation.metric import MetricValue, NotComputed
from ernerf_ti.evaluation.sync_metric import Sync, face_boxes, face_crop, longest_run
from ernerf_ti.evaluation.syncnet import SyncNet, face_vectors, sound_vectors, synchrony
from ernerf_ti.evaluation.syncnet_cepstra import cepstra
from tests.evaluation.conftest import landmarks

# Weights of the published file: output channels, input channels, kernel.
PUBLISHED = {
    "netcnnaud.0": (64, 1, 3, 3),
    "netcnnaud.4": (192, 64, 3, 3),
    "netcnnaud.8": (384, 192, 3, 3),
    "netcnnaud.11": (256, 384, 3, 3),
    "netcnnaud.14": (256, 256, 3, 3),
    "netcnnaud.18": (512, 256, 5, 4),
    "netcnnlip.0": (96, 3, 5, 7, 7),
    "netcnnlip.4": (256, 96, 1, 5, 5),
    "netcnnlip.8": (256, 256, 1, 3, 3),
    "netcnnlip.11": (256, 256, 1, 3, 3),
    "netcnnlip.14": (256, 256, 1, 3, 3),
    "netcnnlip.18": (512, 256, 1, 6, 6),
    "netfcaud.0": (512, 512),
    "netfcaud.3": (1024, 512),
    "netfclip.0": (512, 512),
    "netfclip.3": (1024, 512),
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SyncNet().eval()


def test_weights_are_those_of_the_published_file(network):
    weights = network.state_dict()
    layers = {name.removesuffix(".weight"): tuple(w.shape) for name, w in weights.items() if w.dim() > 1}
    assert layers == PUBLISHED
    # Each layer but the last of each head is followed by a batch normalization.
    norms = {name.removesuffix(".running_mean") for name in weights if name.endswith("running_mean")}
    following = {f"{name.rsplit('.', 1)[0]}.{int(name.rsplit('.', 1)[1]) + 1}" for name in PUBLISHED}
    assert norms == following - {"netfcaud.4", "netfclip.4"}


@torch.no_grad()
def test_batched_face_vectors_equal_single_ones(network, monkeypatch):
    monkeypatch.setattr("ernerf_ti.evaluation.syncnet._BATCH_SIZE", 2)
    frames = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), np.uint8)
    found = face_vectors(network, lambda i: frames[i], 8, "cpu")
    assert found.shape == (4, 1024)
    blue_first = torch.from_numpy(frames[..., ::-1].copy()).permute(3, 0, 1, 2).float()
    for k in (0, 3):
        one = network.netfclip(network.netcnnlip(blue_first[None, :, k : k + 5]).flatten(1))
        torch.testing.assert_close(found[k : k + 1], one, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sound_windows_match_frames(network):
    steps = np.random.default_rng(1).standard_normal((40, 13))
    found = sound_vectors(network, steps, 3, "cpu")
    assert found.shape == (3, 1024)
    one = network.netfcaud(network.netcnnaud(torch.from_numpy(steps[8:28].T.copy()).float()[None, None]).flatten(1))
    torch.testing.assert_close(found[2:3], one, rtol=1e-4, atol=1e-5)


def test_offset_is_found():
    torch.manual_seed(1)
    sounds = torch.randn(60, 32)
    late = torch.cat((torch.randn(4, 32), sounds[:-4]))  # what is seen in frame k is heard in k + 4
    found = synchrony(sounds, late)
    assert found.offset == -4
    assert found.confidences[:50].min() > 5
    assert synchrony(late, sounds).offset == 4


def test_confidence_by_hand():
    # One face and one sound at distance 4; beyond them there are zeros.
    faces = torch.tensor([[0.0, 0.0]])
    sounds = torch.tensor([[0.0, 4.0]])
    found = synchrony(faces, sounds, shifts=1)
    # Shifted by one, the sound is a zero: distance 0. The median of 0, 4, 0 is 0, and so is the minimum.
    assert (found.typical, found.offset) == (pytest.approx(0, abs=1e-4), 1)
    faces, sounds = torch.tensor([[0.0, 3.0]] * 3), torch.tensor([[0.0, 7.0], [0.0, 3.5], [0.0, 8.0]])
    found = synchrony(faces, sounds, shifts=0)
    np.testing.assert_allclose(found.distances, [4, 0.5, 5], atol=1e-4)
    assert found.typical == pytest.approx(9.5 / 3, abs=1e-4)


def slow_cepstra(samples):
    """Window by window, filter by filter, cepstrum by cepstrum."""
    samples = np.round(samples * 32768)
    emphasized = [samples[0]] + [samples[i] - 0.97 * samples[i - 1] for i in range(1, len(samples))]
    mel = [k * 2595 * np.log10(1 + 8000 / 700) / 27 for k in range(28)]
    corner = [int(513 * 700 * (10 ** (m / 2595) - 1) / 16000) for m in mel]
    rows, begin = [], 0
    while True:
        window = emphasized[begin : begin + 400]
        window = window + [0] * (400 - len(window))
        power = np.abs(np.fft.fft(window, 512)[:257]) ** 2 / 512
        energies = []
        for k in range(26):
            a, b, c = corner[k : k + 3]
            total = sum(power[i] * (i - a) / (b - a) for i in range(a, b))
            energies.append(total + sum(power[i] * (c - i) / (c - b) for i in range(b, c)))
        logs = np.log(energies)
        row = [np.log(power.sum())]
        for q in range(1, 13):
            value = sum(logs[k] * np.cos(np.pi * q * (2 * k + 1) / 52) for k in range(26)) * np.sqrt(2 / 26)
            row.append(value * (1 + 11 * np.sin(np.pi * q / 22)))
        rows.append(row)
        if begin + 400 >= len(samples):
            return np.array(rows)
        begin += 160


@pytest.mark.parametrize("n", [300, 400, 1000, 1040])
def test_cepstra(n):
    samples = np.round(np.random.default_rng(n).normal(0, 3000, n)) / 32768
    found = cepstra(samples)
    np.testing.assert_allclose(found, slow_cepstra(samples), rtol=1e-9, atol=1e-9)


def test_cepstra_are_those_of_python_speech_features():
    package = pytest.importorskip("python_speech_features")
    samples = np.round(np.random.default_rng(0).normal(0, 3000, 4000))
    np.testing.assert_allclose(cepstra(samples / 32768), package.mfcc(samples, 16000), rtol=1e-9, atol=1e-9)


def test_silence_is_finite():
    assert np.isfinite(cepstra(np.zeros(1000))).all()


def test_longest_run():
    assert longest_run(np.array([3, 4, 9, 10, 11, 20])) == slice(2, 5)
    assert longest_run(np.arange(5, 9)) == slice(0, 4)
    assert longest_run(np.array([7])) == slice(0, 1)


@settings(max_examples=50, deadline=None)
@given(times=st.lists(st.integers(0, 30), min_size=1, unique=True).map(sorted))
def test_longest_run_is_consecutive_and_longest(times):
    run = longest_run(np.array(times))
    found = times[run]
    assert found == list(range(found[0], found[0] + len(found)))
    assert not any(all(time + k in times for k in range(len(found) + 1)) for time in times)


def test_face_crop_shows_the_box():
    image = np.zeros((100, 120, 3), np.uint8)
    image[30:70, 40:80] = 200  # the box: half side 20 around (60, 50)
    shown = face_crop(image, np.array([60.0, 50.0, 20.0]))
    # 56 pixels become 224: the box is 160 wide, with 32 beside it and 64 below.
    assert shown.shape == (224, 224, 3)
    expected = np.zeros((224, 224), bool)
    expected[0:160, 32:192] = True
    assert ((shown[..., 0] > 100) != expected).mean() < 0.01
    outside = face_crop(image, np.array([0.0, 0.0, 20.0]))
    assert (outside[:50, :50] == 110).all()


def test_boxes_are_smooth():
    still = np.repeat(landmarks()[None], 30, 0)
    still[10] += 20  # one frame
    boxes = face_boxes(still)
    np.testing.assert_allclose(boxes, boxes[:1].repeat(30, 0))
    # 40 wide; 26 high with the brows on top, and 30 % more for the forehead
    assert boxes[0, 2] == pytest.approx(20, abs=0.1)
    assert boxes[0, 1] == pytest.approx((26 - 0.3 * 26 + 52) / 2, abs=0.2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("weights")
    torch.save(network.state_dict(), folder / "syncnet_v2.model")
    return folder


def test_both_scores_with_weights_from_a_file(weights, network, make_setting, monkeypatch):
    asked = []

    def vectors(used, faces, n, device):
        assert all(torch.equal(a, b) for a, b in zip(used.parameters(), network.parameters(), strict=True))
        asked.append(([faces(i) for i in range(n)], face_vectors(used, faces, n, device)))
        return asked[-1][1]

    monkeypatch.setattr("ernerf_ti.evaluation.sync_metric.face_vectors", vectors)
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (40, 64, 64, 3), np.uint8)
    samples = rng.uniform(-0.5, 0.5, 50 * 640).astype(np.float32)
    # Frames 3 to 41 with sound from there on; the first one stands alone.
    times = np.concatenate(([0], np.arange(3, 42)))
    setting = make_setting(images, samples=samples, times=times)
    confidence, distance = (Sync(kind, weights) for kind in ("confidence", "distance"))
    assert confidence.missing() is None
    found = [metric.measure(setting, 0) for metric in (confidence, distance)]
    assert all(isinstance(result, MetricValue) for result in found)
    assert [result.n_frames for result in found] == [34, 34]
    boxes = face_boxes(np.repeat(landmarks()[None], 39, 0))
    ((shown, faces),) = asked  # once for both numbers
    for i in (0, 38):
        np.testing.assert_array_equal(shown[i], face_crop(images[1 + i], boxes[i]))
    assert len(shown) == 39
    expected = synchrony(faces[:34], sound_vectors(network, cepstra(samples[3 * 640 : 42 * 640]), 34, "cpu"))
    assert found[0].value == pytest.approx(expected.typical - expected.distances.mean(), rel=1e-5)
    assert found[1].value == pytest.approx(expected.distances.mean(), rel=1e-5)
    assert np.isnan(found[1].per_frame[[0, 35, 39]]).all()
    assert np.isfinite(found[1].per_frame[1:35]).all()


def test_missing_weights_and_sound(weights, tmp_path, make_setting):
    lacking = Sync("confidence", tmp_path).missing()
    assert (lacking.file, lacking.folder) == ("syncnet_v2.model", str(tmp_path))
    torch.save({"netcnnaud.0.weight": torch.ones(1)}, tmp_path / "syncnet_v2.model")
    assert "expected the 102 tensors" in Sync("confidence", tmp_path).missing().reason
    metric, images = Sync("distance", weights), np.zeros((20, 64, 64, 3), np.uint8)
    assert metric.measure(make_setting(images), 0) == NotComputed("there is no sound")
    short = metric.measure(make_setting(images, samples=np.zeros(20 * 640)), 0)
    assert short == NotComputed("expected 35 consecutive frames with sound or more, got 20")
