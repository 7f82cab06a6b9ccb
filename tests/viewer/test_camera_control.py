"""Cameras around the head."""

import pytest
import torch

from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays, scene_from_capture
from ernerf_ti.viewer.camera_control import (
    CapturedDirections,
    camera_pose,
    field_of_view,
    head_pose,
    layer_coords,
    orbited,
    view_intrinsics,
)
from ernerf_ti.viewer.state import ViewState, changed

INTRINSICS, SIZE = (300.0, 300.0, 32.0, 24.0), (64, 48)
START = ViewState(field_of_view(INTRINSICS, SIZE[1]), 3)
NOSE = (0.0, 0.2, 0.0)  # the axes: x up, y out of the face, z right


@pytest.fixture
def pose():
    in_capture = torch.eye(4, dtype=torch.float64)
    in_capture[:3, 3] = torch.tensor([0.02, -0.01, 0.8])
    return scene_from_capture(in_capture).float()


def seen_at(point, pose, intrinsics=INTRINSICS):
    """Column and row of a scene point, and its depth."""
    x, y, z = (torch.tensor(point) - pose[:3, 3]) @ pose[:3, :3]
    return float(intrinsics[0] * x / z + intrinsics[2]), float(intrinsics[1] * y / z + intrinsics[3]), float(z)


def test_orbit_keeps_the_head_in_its_place(pose):
    moved = orbited(pose, 30, -20)
    assert seen_at((0, 0, 0), moved) == pytest.approx(seen_at((0, 0, 0), pose), abs=1e-3)
    rotation = moved[:3, :3]
    torch.testing.assert_close(rotation @ rotation.t(), torch.eye(3), atol=1e-5, rtol=0)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-5)
    assert torch.equal(orbited(pose, 0, 0), pose)


def test_signs(pose):
    before = seen_at(NOSE, pose)
    assert seen_at(NOSE, orbited(pose, 20, 0))[0] < before[0] - 5  # from further right the nose points left
    assert seen_at(NOSE, orbited(pose, 0, 20))[1] > before[1] + 5  # from above it points down
    dragged = changed(START, yaw=-20.0)  # as a drag to the right does
    assert seen_at(NOSE, camera_pose(pose, dragged))[0] > before[0] + 5
    turned = changed(START, head="mouse", head_yaw=20.0, head_pitch=10.0)
    column, row, _ = seen_at(NOSE, head_pose(pose, turned))
    assert column > before[0] + 5 and row > before[1] + 2
    assert torch.equal(head_pose(pose, changed(turned, head="capture")), pose)


def test_pan_and_distance(pose):
    before = seen_at((0, 0, 0), pose)
    panned = seen_at((0, 0, 0), camera_pose(pose, changed(START, pan_x=-0.1, pan_y=0.1)))
    assert panned[0] > before[0] + 5 and panned[1] > before[1] + 5  # the person follows a drag right and down
    near = camera_pose(pose, changed(START, distance=0.5))
    assert seen_at((0, 0, 0), near)[2] == pytest.approx(before[2] / 2, rel=1e-4)
    assert camera_pose(pose, START) is pose


def looking(pose, yaw: float, pitch: float):
    return torch.stack([orbited(pose, *angles) for angles in ((0, 0), (yaw, pitch))])


def test_range_of_the_captured_directions(pose):
    front = pose.clone()
    front[:3, 3] = torch.tensor([0.0, 3.0, 0.0])  # right in front of the face
    captured = CapturedDirections.of(looking(front, 20, -10))
    assert captured.yaw == pytest.approx((0, 20), abs=1e-3)
    assert captured.pitch == pytest.approx((-10, 0), abs=1e-3)
    for yaw, pitch in ((0, 0), (20, -10), (22.9, 2.9), (-2.9, -12.9)):
        assert captured.warning(looking(front, yaw, pitch)[1]) == ""
    assert captured.warning(looking(front, 31, -5)[1]) == "outside the captured poses: yaw 31, captured 0 to 20 deg"
    both = captured.warning(looking(front, -40, 15)[1])
    assert both == "outside the captured poses: yaw -40, captured 0 to 20 deg; pitch 15, captured -10 to 0 deg"
    assert captured.warning(camera_pose(front, changed(START, distance=0.5, field_of_view=50.0))) == ""
    assert "yaw" in captured.warning(camera_pose(front, changed(START, yaw=-20.0)))
    assert "yaw" in captured.warning(head_pose(front, changed(START, head="mouse", head_yaw=20.0)))


def test_field_of_view(pose):
    assert START.captured_field_of_view == pytest.approx(9.148, abs=1e-3)
    wide = view_intrinsics(INTRINSICS, SIZE, changed(START, field_of_view=40.0), SIZE)
    assert field_of_view(wide, SIZE[1]) == pytest.approx(40)
    assert view_intrinsics(INTRINSICS, SIZE, START, (32, 24)) == (150, 150, 16, 12)
    same = view_intrinsics(INTRINSICS, SIZE, changed(START, field_of_view=START.captured_field_of_view), SIZE)
    assert same == pytest.approx(INTRINSICS)


def test_layer_of_the_frame_camera_is_its_image(pose):
    pixels = all_pixels(SIZE[1], SIZE[0])
    coords = layer_coords(*pixel_rays(pose, INTRINSICS, pixels), pose, INTRINSICS, SIZE)
    torch.testing.assert_close(coords, pixel_coords(pixels, SIZE[1], SIZE[0]), atol=1e-4, rtol=0)


def test_layer_seen_at_half_the_scale(pose):
    small = view_intrinsics(INTRINSICS, SIZE, START, (32, 24))
    coords = layer_coords(*pixel_rays(pose, small, torch.tensor([[0, 0]])), pose, INTRINSICS, SIZE)
    # The center of the first small pixel is the corner between the first four large ones: row and column 0.5.
    torch.testing.assert_close(coords, torch.tensor([[2 * 0.5 / 47 - 1, 2 * 0.5 / 63 - 1]]), atol=1e-4, rtol=0)


def test_layer_stands_upright_through_the_head(pose):
    state = changed(START, yaw=40.0, pan_x=0.05, distance=0.8)
    camera = camera_pose(pose, state)
    # A point of the layer: beside the head's center, at the same depth for the frame's camera.
    point = 0.1 * pose[:3, 0] + 0.05 * pose[:3, 1]
    column, row, _ = seen_at(point.tolist(), pose)
    ray = torch.nn.functional.normalize(point - camera[:3, 3], dim=0)
    coords = layer_coords(camera[None, :3, 3], ray[None], pose, INTRINSICS, SIZE)[0]
    expected = pixel_coords(torch.tensor([[row - 0.5, column - 0.5]]), SIZE[1], SIZE[0])[0]
    torch.testing.assert_close(coords, expected, atol=1e-4, rtol=0)


def test_rays_away_from_the_layer_miss_it(pose):
    coords = layer_coords(pose[None, :3, 3], -pose[None, :3, 2], pose, INTRINSICS, SIZE)
    assert (coords.abs() > 100).all()
