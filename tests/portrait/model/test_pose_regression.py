import math

import pytest
import torch

from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.model.pose_regression import PoseRegression


def poses_of(angles: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Scene poses of a head that nods by angles [n] radians, its camera at positions [n, 3]."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(angles), 1, 1)
    poses[:, 1, 1] = poses[:, 2, 2] = angles.cos()
    poses[:, 2, 1] = angles.sin()
    poses[:, 1, 2] = -angles.sin()
    poses[:, :3, 3] = positions + torch.tensor([0, 0, 0.8])
    return scene_from_capture(poses).float()


@pytest.fixture
def angles():
    return torch.linspace(-0.2, 0.2, 50, dtype=torch.float64)


def test_embeddings_linear_in_the_pose_are_recovered(angles):
    positions = 0.05 * torch.rand(50, 3, dtype=torch.float64)
    codes = torch.stack((3 * angles, 1 - angles), 1).float()
    expected = PoseRegression(poses_of(angles, positions)[::2], codes[::2])(poses_of(angles, positions)[1:-1:2])
    torch.testing.assert_close(expected, codes[1:-1:2], atol=0.01, rtol=0)


def test_extrapolations_are_clamped(angles):
    codes = PoseRegression(poses_of(angles, torch.zeros(50, 3)), angles[:, None].float())
    far = codes(poses_of(torch.tensor([-math.pi / 3, math.pi / 3]), torch.zeros(2, 3)))
    assert far[:, 0].tolist() == pytest.approx([-0.2, 0.2])


def test_one_pose_predicts_the_mean():
    codes = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    still = poses_of(torch.zeros(2), torch.zeros(2, 3))
    torch.testing.assert_close(PoseRegression(still, codes)(still[:1]), codes.mean(0, keepdim=True))
    torch.testing.assert_close(PoseRegression(still[:1], codes[:1])(still), codes[:1].expand(2, -1))
