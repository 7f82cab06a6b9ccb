"""The face recognition network with random weights, and where it looks."""

import numpy as np
import pytest
import torch

from ernerf_ti.evaluation.identity import FACE_SIDE, IResNet, embeddings, identity_crop, iresnet_for
from ernerf_ti.evaluation.identity_metric import IdentitySimilarity
from ernerf_ti.evaluation.mesh_metrics import Meshes
from ernerf_ti.preprocess.face_mesh import N_POINTS

FILE = "arcface_backbone.pth"


@pytest.fixture(scope="module")
def weights():
    """Of a shallow network, under the published names."""
    torch.manual_seed(0)
    network = IResNet((1, 2, 1, 1))
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
    state = network.state_dict()
    published = (
        "conv1.weight",
        "bn1.bias",
        "prelu.weight",
        "layer2.0.downsample.1.running_mean",
        "layer2.1.conv2.weight",
    )
    assert {*published, "layer4.0.bn3.weight", "bn2.weight", "fc.bias", "features.weight"} < set(state)
    assert state["fc.weight"].shape == (512, 512 * 7 * 7)
    return state


def face_points(scale=1.0, angle=0.0, shift=(0.0, 0.0)):
    """[478, 3] mesh whose eyes, nose and mouth are those of the crop, turned, scaled and moved."""
    points = np.zeros((N_POINTS, 3))
    places = {(33, 133, 159, 145): (38.2946, 51.6963), (263, 362, 386, 374): (73.5318, 51.5014)}
    places |= {(4,): (56.0252, 71.7366), (61,): (41.5493, 92.3655), (291,): (70.7299, 92.2041)}
    for indices, place in places.items():
        points[list(indices), :2] = np.add(place, 0.5)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points[:, :2] = points[:, :2] @ turn.T + shift
    return points


def test_crop_brings_the_face_upright():
    image = np.zeros((300, 300, 3), np.uint8)
    points = face_points(1.5, 0.3, (60, 20))
    x, y = np.floor(points[4, :2]).astype(int)  # the tip of the nose
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    crop = identity_crop(image, points)
    assert crop.shape == (FACE_SIDE, FACE_SIDE, 3)
    rows, columns = np.nonzero(crop[..., 0] > 100)
    np.testing.assert_allclose((columns.mean(), rows.mean()), (56.0252, 71.7366), atol=0.8)


def test_crop_of_a_face_in_its_place_is_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (FACE_SIDE, FACE_SIDE, 3), np.uint8)
    np.testing.assert_array_equal(identity_crop(image, face_points()), image)


def test_embeddings_are_of_unit_length_and_depend_on_the_face(weights):
    network = iresnet_for(weights).eval()
    network.load_state_dict(weights)
    crops = np.random.default_rng(0).integers(0, 256, (2, FACE_SIDE, FACE_SIDE, 3), np.uint8)
    found = embeddings(network, crops, "cpu")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert (found[0] * found[1]).sum() < 0.9999


def test_similarity(weights, tmp_path, make_setting):
    torch.save(weights, tmp_path / FILE)
    metric = IdentitySimilarity(tmp_path)
    if metric.missing() is not None:
        pytest.skip("mediapipe is not installed")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (3, FACE_SIDE, FACE_SIDE, 3), np.uint8)
    shown = truth.copy()
    shown[1] = 255 - shown[1]
    setting = make_setting(shown, truth)
    meshes = Meshes(np.stack([face_points()] * 3), np.array([True, True, False]))
    for images in (setting.images, setting.truth):
        images.cached("meshes", lambda _: meshes)
    found = metric.measure(setting, 0)
    assert found.per_frame[0] == pytest.approx(1, abs=1e-5)
    assert found.per_frame[1] < found.per_frame[0] - 1e-4
    assert np.isnan(found.per_frame[2]) and found.n_frames == 2


def test_what_is_missing_is_named(weights, tmp_path):
    metric = IdentitySimilarity(tmp_path)
    if metric.missing().file is None:
        pytest.skip("mediapipe is not installed")
    assert (metric.missing().file, metric.missing().folder) == (FILE, str(tmp_path))
    torch.save({k: v for k, v in weights.items() if k != "fc.bias"}, tmp_path / "backbone.pth")
    assert "others (fc.bias)" in IdentitySimilarity(tmp_path).missing().reason
