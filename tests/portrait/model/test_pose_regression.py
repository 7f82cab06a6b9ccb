import math

import pytest
import torch

from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.model.pose_regression import PoseRegression


def poses_of(turns: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Scene poses of a head that nods by turns [n] radians, its camera at places [n, 3]."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(turns), 1, 1)
    poses[:, 1, 1] = poses[:, 2, 2] = turns.cos()
    poses[:, 2, 1] = turns.sin()
    poses[:, 1, 2] = -turns.sin()
    poses[:, :3, 3] = places + torch.tensor([0, 0, 0.8])
    return scene_from_capture(poses).float()


@pytest.fixture
def turns():
    return torch.linspace(-0.2, 0.2, 50, dtype=torch.float64)


def test_a_code_that_follows_the_head_is_found(turns):
    places = 0.05 * torch.rand(50, 3, dtype=torch.float64)
    codes = torch.stack((3 * turns, 1 - turns), 1).float()
    expected = PoseRegression(poses_of(turns, places)[::2], codes[::2])(poses_of(turns, places)[1:-1:2])
    torch.testing.assert_close(expected, codes[1:-1:2], atol=0.01, rtol=0)


def test_beyond_what_was_seen_codes_stay_in_range(turns):
    codes = PoseRegression(poses_of(turns, torch.zeros(50, 3)), turns[:, None].float())
    far = codes(poses_of(torch.tensor([-math.pi / 3, math.pi / 3]), torch.zeros(2, 3)))
    assert far[:, 0].tolist() == pytest.approx([-0.2, 0.2])


def test_one_pose_has_the_mean_code():
    codes = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    still = poses_of(torch.zeros(2), torch.zeros(2, 3))
    torch.testing.assert_close(PoseRegression(still, codes)(still[:1]), codes.mean(0, keepdim=True))
    torch.testing.assert_close(PoseRegression(still[:1], codes[:1])(still), codes[:1].expand(2, -1))
