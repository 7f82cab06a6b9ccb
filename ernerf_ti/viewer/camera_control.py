"""Cameras that the user moves, and where the flat layer of torso and background lies in their images.

The head is fixed in the scene: to turn it, the camera moves around it the other way. The torso has no depth; from other
views it is a flat image that stands upright through the head's center and faces the camera of the frame.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ernerf_ti.viewer.state import ViewState

Intrinsics = tuple[float, float, float, float]

_FAR_OUTSIDE = 1e3  # image coordinates of rays that miss the layer
_MARGIN = 3.0  # degrees beyond the captured directions that still render well


def field_of_view(intrinsics: Intrinsics, height: int) -> float:
    """Vertical field of view in degrees of a camera whose principal point is central."""
    return math.degrees(2 * math.atan(height / 2 / intrinsics[1]))


def orbited(pose: Tensor, yaw: float, pitch: float) -> Tensor:
    """A camera moved around the scene's origin, the center of the head.

    Args:
        pose: [4, 4] pose_world_from_camera in the scene.
        yaw: degrees around the scene's x axis, which points up; positive moves the camera to its right.
        pitch: degrees around the camera's x axis; positive moves the camera up.

    Returns:
        [4, 4] pose that sees the origin at the same pixel.
    """
    up = pose.new_tensor([1.0, 0.0, 0.0])
    turn = _rotation(up, yaw) @ _rotation(pose[:3, 0], -pitch)
    result = pose.clone()
    result[:3] = turn @ pose[:3]
    return result


def head_pose(base: Tensor, state: ViewState) -> Tensor:
    """[4, 4] camera pose of a frame after the user turned the head: the camera moves the other way."""
    if state.head != "mouse" or not (state.head_yaw or state.head_pitch):
        return base
    return orbited(base, -state.head_yaw, state.head_pitch)


def camera_pose(frame_pose: Tensor, state: ViewState) -> Tensor:
    """[4, 4] pose of the viewer's camera, from the camera pose of the frame."""
    if state.yaw == state.pitch == state.pan_x == state.pan_y == 0 and state.distance == 1:
        return frame_pose
    pose = orbited(frame_pose, state.yaw, state.pitch)
    pose[:3, 3] *= state.distance
    pose[:3, 3] += state.pan_x * pose[:3, 0] - state.pan_y * pose[:3, 1]
    return pose


@dataclass(frozen=True)
class CapturedDirections:
    """Directions in which the capture shows the head, degrees. Others are extrapolated by the model."""

    yaw: tuple[float, float]
    """Lowest and highest."""
    pitch: tuple[float, float]

    @classmethod
    def of(cls, poses: Tensor) -> "CapturedDirections":
        """Of a capture's poses [n, 4, 4], scene."""
        directions = torch.stack(_direction(poses), 1)
        (low_yaw, low_pitch), (high_yaw, high_pitch) = directions.amin(0).tolist(), directions.amax(0).tolist()
        return cls((low_yaw, high_yaw), (low_pitch, high_pitch))

    def warning(self, pose: Tensor) -> str:
        """What is to be said about a camera pose [4, 4] outside; empty for one inside, with a margin of 3 degrees."""
        outside = []
        for name, angle, (low, high) in zip(("yaw", "pitch"), _direction(pose), (self.yaw, self.pitch), strict=True):
            if not low - _MARGIN <= float(angle) <= high + _MARGIN:
                outside.append(f"{name} {float(angle):.0f}, captured {low:.0f} to {high:.0f} deg")
        return f"outside the captured poses: {'; '.join(outside)}" if outside else ""


def _direction(poses: Tensor) -> tuple[Tensor, Tensor]:
    """Yaw and pitch [...] in degrees from the head to cameras [..., 4, 4]: 0 in front, positive to z (right) and up."""
    up, front, right = poses[..., :3, 3].double().cpu().unbind(-1)
    return torch.atan2(right, front).rad2deg(), torch.atan2(up, torch.hypot(front, right)).rad2deg()


def view_intrinsics(
    captured: Intrinsics, size: tuple[int, int], state: ViewState, view_size: tuple[int, int]
) -> Intrinsics:
    """fx, fy, cx, cy of the viewer's camera, in pixels of its image.

    Args:
        captured: of the capture.
        size: width, height of the capture.
        state: has the field of view.
        view_size: width, height of the image.
    """
    scale_x, scale_y = view_size[0] / size[0], view_size[1] / size[1]
    fx, fy, cx, cy = captured
    if state.field_of_view:
        focal = size[1] / 2 / math.tan(math.radians(state.field_of_view) / 2)
        fx, fy = focal * fx / fy, focal
    return fx * scale_x, fy * scale_y, cx * scale_x, cy * scale_y


def layer_coords(
    rays_o: Tensor, rays_d: Tensor, frame_pose: Tensor, captured: Intrinsics, size: tuple[int, int]
) -> Tensor:
    """Where rays meet the flat layer of torso and background.

    Args:
        rays_o, rays_d: [N, 3] of the viewer's camera, scene.
        frame_pose: [4, 4] camera pose of the frame.
        captured: its fx, fy, cx, cy in pixels.
        size: width, height of its image.

    Returns:
        [N, 2] as :func:`ernerf_ti.portrait.camera.pixel_coords`, vertical coordinate first; outside [-1, 1] beside the
        layer. For the camera of the frame they are the coordinates of its pixels, up to rounding.
    """
    into_camera = frame_pose[:3, :3].t()
    origins = (rays_o - frame_pose[:3, 3]) @ into_camera.t()
    directions = rays_d @ into_camera.t()
    depth = -(into_camera @ frame_pose[:3, 3])[2]  # of the head's center
    along = (depth - origins[:, 2]) / directions[:, 2].clamp(min=1e-6)
    points = origins + along[:, None] * directions
    fx, fy, cx, cy = captured
    rows = points[:, 1] / depth * fy + cy - 0.5
    columns = points[:, 0] / depth * fx + cx - 0.5
    coords = torch.stack((rows / (size[1] - 1), columns / (size[0] - 1)), 1) * 2 - 1
    hits = ((along > 0) & (directions[:, 2] > 1e-6))[:, None]
    return torch.where(hits, coords, coords.new_tensor(_FAR_OUTSIDE))


def _rotation(axis: Tensor, degrees: float) -> Tensor:
    """[3, 3] right-handed rotation around a unit axis [Rodrigues' formula]."""
    x, y, z = axis.tolist()
    skew = axis.new_tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = math.radians(degrees)
    return torch.eye(3).to(axis) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew
