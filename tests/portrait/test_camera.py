import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import taichi_kernels as tk
from ernerf_ti.portrait.camera import (
    all_pixels,
    capture_from_scene,
    pixel_coords,
    pixel_rays,
    scene_from_capture,
    smooth_path,
)

AABB = (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)


def random_poses(n, dtype=torch.float64):
    rng = np.random.default_rng(5)
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, :3] = Rotation.random(n, random_state=3).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(n, 3))
    return torch.from_numpy(poses).to(dtype)


def frontal_pose():
    pose = torch.eye(4)
    pose[2, 3] = 0.8
    return pose


def test_scene_pose_by_hand():
    expected = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 3.2], [1, 0, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(scene_from_capture(frontal_pose()), expected)


def test_poses_round_trip():
    poses = random_poses(6)
    scene = scene_from_capture(poses, 3.0, (0.1, -0.2, 0.3))
    torch.testing.assert_close(capture_from_scene(scene, 3.0, (0.1, -0.2, 0.3)), poses)
    turned = scene[:, :3, :3]
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3, dtype=turned.dtype).expand(6, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(6, dtype=turned.dtype))


def test_pixel_left_of_the_center_looks_left(device):
    pose = scene_from_capture(frontal_pose()).to(device)
    pixels = torch.tensor([[4, 0], [0, 4]], device=device)  # left of the middle, above the middle
    _, rays_d = pixel_rays(pose, (10.0, 10.0, 4.5, 4.5), pixels)
    assert rays_d[0, 2] < -0.3 and abs(rays_d[0, 0]) < 1e-6  # scene z is right
    assert rays_d[1, 0] > 0.3 and abs(rays_d[1, 2]) < 1e-6  # scene x is up


def test_center_ray_crosses_the_box(device):
    pose = scene_from_capture(frontal_pose()).to(device)
    rays_o, rays_d = pixel_rays(pose, (10.0, 10.0, 4.5, 4.5), torch.tensor([[4, 4]], device=device))
    torch.testing.assert_close(rays_d, torch.tensor([[0.0, -1.0, 0.0]], device=device))
    t_near, t_far = tk.intersect_aabb(rays_o, rays_d, AABB)
    assert (t_near.item(), t_far.item()) == pytest.approx((2.7, 3.7), abs=1e-5)


def test_rays_are_those_of_opencv():
    pose, intrinsics = scene_from_capture(random_poses(1)[0]), (90.0, 110.0, 20.0, 15.0)
    pixels = all_pixels(30, 40)
    rays_o, rays_d = pixel_rays(pose, intrinsics, pixels)
    torch.testing.assert_close(rays_d.norm(dim=1), torch.ones(1200, dtype=torch.float64))
    # A point on the ray projects to the center of the pixel.
    points = rays_o + 2.5 * rays_d
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).unbind(1)
    torch.testing.assert_close(x / z * 90 + 20, pixels[:, 1].double() + 0.5)
    torch.testing.assert_close(y / z * 110 + 15, pixels[:, 0].double() + 0.5)


def test_pixel_coords_come_vertical_first():
    coords = pixel_coords(all_pixels(5, 9), 5, 9)
    torch.testing.assert_close(coords[0], torch.tensor([-1.0, -1.0]))
    torch.testing.assert_close(coords[1], torch.tensor([-1.0, -1.0 + 2 / 8]))
    torch.testing.assert_close(coords[9], torch.tensor([-1.0 + 2 / 4, -1.0]))
    torch.testing.assert_close(coords[-1], torch.tensor([1.0, 1.0]))


def test_smoothing_takes_the_mean_pose_of_a_window():
    poses = random_poses(9)
    smooth = smooth_path(poses, 5)
    for i in range(9):
        near = poses[max(0, i - 2) : i + 3].numpy()
        np.testing.assert_allclose(smooth[i, :3, 3], near[:, :3, 3].mean(0), atol=1e-12)
        np.testing.assert_allclose(
            smooth[i, :3, :3], Rotation.from_matrix(near[:, :3, :3]).mean().as_matrix(), atol=1e-9
        )
    torch.testing.assert_close(smooth_path(poses, 1), poses)
    with pytest.raises(ValueError, match="odd number of frames, got 4"):
        smooth_path(poses, 4)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"pixels: expected shape \[N, 2\], got \[7\]"):
        pixel_rays(torch.eye(4), (1.0, 1.0, 0.0, 0.0), torch.arange(7))
    with pytest.raises(ValueError, match=r"poses: expected shape \[..., 4, 4\], got \[3, 4\]"):
        scene_from_capture(torch.zeros(3, 4))
