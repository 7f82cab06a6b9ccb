"""Learned corrections of camera poses."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ernerf_ti.portrait.camera import all_pixels, pixel_rays, scene_from_capture
from ernerf_ti.train.camera_correction import CameraCorrection
from tests.portrait.test_camera import random_poses


def test_camera_rotates_about_its_center():
    correction = CameraCorrection(3).double()
    rays_o, rays_d = pixel_rays(scene_from_capture(random_poses(1)[0]), (9.0, 9.0, 4.0, 4.0), all_pixels(8, 8))
    for start, corrected in zip((rays_o, rays_d), correction(rays_o, rays_d, 1), strict=True):
        torch.testing.assert_close(corrected, start)
    axis_angle = np.array([0.3, -0.5, 0.2])
    with torch.no_grad():
        correction.rotations[1] = torch.from_numpy(axis_angle)
        correction.translations[1] = torch.tensor([0.1, 0.2, -0.3])
    moved_o, moved_d = correction(rays_o, rays_d, 1)
    np.testing.assert_allclose(
        moved_d.detach().numpy(), Rotation.from_rotvec(axis_angle).apply(rays_d.numpy()), atol=1e-12
    )
    torch.testing.assert_close(moved_o, rays_o + torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64))
    torch.testing.assert_close(correction(rays_o, rays_d, 0)[1], rays_d)


@pytest.mark.parametrize("size", [0.0, 0.05, 0.06, 0.4])  # power series and quotients
def test_gradients_of_pose_and_correction(size):
    pose = scene_from_capture(random_poses(1)[0])
    pixels = torch.tensor([[0, 1], [3, 2], [2, 0]])
    rotation, translation = torch.full((3,), size).double(), torch.full((3,), -size).double()

    def corrected(pose, rotation, translation):
        rays = pixel_rays(pose, (3.0, 4.0, 2.0, 1.5), pixels)
        parameters = {"rotations": rotation[None], "translations": translation[None]}
        return torch.func.functional_call(CameraCorrection(1), parameters, (*rays, 0))

    inputs = [x.requires_grad_() for x in (pose, rotation, translation)]
    assert torch.autograd.gradcheck(corrected, inputs)
