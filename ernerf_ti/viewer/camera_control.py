"""Cameras that look at the head from elsewhere, and where the torso's layer lies in their pictures.

The head stands still in the scene: it turns by moving the camera about it the other way. The torso has no
depth; seen from elsewhere it is a flat picture that stands upright through the head's center, facing the
camera that would have filmed the frame.
"""

import math

import torch
from torch import Tensor

from ernerf_ti.viewer.state import ViewState

Intrinsics = tuple[float, float, float, float]

_FAR_OUTSIDE = 1e3  # picture coordinates of rays that miss the layer


def field_of_view(intrinsics: Intrinsics, height: int) -> float:
    """Vertical, in degrees, of a camera with the principal point in the middle."""
    return math.degrees(2 * math.atan(height / 2 / intrinsics[1]))


def orbited(pose: Tensor, yaw: float, pitch: float) -> Tensor:
    """A camera moved about the scene's origin, the center of the head.

    Args:
        pose: [4, 4] pose_world_from_camera in the scene.
        yaw: degrees about the scene's x axis, which is the head's up; positive moves the camera to its right.
        pitch: degrees about the camera's x axis; positive moves the camera up.

    Returns:
        [4, 4], which looks at the origin as before.
    """
    up = pose.new_tensor([1.0, 0.0, 0.0])
    turn = _rotation(up, yaw) @ _rotation(pose[:3, 0], -pitch)
    result = pose.clone()
    result[:3] = turn @ pose[:3]
    return result


def head_pose(base: Tensor, state: ViewState) -> Tensor:
    """[4, 4] pose of a frame with the turn that the mouse gave the head.

    Turning the head to one side is the camera going to the other.
    """
    if state.head != "mouse" or not (state.head_yaw or state.head_pitch):
        return base
    return orbited(base, -state.head_yaw, state.head_pitch)


def camera_pose(filmed: Tensor, state: ViewState) -> Tensor:
    """[4, 4] pose of the viewer's camera, from that which would have filmed the frame."""
    if state.yaw == state.pitch == state.pan_x == state.pan_y == 0 and state.distance == 1:
        return filmed
    pose = orbited(filmed, state.yaw, state.pitch)
    pose[:3, 3] *= state.distance
    pose[:3, 3] += state.pan_x * pose[:3, 0] - state.pan_y * pose[:3, 1]
    return pose


def view_intrinsics(
    captured: Intrinsics, size: tuple[int, int], state: ViewState, view_size: tuple[int, int]
) -> Intrinsics:
    """fx, fy, cx, cy of the viewer's camera, in pixels of its picture.

    Args:
        captured: of the capture.
        size: width, height of the capture.
        state: has the field of view.
        view_size: width, height of the picture.
    """
    scale_x, scale_y = view_size[0] / size[0], view_size[1] / size[1]
    fx, fy, cx, cy = captured
    if state.field_of_view:
        focal = size[1] / 2 / math.tan(math.radians(state.field_of_view) / 2)
        fx, fy = focal * fx / fy, focal
    return fx * scale_x, fy * scale_y, cx * scale_x, cy * scale_y


def layer_coords(rays_o: Tensor, rays_d: Tensor, filmed: Tensor, captured: Intrinsics, size: tuple[int, int]) -> Tensor:
    """Where rays meet the flat layer of torso and background.

    Args:
        rays_o, rays_d: [N, 3] of the viewer's camera, scene.
        filmed: [4, 4] camera that would have filmed the frame.
        captured: its fx, fy, cx, cy in pixels.
        size: width, height of its picture.

    Returns:
        [N, 2] as :func:`ernerf_ti.portrait.camera.pixel_coords`, vertical coordinate first, beyond [-1, 1] beside the
        picture. For the filmed camera itself those are the pixels' own, to rounding.
    """
    into_camera = filmed[:3, :3].t()
    origins = (rays_o - filmed[:3, 3]) @ into_camera.t()
    directions = rays_d @ into_camera.t()
    depth = -(into_camera @ filmed[:3, 3])[2]  # of the head's center
    along = (depth - origins[:, 2]) / directions[:, 2].clamp(min=1e-6)
    points = origins + along[:, None] * directions
    fx, fy, cx, cy = captured
    rows = points[:, 1] / depth * fy + cy - 0.5
    columns = points[:, 0] / depth * fx + cx - 0.5
    coords = torch.stack((rows / (size[1] - 1), columns / (size[0] - 1)), 1) * 2 - 1
    hits = ((along > 0) & (directions[:, 2] > 1e-6))[:, None]
    return torch.where(hits, coords, coords.new_tensor(_FAR_OUTSIDE))


def _rotation(axis: Tensor, degrees: float) -> Tensor:
    """[3, 3] about a unit axis, by the right hand [Rodrigues]."""
    x, y, z = axis.tolist()
    skew = axis.new_tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = math.radians(degrees)
    return torch.eye(3).to(axis) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew
