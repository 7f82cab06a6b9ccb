import pytest
import torch
import torch.nn.functional as F

from ernerf_ti.experiments.operations import recorded_operations
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.config import TorsoFieldConfig
from ernerf_ti.portrait.model.torso_field import TorsoField
from taichi_kernels.reference import frequency_encode, grid_encode


def frontal_pose(device="cpu"):
    pose = torch.eye(4, device=device)
    pose[2, 3] = 0.8
    return scene_from_capture(pose)


def small(device="cpu", **changes):
    config = TorsoFieldConfig(n_levels=4, base_resolution=4, finest_resolution=32, log2_table_size=6, **changes)
    return TorsoField(config, 3).to(device)


def test_anchors_by_hand():
    coordinates = TorsoField(TorsoFieldConfig(), 1).encode_pose(frontal_pose())
    expected = torch.tensor([0.031348, -0.003135, 0.030303, 0.030303, 0.030303, -0.030303])
    torch.testing.assert_close(coordinates, expected, atol=1e-6, rtol=0)


def test_poses_need_not_be_exactly_rigid():
    """Captures hold rotations that are orthonormal to 1e-3."""
    field = TorsoField(TorsoFieldConfig(), 1).double()
    field.anchors.data[:, 3] = torch.tensor([0.9, 1.1, 1.2])
    pose = frontal_pose().double()
    pose[:3, :3] += 5e-4 * torch.randn(3, 3, dtype=torch.float64)
    camera = field.anchors @ torch.linalg.inv(pose).t()
    expected = camera[:, :2] / camera[:, 3:] / camera[:, 2:3]
    torch.testing.assert_close(field.encode_pose(pose), expected.flatten())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision(precision, device):
    field, pose = small(device), frontal_pose(device)
    torch.nn.init.normal_(field.encoding.table)
    coords = torch.rand(60, 2, device=device) * 2 - 1
    expected = field(coords, pose, 1)
    field.precision = precision
    layer = field(coords, pose, 1)
    assert torch.equal(layer.offset, expected.offset)  # positions stay in float32
    for name in ("alpha", "rgb"):
        value = getattr(layer, name)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, getattr(expected, name), atol=0.02, rtol=0)
    (layer.alpha.sum() + layer.rgb.sum()).backward()
    assert all(p.grad.dtype == torch.float32 for p in field.parameters())


def test_nothing_waits_for_the_device(device):
    field, pose = small(device, appearance_smoothing=3), frontal_pose(device)
    coords = torch.rand(60, 2, device=device) * 2 - 1
    with recorded_operations() as counted:
        layer = field(coords, pose, 1)
        (layer.alpha.sum() + layer.rgb.sum()).backward()
    assert counted.waits == []
    assert counted.launches <= 200


def test_shapes_and_gradients(device):
    field = small(device)
    pose = frontal_pose(device).requires_grad_()
    layer = field(torch.rand(50, 2, device=device) * 2 - 1, pose, 1)
    assert layer.alpha.shape == (50,) and layer.rgb.shape == (50, 3) and layer.offset.shape == (50, 2)
    assert (layer.alpha > -0.0011).all() and (layer.rgb < 1.0011).all()
    sum((v * torch.randn_like(v)).sum() for v in (layer.alpha, layer.rgb, layer.offset)).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert pose.grad.abs().max() > 0
    assert (field.appearance.embeddings.grad[[0, 2]] == 0).all()
    assert field(torch.zeros(0, 2, device=device), pose).alpha.shape == (0,)


def test_equals_the_same_in_plain_torch(device):
    field, pose = small(device), frontal_pose(device)
    torch.nn.init.normal_(field.encoding.table)
    field.anchors.data[:, 3] = torch.tensor([0.9, 1.1, 1.2])
    coords = torch.rand(40, 2, device=device) * 2 - 1

    def mlp(network, x):
        for i, layer in enumerate(network.layers):
            x = F.linear(F.relu(x) if i else x, layer.weight)
        return x

    camera = torch.stack([torch.linalg.inv(pose) @ anchor for anchor in field.anchors])
    points = torch.stack((camera[:, 0] / camera[:, 3], camera[:, 1] / camera[:, 3]), 1) / camera[:, 2:3]
    x = coords * 0.8
    h = torch.cat(
        (
            frequency_encode(x, 8),
            frequency_encode(points.reshape(1, 6), 3).expand(40, -1),
            field.appearance.embeddings[2].expand(40, -1),
        ),
        1,
    )
    offset = mlp(field.deformation_net, h)
    features = grid_encode((x + offset).clamp(-1, 1), field.encoding.table, field.encoding.config)
    output = torch.sigmoid(mlp(field.color_net, torch.cat((features, h), 1))) * 1.002 - 0.001
    layer = field(coords, pose, 2)
    torch.testing.assert_close(layer.offset, offset, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat((layer.alpha[:, None], layer.rgb), 1), output, atol=1e-5, rtol=1e-4)


def test_embeddings_encode_where_the_shoulders_are(device):
    """An edge that wanders while the head rests: only a frame's code tells where it is."""
    positions = 0.5 * torch.sin(torch.linspace(0, 6, 24, device=device))
    config = TorsoFieldConfig(
        n_levels=4, base_resolution=8, finest_resolution=32, log2_table_size=10, appearance_smoothing=5
    )
    field, pose = TorsoField(config, len(positions)).to(device), frontal_pose(device)
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)
    axis = torch.linspace(-1, 1, 24, device=device)
    coords = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2)

    def error(i: int, appearance) -> torch.Tensor:
        return (field(coords, pose, appearance).alpha - (coords[:, 1] > positions[i]).float()).square().mean()

    for step in range(600):
        optimizer.zero_grad()
        error(step * 7 % 24, step * 7 % 24).backward()
        optimizer.step()
    with torch.no_grad():
        own, mean = (sum(float(error(i, code(i))) for i in range(24)) for code in (int, lambda i: None))
    assert own < 0.25 * mean


def test_released_size():
    field = TorsoField(TorsoFieldConfig(), 10000)
    assert sum(p.numel() for p in field.parameters()) == 1787681 - 587989
    assert field.encoding.config.level_offsets[-1] == 555520
    assert field.encoding.config.level_resolutions[-1] == 2048


def test_appearance_index_is_checked(device):
    with pytest.raises(ValueError, match="n_embeddings: expected at least 1, got 0"):
        TorsoField(TorsoFieldConfig(), 0)
    with pytest.raises(ValueError, match="appearance_index: expected 0 to 2, got -1"):
        small(device)(torch.zeros(1, 2, device=device), frontal_pose(device), -1)
