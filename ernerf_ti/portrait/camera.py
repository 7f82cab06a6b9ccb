"""Cameras: poses, pixel rays and normalized pixel coordinates.

Three coordinate frames occur.

- Capture: world = head, x right, y up, z out of the face; the camera looks along its -z with y up
  (OpenGL). The matrices of transforms_*.json are of this kind.
- Scene: axes x up, y out of the face, z right; lengths are those of the capture times a scale; the camera looks along
  +z with y down (OpenCV). The rendered volume is the box [-b, b] x [-b/2, b/2] x [-b, b].
- Image: row r downwards, column c to the right; the center of a pixel is at (c + 0.5, r + 0.5).

A matrix pose_world_from_camera maps camera points to world points.
"""

import numpy as np
import torch
from torch import Tensor

SCENE_SCALE = 4.0
"""Scene units per unit of a capture's translations, as in ER-NeRF."""

_AXES = (1, 2, 0)  # scene x, y, z = capture y, z, x
_HEAD_HALF = 0.4  # scene units, 10 cm: half the side of a cube about the size of a head


def scene_from_capture(
    poses: Tensor, scale: float = SCENE_SCALE, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Tensor:
    """[..., 4, 4] poses of a capture -> pose_world_from_camera in the scene, same dtype.

    Args:
        poses: [..., 4, 4] as transforms_*.json has them.
        scale: scene units per unit of the translations.
        offset: added to the scaled translation, scene axes and units.
    """
    _check_poses(poses)
    result = poses.clone()
    rows = poses[..., _AXES, :]
    result[..., :3, 0] = rows[..., 0]
    result[..., :3, 1:3] = -rows[..., 1:3]
    result[..., :3, 3] = rows[..., 3] * scale + poses.new_tensor(offset)
    return result


def capture_from_scene(
    poses: Tensor, scale: float = SCENE_SCALE, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Tensor:
    """The inverse of :func:`scene_from_capture`."""
    _check_poses(poses)
    result = poses.clone()
    result[..., _AXES, 0] = poses[..., :3, 0]
    result[..., _AXES, 1:3] = -poses[..., :3, 1:3]
    result[..., _AXES, 3] = (poses[..., :3, 3] - poses.new_tensor(offset)) / scale
    return result


def all_pixels(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """[H W, 2] int64 rows and columns, row by row."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack((rows.flatten(), columns.flatten()), 1)


def pixel_rays(pose: Tensor, intrinsics: tuple[float, float, float, float], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Rays through pixels.

    Args:
        pose: [4, 4] pose_world_from_camera in the scene.
        intrinsics: fx, fy, cx, cy in pixels.
        pixels: [N, 2] rows and columns; whole numbers are the centers of pixels, others lie between them.

    Returns:
        rays_o, rays_d: [N, 3] origins and unit directions, contiguous, in the dtype of the pose.

    Differentiable in the pose. Raises ValueError for other shapes.
    """
    _check_poses(pose)
    if pixels.dim() != 2 or pixels.shape[1] != 2:
        raise ValueError(
            f"pixels: expected shape [N, 2], got {list(pixels.shape)}; pass the row and column of each pixel"
        )
    return rays_of(pose, camera_directions(intrinsics, pixels, pose.dtype))


def camera_directions(intrinsics: tuple[float, float, float, float], pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, 3] unit directions through pixels in the axes of the camera; arguments as of :func:`pixel_rays`."""
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    centers = pixels.to(dtype) + 0.5
    directions = torch.stack(((centers[:, 1] - cx) / fx, (centers[:, 0] - cy) / fy, torch.ones_like(centers[:, 0])), 1)
    return directions / directions.norm(dim=1, keepdim=True)


def rays_of(pose: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rays of a pose [4, 4], as of :func:`pixel_rays`, from :func:`camera_directions`."""
    rays_d = directions @ pose[:3, :3].t()
    return pose[:3, 3].expand(len(directions), 3).contiguous(), rays_d.contiguous()


def pixel_coords(pixels: Tensor, height: int, width: int) -> Tensor:
    """Normalized pixel coordinates, the input of the torso field.

    Args:
        pixels: [N, 2] rows and columns.
        height, width: of the image, at least 2.

    Returns:
        [N, 2] float32: 2 r / (H - 1) - 1 and 2 c / (W - 1) - 1. The vertical coordinate comes first, and
        the first and last pixels are at -1 and 1, as in ER-NeRF's bg_coords.
    """
    rows, columns = pixels.float().unbind(1)
    return torch.stack((rows / (height - 1), columns / (width - 1)), 1) * 2 - 1


def head_distances(poses: Tensor, others: Tensor) -> Tensor:
    """How far the head is from where it is in other poses, as a camera sees it.

    Args:
        poses, others: [..., 4, 4] pose_world_from_camera in the scene; their leading dimensions are broadcast.

    Returns:
        [...] root mean square distance, in camera coordinates, between the corners of a cube about the size of a head;
        scene units.
    """
    _check_poses(poses)
    _check_poses(others)
    corners = torch.cartesian_prod(*3 * [poses.new_tensor((-_HEAD_HALF, _HEAD_HALF))])
    seen, others_seen = ((corners - p[..., None, :3, 3]) @ p[..., :3, :3] for p in (poses, others))
    return (seen - others_seen).square().sum(-1).mean(-1).sqrt()


def smooth_path(poses: Tensor, window: int = 7) -> Tensor:
    """Smooth a tracked camera path by a moving average.

    The mean of rotations is the rotation closest to their arithmetic mean (the chordal mean, Hartley et al. 2013,
    section 5.3).

    Args:
        poses: [n, 4, 4].
        window: number of frames averaged, odd; the window is cut at both ends of the path.

    Raises ValueError if the window is even or less than 1.
    """
    _check_poses(poses)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: expected an odd number of frames, got {window}; pass 1 for no smoothing")
    half, result = window // 2, poses.clone()
    for i in range(len(poses)):
        near = poses[max(0, i - half) : i + half + 1]
        u, _, v = torch.linalg.svd(near[:, :3, :3].mean(0))
        u[:, 2] *= torch.linalg.det(u @ v)
        result[i, :3, :3] = u @ v
        result[i, :3, 3] = near[:, :3, 3].mean(0)
    return result


def interpolate_poses(poses: Tensor, positions: np.ndarray) -> Tensor:
    """Poses between those of a path: rotations turn at constant speed about a fixed axis from one to the next (slerp,
    Shoemake 1985), and translations are interpolated linearly.

    Args:
        poses: [n, 4, 4]; two in succession are less than half a turn apart.
        positions: [m] in [0, n - 1].

    Returns:
        [m, 4, 4] in the dtype of the poses; at whole numbers the poses themselves.
    """
    _check_poses(poses)
    first = np.floor(positions).astype(np.int64)
    before, after = poses[first], poses[np.minimum(first + 1, len(poses) - 1)]
    share = torch.from_numpy(positions - first).to(poses.device)
    turn = (before[:, :3, :3].mT @ after[:, :3, :3]).double()
    axis = torch.stack((turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]), 1)
    sine2 = axis.norm(dim=1)
    angle = torch.atan2(sine2, turn.diagonal(dim1=1, dim2=2).sum(1) - 1) * share
    x, y, z = (axis / sine2.clamp(min=1e-12)[:, None]).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).view(-1, 3, 3)
    sine, versine = angle.sin()[:, None, None], (1 - angle.cos())[:, None, None]
    part = torch.eye(3, dtype=cross.dtype, device=cross.device) + sine * cross + versine * cross @ cross  # Rodrigues
    result = before.clone()
    between = share > 0
    result[:, :3, :3] = torch.where(
        between[:, None, None], (before[:, :3, :3].double() @ part).to(poses.dtype), before[:, :3, :3]
    )
    result[:, :3, 3] = torch.lerp(before[:, :3, 3], after[:, :3, 3], share.to(poses.dtype)[:, None])
    return result


def _check_poses(poses: Tensor) -> None:
    if poses.dim() < 2 or tuple(poses.shape[-2:]) != (4, 4):
        raise ValueError(f"poses: expected shape [..., 4, 4], got {list(poses.shape)}; pass 4 x 4 matrices")
