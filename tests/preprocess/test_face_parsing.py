"""Loading and labeling with random weights of the real size, as the trained ones are not part of the package."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ernerf_ti.preprocess import face_parsing
from ernerf_ti.preprocess.face_parsing import FaceParser

SIDE = 64
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """512 px take a second per frame, and no test depends on the size."""
    monkeypatch.setattr(face_parsing, "_SIDE", SIDE)


def shapes():
    """Shapes in `79999_iter.pth`, from the description of the network."""
    found = {}

    def norm(name, n):
        found.update({f"{name}.{key}": (n,) for key in ("weight", "bias", "running_mean", "running_var")})

    def block(name, n_in, n_out, kernel):
        found[f"{name}.conv.weight"] = (n_out, n_in, kernel, kernel)
        norm(f"{name}.bn", n_out)

    found["cp.resnet.conv1.weight"] = (64, 3, 7, 7)
    norm("cp.resnet.bn1", 64)
    for layer, (n_in, n_out) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
        for i in range(2):
            name = f"cp.resnet.layer{layer}.{i}"
            found[f"{name}.conv1.weight"] = (n_out, n_out if i else n_in, 3, 3)
            norm(f"{name}.bn1", n_out)
            found[f"{name}.conv2.weight"] = (n_out, n_out, 3, 3)
            norm(f"{name}.bn2", n_out)
            if layer > 1 and i == 0:
                found[f"{name}.downsample.0.weight"] = (n_out, n_in, 1, 1)
                norm(f"{name}.downsample.1", n_out)
    for name, n_in in (("cp.arm16", 256), ("cp.arm32", 512)):
        block(f"{name}.conv", n_in, 128, 3)
        found[f"{name}.conv_atten.weight"] = (128, 128, 1, 1)
        norm(f"{name}.bn_atten", 128)
    block("cp.conv_head32", 128, 128, 3)
    block("cp.conv_head16", 128, 128, 3)
    block("cp.conv_avg", 512, 128, 1)
    block("ffm.convblk", 256, 256, 1)
    found["ffm.conv1.weight"] = (64, 256, 1, 1)
    found["ffm.conv2.weight"] = (256, 64, 1, 1)
    for name, n_in, n_middle in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        block(f"{name}.conv", n_in, n_middle, 3)
        found[f"{name}.conv_out.weight"] = (19, n_middle, 1, 1)
    return found


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(5)
    state = {}
    for key, shape in shapes().items():
        x = torch.randn(shape, generator=generator)
        fan_in = int(np.prod(shape[1:]))
        state[key] = x * (2 / fan_in) ** 0.5 if len(shape) == 4 else 0.3 * x
        if key.endswith(("bn.weight", "running_var")) or (len(shape) == 1 and key.endswith("weight")):
            state[key] = 1 + 0.3 * x.tanh()
        if key.endswith("running_mean"):
            state[key.replace("running_mean", "num_batches_tracked")] = torch.tensor(80_000)
    return state


@pytest.fixture(scope="module")
def path(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("parsing") / "79999_iter.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def parser(path):
    return FaceParser(path)


def noise(height=SIDE, width=SIDE):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def twin(state, image):
    """The logits of BiSeNet, computed directly from the state dict."""

    def norm(name, x):
        mean, var, weight, bias = (
            state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def block(name, x):
        return norm(f"{name}.bn", conv(f"{name}.conv", x)).relu()

    def double(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def mean(x):
        return x.mean(3, keepdim=True).mean(2, keepdim=True)

    def gated(name, x):
        x = block(f"{name}.conv", x)
        return x * norm(f"{name}.bn_atten", conv(f"{name}.conv_atten", mean(x))).sigmoid()

    x = F.max_pool2d(norm("cp.resnet.bn1", conv("cp.resnet.conv1", image, 2)).relu(), 3, 2, 1)
    sizes = []
    for layer in (1, 2, 3, 4):
        for i in (0, 1):
            name = f"cp.resnet.layer{layer}.{i}"
            stride = 2 if layer > 1 and i == 0 else 1
            inner = norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride)).relu()
            inner = norm(f"{name}.bn2", conv(f"{name}.conv2", inner))
            if stride == 2:
                x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, 2))
            x = (x + inner).relu()
        sizes.append(x)
    _, at_8, at_16, at_32 = sizes
    context = block("cp.conv_head32", double(gated("cp.arm32", at_32) + block("cp.conv_avg", mean(at_32))))
    context = block("cp.conv_head16", double(gated("cp.arm16", at_16) + context))
    fused = block("ffm.convblk", torch.cat((at_8, context), 1))
    fused = fused * (1 + conv("ffm.conv2", conv("ffm.conv1", mean(fused)).relu()).sigmoid())
    scores = conv("conv_out.conv_out", block("conv_out.conv", fused))
    return F.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=True)


def test_network_matches_twin(parser, weights):
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        scores = parser._network(image)
        expected = twin(weights, image)
    assert scores.shape == (1, 19, 64, 96)
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_labels_are_those_of_the_network(parser, weights):
    frame = noise()
    image = ((torch.tensor(frame) / 255 - MEAN) / STD).permute(2, 0, 1)[None]
    with torch.no_grad():
        classes = twin(weights, image)[0].argmax(0).numpy()
    expected = np.array([0] + 13 * [1] + 2 * [2] + [3] + 2 * [1])[classes]
    labels = parser(frame)
    assert labels.dtype == np.uint8 and labels.shape == (SIDE, SIDE)
    assert len(np.unique(labels)) > 1
    assert (labels == expected).mean() > 0.999  # a tie may fall either way


class Scripted:
    """A network that records its input and returns given classes."""

    def __init__(self, classes):
        self.scores = F.one_hot(torch.tensor(classes), 19).permute(2, 0, 1)[None].float()

    def __call__(self, image):
        self.image = image
        return self.scores


@pytest.fixture
def answer(parser, monkeypatch):
    def script(classes):
        network = Scripted(classes)
        monkeypatch.setattr(parser, "_network", network)
        return network

    return script


def test_class_map(parser, answer):
    classes = np.minimum(np.arange(SIDE) // 3, 18)
    answer(np.repeat(classes[:, None], SIDE, 1))
    labels = parser(noise())[::3, 0][:19]
    names = "background, skin, brow, brow, eye, eye, glasses, ear, ear, earring, nose, mouth, lip, lip, neck, necklace"
    expected = {"background": 0, "neck": 2, "necklace": 2, "cloth": 3}
    assert labels.tolist() == [expected.get(name, 1) for name in [*names.split(", "), "cloth", "hair", "hat"]]


# Sizes at which the pixel of the network that holds the center of one of ours can be told without rounding.
@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 192), (320, 32)])
def test_labels_have_the_size_of_the_frame(parser, answer, height, width):
    classes = np.random.default_rng(2).choice([0, 1, 14, 16], (SIDE, SIDE))
    answer(classes)
    rows, columns = (((np.arange(n) + 0.5) * SIDE / n).astype(int) for n in (height, width))
    expected = np.select([classes == 0, classes == 1, classes == 14], [0, 1, 2], 3)[rows[:, None], columns]
    assert np.array_equal(parser(noise(height, width)), expected)


def test_input_is_normalized_and_stretched(parser, answer):
    network = answer(np.zeros((SIDE, SIDE), int))
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:64] = [255, 0, 51]
    parser(frame)
    assert network.image.shape == (1, 3, SIDE, SIDE)
    top, bottom = network.image[0, :, 5, 20], network.image[0, :, -5, 20]
    torch.testing.assert_close(top, (torch.tensor([1.0, 0.0, 0.2]) - MEAN) / STD)
    torch.testing.assert_close(bottom, -MEAN / STD)


def test_shrinking_does_not_alias(parser, answer):
    network = answer(np.zeros((SIDE, SIDE), int))
    frame = np.zeros((8 * SIDE, 8 * SIDE, 3), np.uint8)
    frame[:, ::8] = 255
    parser(frame)
    color = network.image[0, :, 8:-8, 8:-8] * STD[:, None, None] + MEAN[:, None, None]
    assert (color - 1 / 8).abs().max() < 0.02


def test_deterministic(parser, path):
    frame = noise(50, 70)
    first = parser(frame)
    parser(frame[::-1])
    assert np.array_equal(parser(frame), first)
    assert np.array_equal(FaceParser(path)(frame), first)


def test_memory_layout(parser):
    frame = noise(50, 70)
    assert np.array_equal(parser(frame[::-1]), parser(frame[::-1].copy()))


def test_files_of_old_versions(weights, parser, tmp_path):
    state = {key: value for key, value in weights.items() if "num_batches" not in key and "conv_out16" not in key}
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert np.array_equal(FaceParser(path)(noise()), parser(noise()))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        FaceParser(tmp_path / "79999_iter.pth")
    message = str(error.value)
    assert f"{tmp_path / '79999_iter.pth'}: expected BiSeNet's weights (79999_iter.pth), got no such file" in message
    assert "pass the path of your copy with --face-parser" in message
    assert "or omit the option" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cp.arm16.conv_atten.weight": None},
            "expected cp.arm16.conv_atten.weight of shape [128, 128, 1, 1], got no such key",
        ),
        (
            {"conv_out.conv_out.weight": torch.zeros(11, 256, 1, 1)},
            "expected conv_out.conv_out.weight of shape [19, 256, 1, 1], got [11, 256, 1, 1]",
        ),
        (
            {"cp.resnet.bn1.running_var": None, "ffm.conv1.weight": torch.zeros(2)},
            "expected cp.resnet.bn1.running_var of shape [64], got no such key",
        ),
        (
            {"cp.resnet.layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)},
            "unexpected key cp.resnet.layer1.2.conv1.weight of shape [64, 64, 3, 3]",
        ),
    ],
    ids=["missing", "shape", "first of two", "deeper backbone"],
)
def test_weights_of_another_network(change, message, tmp_path):
    state = {key: torch.zeros(1).expand(shape) for key, shape in shapes().items()} | change
    state = {key: value for key, value in state.items() if value is not None}
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(ValueError) as error:
        FaceParser(path)
    assert f"{path}: {message}" in str(error.value)
    assert "pass BiSeNet's 79999_iter.pth" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 a broken archive"])
def test_not_a_torch_file(content, tmp_path):
    path = tmp_path / "79999_iter.pth"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match="expected a state dict, got a file that torch can't load as one; pass BiSeNet's"
    ):
        FaceParser(path)


def test_not_a_state_dict(tmp_path):
    path = tmp_path / "79999_iter.pth"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="expected a state dict of tensors, got something else; pass BiSeNet's 79999"):
        FaceParser(path)


@pytest.mark.parametrize("frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_bad_frame(parser, frame):
    with pytest.raises(ValueError) as error:
        parser(frame)
    assert f"frame: expected [H, W, 3] uint8 RGB, got {list(frame.shape)} {frame.dtype}" in str(error.value)
