"""Predict the torso's appearance embedding from the head pose, for frames that were not trained on."""

import torch
from torch import Tensor

_PENALTY = 1e-3  # of the regression, per training frame


class PoseRegression:
    """Ridge regression from the head's rotation and position in the camera to the embeddings of the training frames.

    A torso's embedding encodes where the shoulders are. They follow the head in part, to a good approximation
    linearly; the mean embedding would leave them at their average position.

    Args:
        poses: [n, 4, 4] pose_world_from_camera of the training frames, n at least 1.
        embeddings: [n, K] of the same frames.
    """

    def __init__(self, poses: Tensor, embeddings: Tensor):
        self._low, self._high = embeddings.amin(0), embeddings.amax(0)
        u, _, v = torch.linalg.svd(poses[:, :3, :3].double().mean(0))
        self._middle = u @ v
        features = self._features(poses)
        self._mean, self._deviation = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        features = (features - self._mean) / self._deviation
        identity = torch.eye(6, dtype=features.dtype, device=features.device)
        gram = features.t() @ features + _PENALTY * len(features) * identity
        targets = embeddings.double()
        self._offset = targets.mean(0)
        self._slopes = torch.linalg.solve(gram, features.t() @ (targets - self._offset))

    def __call__(self, poses: Tensor) -> Tensor:
        """[m, 4, 4] poses -> [m, K] embeddings, clamped to the range of those of the training frames."""
        expected = self._offset + (self._features(poses) - self._mean) / self._deviation @ self._slopes
        return expected.to(self._low.dtype).clamp(self._low, self._high)

    def _features(self, poses: Tensor) -> Tensor:
        """[m, 6] rotation from the mean pose (axis times sine of the angle) and position of the head in camera axes."""
        poses = poses.to(self._middle.device, torch.float64)
        rotation = poses[:, :3, :3].transpose(1, 2) @ self._middle
        axis = torch.stack([rotation[:, i, j] - rotation[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], 1) / 2
        position = -(poses[:, :3, 3:].transpose(1, 2) @ poses[:, :3, :3])[:, 0]
        return torch.cat((axis, position), 1)
